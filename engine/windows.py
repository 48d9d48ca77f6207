"""Networks over whole recordings: window by window, batch by batch, on all cores."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import torch

from data.preprocess import to_millivolts, window_starts
from models import ECGModel

BATCH = 64  # windows
ROWS = 256  # recordings that a forest answers for at once: it takes some 70 kB for each
OVERLAP = (
    0  # samples, of new runs: sharing half takes 1.7 times the time and scores alike (docs/results.md, docs/speed.md)
)


@dataclass(frozen=True, order=True)
class Windows:
    """How a network reads recordings, which its run's config.json says."""

    seq_length: int  # samples in a window
    overlap: int  # samples that neighbouring windows share at least, 0 <= overlap < seq_length

    def starts(self, n_samples: int) -> list[int]:
        """First sample of each window of a recording, see `data.preprocess.window_starts`."""
        return window_starts(n_samples, self.seq_length, self.overlap)


def half_overlapping(seq_length: int) -> Windows:
    """Windows that share half of their samples: in pre-training, and of runs whose config.json does not say which."""
    return Windows(seq_length, seq_length // 2)


def predict(
    models: Sequence[ECGModel],
    windows: Sequence[Windows],
    signals: Sequence[np.ndarray],
    covariates: np.ndarray,
    device: str = "cpu",
    numbers: Callable[[], np.ndarray] | None = None,
) -> np.ndarray:
    """Probabilities (R, C) float32: of each model the mean over a recording's windows, joined with the answer of its
    forest where it has one, then the mean over the models.

    Always in float32: the same recording gets the same probabilities wherever it is asked for.

    Args:
        models: in evaluation mode, from `models.folding.fold_norms`.
        windows: how each model reads recordings.
        signals: R arrays (n_leads, T_i) int16 microvolts.
        covariates: (R, N_COVARIATES) float32.
        device: where the models are.
        numbers: gives (R, N_NUMBERS) float32, see data.measures, when the networks are done; only forests ask for it.
    """

    def probabilities(task):
        model, x, lengths, rows = task
        with torch.inference_mode(), full_float32(device):
            logits = model(
                torch.from_numpy(x).to(device),
                torch.from_numpy(lengths).to(device),
                torch.from_numpy(covariates[rows]).to(device),
            )  # (b, C)
            return torch.sigmoid(logits.float()).cpu().numpy()

    n_threads = torch.get_num_threads() if device == "cpu" else 1
    total = 0
    for shared in sorted(set(windows)):  # models that read alike share the batches
        members = [model for model, own in zip(models, windows) if own == shared]
        tasks = ((model, *batch) for batch in window_batches(signals, shared) for model in members)
        sums = {model: np.zeros((len(signals), model.head.thresholds.numel())) for model in members}  # (R, C)
        for (model, _, _, rows), scores in in_threads(probabilities, tasks, n_threads):
            np.add.at(sums[model], rows, scores)
        n_windows = np.array([len(shared.starts(signal.shape[1])) for signal in signals])
        for model in members:
            total = total + with_forest(model, sums[model] / n_windows[:, None], numbers)  # (R, C)
    return (total / len(models)).astype(np.float32)


def with_forest(model: ECGModel, y_score: np.ndarray, numbers: Callable[[], np.ndarray] | None) -> np.ndarray:
    """The probabilities (R, C) of a model's network, joined with those of its forest; as they are without one."""
    if model.forest is None:
        return y_score
    # On one thread: split in two it is hardly faster, and the second then waits for more, busily, for milliseconds.
    return single_threads(1).submit(_join, model.forest, y_score, numbers()).result()


@torch.inference_mode()
def _join(forest, y_score, numbers):
    parts = torch.from_numpy(numbers).to(forest.typical.device).split(ROWS)
    answers = torch.cat([forest(part) for part in parts])  # (R, C)
    return forest.join(torch.from_numpy(y_score), answers.double().cpu()).numpy()


def embed(
    models: Sequence[ECGModel], windows: Sequence[Windows], signals: Sequence[np.ndarray], device: str = "cpu"
) -> np.ndarray:
    """Features (R, D) float32 of recordings: those of each model, the mean over a recording's windows, one model's
    behind the other's, for no feature of one has to do with one of another. Arguments as of `predict`.
    """

    def features(task):
        model, x, lengths, _ = task
        with torch.inference_mode(), full_float32(device):
            return model.embed(torch.from_numpy(x).to(device), torch.from_numpy(lengths).to(device)).cpu().numpy()

    n_threads = torch.get_num_threads() if device == "cpu" else 1
    columns = []
    for model, own in zip(models, windows):
        sums = np.zeros((len(signals), 2 * model.encoder.out_channels))  # (R, 2 D)
        n_windows = np.zeros(len(signals))
        tasks = ((model, *batch) for batch in window_batches(signals, own))
        for (_, _, _, rows), found in in_threads(features, tasks, n_threads):
            np.add.at(sums, rows, found)
            np.add.at(n_windows, rows, 1)
        columns.append(sums / n_windows[:, None])
    return np.concatenate(columns, 1).astype(np.float32)


@contextlib.contextmanager
def full_float32(device: str) -> Iterator[None]:
    """float32 is float32 within the block, on a GPU too. There PyTorch convolves in TF32 unless told otherwise, with 10
    bits of mantissa, and multiplies matrices so where a container or a user has switched it on. Nothing changes on the
    CPU, where such a switch would count for the threads of others.
    """
    if device == "cpu":
        yield
        return
    convolutions = torch.backends.cudnn.allow_tf32
    products = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.backends.cuda.matmul.allow_tf32 = products


def in_threads(function: Callable[[Any], Any], items: Iterable[Any], n_threads: int) -> Iterator[tuple[Any, Any]]:
    """Yield (item, function(item)) in order, computed by several threads; few items are read ahead.

    Networks as small as these use two cores best by working on two batches at once: split within each operation, as
    PyTorch does by itself, they gain little, and lose everything when another process takes one of the cores.
    """
    if n_threads == 1:
        yield from ((item, function(item)) for item in items)
        return
    waiting = deque()
    for item in items:
        waiting.append((item, single_threads(n_threads).submit(function, item)))
        if len(waiting) > 2 * n_threads:
            item, future = waiting.popleft()
            yield item, future.result()
    for item, future in waiting:
        yield item, future.result()


@cache
def single_threads(n: int) -> ThreadPoolExecutor:
    """A pool of n threads in each of which PyTorch does not start further ones; kept, for its threads take time to
    start.
    """
    return ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,))


if hasattr(os, "register_at_fork"):  # a forked process has none of these threads, and would wait for them
    os.register_at_fork(after_in_child=single_threads.cache_clear)


def window_batches(
    signals: Sequence[np.ndarray], windows: Windows
) -> Iterator[tuple[np.ndarray, np.ndarray, list[int]]]:
    """Yield (x (b, n_leads, L) float32 mV, lengths (b,), row of each window) with b <= BATCH, all windows in order.

    A recording shorter than a window is zero-padded after its lengths samples. No more than one batch is in memory
    beside the signals, however long they are.
    """
    seq_length = windows.seq_length
    places = ((row, start) for row, signal in enumerate(signals) for start in windows.starts(signal.shape[1]))
    while batch := list(islice(places, BATCH)):
        x = np.zeros((len(batch), len(signals[0]), seq_length), np.int16)
        lengths = np.empty(len(batch), np.int64)
        for i, (row, start) in enumerate(batch):
            window = signals[row][:, start : start + seq_length]  # (n_leads, <= L)
            lengths[i] = window.shape[1]
            x[i, :, : lengths[i]] = window
        yield to_millivolts(x), lengths, [row for row, _ in batch]
