"""Recordings with their labels, and training batches of random windows."""
from dataclasses import dataclass

import numpy as np
import torch

from data.inputs import demographics, to_millivolts


@dataclass(frozen=True)
class Dataset:
    """R recordings with labels for C classes."""
    cache: object             # SignalCache
    targets: np.ndarray       # (R, C) float32, what training asks for: the class set's codes and its training aliases
    y_true: np.ndarray        # (R, C) bool, what the official scorer sees
    known: np.ndarray         # (R, C) float32, 0 where a label is simply missing: it is left out of the loss
    demographics: np.ndarray  # (R, 4) float32, see data.preprocess.demographics
    metadata: object          # Metadata

    def __len__(self):
        return len(self.cache)


def build_dataset(cache, class_set, metadata):
    """Dataset of a SignalCache, a ClassSet and a Metadata. Where the metadata says that the heart axis was never
    annotated, the axis deviations are unknown rather than absent."""
    targets = class_set.encode_all(cache.dx, training=True)
    known = np.ones_like(targets)
    for code in ("39732003", "47665007"):  # left and right axis deviation
        column = class_set.column(code)
        if column is not None:
            known[metadata.axis_unknown & (targets[:, column] == 0), column] = 0
    people = np.stack([demographics(age, sex) for age, sex in zip(cache.age.tolist(), cache.sex.tolist())])
    return Dataset(cache, targets, class_set.encode_all(cache.dx) > 0, known, people, metadata)


@dataclass(frozen=True)
class Batch:
    """B windows of L samples, zero-padded at the end where a recording is shorter."""
    x: torch.Tensor             # (B, 12, L) float32 mV
    y: torch.Tensor             # (B, C) float32
    known: torch.Tensor         # (B, C) float32
    n_valid: torch.Tensor       # (B,) int64, samples before the padding
    demographics: torch.Tensor  # (B, 4) float32
    index: np.ndarray           # (B,) row of each window in the Dataset


class TrainBatches:
    """Shuffled batches of one random window per recording; the same (seed, epoch) always gives the same batches."""

    def __init__(self, dataset, indices, seq_length, batch_size, seed):
        self.dataset, self.indices, self.seq_length, self.seed = dataset, np.asarray(indices), seq_length, seed
        self.batch_size = min(batch_size, len(self.indices))

    def __len__(self):
        return len(self.indices) // self.batch_size  # the rest of an epoch is dropped: batch norm dislikes tiny batches

    def epoch(self, epoch):
        """Yield the Batches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.indices)
        for b in range(len(self)):
            yield self._batch(order[b * self.batch_size:(b + 1) * self.batch_size], rng)

    def _batch(self, rows, rng):
        data = self.dataset
        x = np.zeros((len(rows), 12, self.seq_length), np.int16)
        n_valid = np.empty(len(rows), np.int64)
        for i, (row, place) in enumerate(zip(rows, rng.random(len(rows)))):
            signal = data.cache.signal(row)                                      # (12, T)
            start = int(place * (max(signal.shape[1] - self.seq_length, 0) + 1))
            window = signal[:, start:start + self.seq_length]
            n_valid[i] = window.shape[1]
            x[i, :, :n_valid[i]] = window
        return Batch(torch.from_numpy(to_millivolts(x)), torch.from_numpy(data.targets[rows]),
                     torch.from_numpy(data.known[rows]), torch.from_numpy(n_valid),
                     torch.from_numpy(data.demographics[rows]), rows)
