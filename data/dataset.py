"""Recordings with their labels, and training batches of random windows."""
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch

from data.inputs import N_DEMOGRAPHICS, to_millivolts
from data.labels import NORMAL
from data.rhythm import RATES

SINUS_BRADYCARDIA = "426177001"
AXIS_CODES = ("39732003", "47665007", "251200008")  # left, right and indeterminate axis deviation


@dataclass(frozen=True)
class Dataset:
    """R recordings with labels for C classes, and for A auxiliary codes that only training sees."""
    cache: object             # SignalCache
    y_true: np.ndarray        # (R, C) bool, what the official scorer sees
    targets: np.ndarray       # (R, C + A) float32, what training asks for: the class set's codes with its training aliases
    known: np.ndarray         # (R, C + A) float32, 0 where a label is simply missing: it is left out of the loss
    context: np.ndarray       # (R, N_CONTEXT) float32, see data.inputs.context
    metadata: object          # Metadata
    auxiliary: tuple = ()     # the A codes

    def __len__(self):
        return len(self.cache)


def build_dataset(cache, class_set, metadata):
    """Dataset of a SignalCache, a ClassSet and a Metadata. Two labels are unknown rather than absent: axis deviations where
    the metadata says that the heart axis was never annotated, and sinus bradycardia in a sinus rhythm of 50 to 60 beats per
    minute, for hospitals draw that line at 50 (PTB-XL) or at 60 (the textbook, most others)."""
    targets = class_set.encode_all(cache.dx, training=True)
    columns = [class_set.column(code) for code in AXIS_CODES]
    known = _known_axis(targets, [c for c in columns if c is not None], metadata)
    slow, sinus = class_set.column(SINUS_BRADYCARDIA), class_set.column(NORMAL)
    if slow is not None and sinus is not None:
        above_50, above_60 = (cache.context[:, N_DEMOGRAPHICS + RATES.index(rate)] > 0 for rate in (50, 60))
        known[above_50 & ~above_60 & (targets[:, sinus] > 0) & (targets[:, slow] == 0), slow] = 0
    return Dataset(cache, class_set.encode_all(cache.dx) > 0, targets, known, cache.context, metadata)


def unlabelled_dataset(cache, metadata):
    """Dataset of recordings whose labels, ages and sexes nobody asks for: zero columns of each."""
    none = np.zeros((len(cache), 0), np.float32)
    return Dataset(cache, none > 0, none, none, none, metadata)


def with_auxiliary(data, class_set, train_rows, min_positives):
    """The same Dataset, asking also for every further code that at least `min_positives` training recordings carry. What else
    a recording shows teaches the encoder; the outputs are dropped after training. 0: no auxiliary codes."""
    if not min_positives:
        return data
    answered = {code for group in class_set.members + class_set.training_aliases for code in group}
    count = Counter(code for row in train_rows for code in set(data.cache.dx[row]) - answered)
    codes = tuple(sorted(code for code, n in count.items() if n >= min_positives))
    targets = np.array([[code in dx for code in codes] for dx in data.cache.dx], np.float32).reshape(len(data), -1)   # (R, A)
    known = _known_axis(targets, [codes.index(code) for code in AXIS_CODES if code in codes], data.metadata)
    return replace(data, targets=np.hstack([data.targets, targets]), known=np.hstack([data.known, known]), auxiliary=codes)


def _known_axis(targets, columns, metadata):
    known = np.ones_like(targets)
    for column in columns:
        known[metadata.axis_unknown & (targets[:, column] == 0), column] = 0
    return known


@dataclass(frozen=True)
class Batch:
    """B windows of L samples, zero-padded at the end where a recording is shorter."""
    x: torch.Tensor             # (B, 12, L) float32 mV
    y: torch.Tensor             # (B, C + A) float32
    known: torch.Tensor         # (B, C + A) float32
    n_valid: torch.Tensor       # (B,) int64, samples before the padding
    context: torch.Tensor       # (B, N_CONTEXT) float32
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
                     torch.from_numpy(data.context[rows]), rows)
