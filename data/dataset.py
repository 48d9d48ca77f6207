"""Recordings with their labels, and training batches of random windows."""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from data.cache import SignalCache
from data.covariates import LEAD_SUBSETS, N_COVARIATES, N_DEMOGRAPHICS, subset_covariates
from data.labels import NORMAL, ClassSet, is_diagnosis
from data.measures import N_NUMBERS, recording_numbers
from data.metadata import Metadata
from data.preprocess import to_millivolts
from data.rhythm import RATES

SINUS_BRADYCARDIA = "426177001"
SHUFFLED_WHOLE = 2**31  # bytes of signals; a larger set is shuffled in parts, see TrainBatches
BLOCK = 1024  # recordings that move to a device at once
AHEAD = 3  # batches that are prepared while a GPU computes
AXIS_CODES = ("39732003", "47665007", "251200008")  # left, right and indeterminate axis deviation


@dataclass(frozen=True)
class Dataset:
    """R recordings with labels for C classes, and for A auxiliary codes that only training sees."""

    cache: SignalCache
    y_true: np.ndarray  # (R, C) bool, what the official scorer sees
    targets: np.ndarray  # (R, C + A) float32, what training asks for: the class set's codes with its training aliases
    mask: np.ndarray  # (R, C + A) float32, 0 where a label is simply missing: it is left out of the loss
    covariates: np.ndarray  # (R, N_COVARIATES) float32, see data.covariates
    metadata: Metadata
    auxiliary: tuple[str, ...] = ()  # the A codes
    subset_covariates: np.ndarray | None = None  # (R, S, N_COVARIATES) float32, see with_lead_subsets
    numbers: np.ndarray | None = None  # (R, N_NUMBERS) float32, see with_numbers

    def __len__(self) -> int:
        return len(self.cache)


def build_dataset(cache: SignalCache, class_set: ClassSet, metadata: Metadata) -> Dataset:
    """Recordings with the labels of a class set.

    Two labels are unknown rather than absent: axis deviations where the metadata says that the heart axis was never
    annotated, and sinus bradycardia in a sinus rhythm of 50 to 60 beats per minute, for hospitals draw that line at 50
    (PTB-XL) or at 60 (the textbook, most others).

    Args:
        cache: R recordings.
        class_set: the C classes.
        metadata: of the same recordings.

    Returns:
        Dataset without auxiliary codes.
    """
    targets = class_set.encode_all(cache.dx, training=True)
    columns = [class_set.column(code) for code in AXIS_CODES]
    mask = _axis_mask(targets, [c for c in columns if c is not None], metadata)
    slow = class_set.column(SINUS_BRADYCARDIA)
    sinus = class_set.column(NORMAL)
    if slow is not None and sinus is not None:
        above_50 = cache.covariates[:, N_DEMOGRAPHICS + RATES.index(50)] > 0
        above_60 = cache.covariates[:, N_DEMOGRAPHICS + RATES.index(60)] > 0
        between = above_50 & ~above_60
        mask[between & (targets[:, sinus] > 0) & (targets[:, slow] == 0), slow] = 0
    return Dataset(cache, class_set.encode_all(cache.dx) > 0, targets, mask, cache.covariates, metadata)


def class_frequency(data: Dataset, rows: np.ndarray) -> np.ndarray:
    """(C + A,) float32, how often each class occurs among those of the recordings `rows` of which it is known: what a
    probability learned from them refers to.
    """
    known = data.mask[rows].sum(0)  # (C + A,)
    return (data.targets[rows] * data.mask[rows]).sum(0) / np.maximum(known, 1)


def unlabelled_dataset(cache: SignalCache, metadata: Metadata) -> Dataset:
    """Dataset of recordings whose labels, ages and sexes nobody asks for: zero columns of each."""
    none = np.zeros((len(cache), 0), np.float32)
    return Dataset(cache, none > 0, none, none, none, metadata)


def with_auxiliary(data: Dataset, class_set: ClassSet, train_rows: np.ndarray, min_positives: int) -> Dataset:
    """Ask also for codes outside the class set: what else a recording shows teaches the encoder. The outputs are
    dropped after training.

    Args:
        data: recordings with the labels of the class set.
        class_set: of these labels.
        train_rows: rows that train.
        min_positives: a code is asked for if so many of them carry it; 0: none is.

    Returns:
        the same Dataset with auxiliary codes.
    """
    if not min_positives:
        return data
    answered = class_set.taught_codes.keys()
    count = Counter(code for row in train_rows for code in set(data.cache.dx[row]) - answered if is_diagnosis(code))
    codes = tuple(sorted(code for code, n in count.items() if n >= min_positives))
    targets = np.array([[code in dx for code in codes] for dx in data.cache.dx], np.float32)
    targets = targets.reshape(len(data), len(codes))  # (R, A), also if there is no code
    mask = _axis_mask(targets, [codes.index(code) for code in AXIS_CODES if code in codes], data.metadata)
    return replace(data, targets=np.hstack([data.targets, targets]), mask=np.hstack([data.mask, mask]), auxiliary=codes)


def with_lead_subsets(data: Dataset, rows: np.ndarray, sample_freq: float) -> Dataset:
    """The same Dataset, with the covariates that its recordings `rows` would have if they had the leads of each of
    LEAD_SUBSETS only: the beats that are found depend on the leads. Takes about a millisecond a recording.
    """
    found = np.zeros((len(data), len(LEAD_SUBSETS), N_COVARIATES), np.float32)
    for row in np.unique(rows):
        found[row] = subset_covariates(data.cache.signal(row), sample_freq, data.covariates[row])
    return replace(data, subset_covariates=found)


def with_numbers(data: Dataset, rows: np.ndarray, sample_freq: float) -> Dataset:
    """The same Dataset, with what is measured of its recordings `rows`, on which a forest decides; NaN of the others.
    Takes milliseconds a recording.
    """
    found = np.full((len(data), N_NUMBERS), np.nan, np.float32)
    signals = map(data.cache.signal, tqdm(rows, desc="Measuring", unit="rec", leave=False, disable=None))
    found[rows] = recording_numbers(signals, sample_freq, data.covariates[rows])
    return replace(data, numbers=found)


def _axis_mask(targets: np.ndarray, columns: list[int], metadata: Metadata) -> np.ndarray:
    """Mask like `targets`, 0 in the columns of axis deviations where nobody has looked at the axis."""
    mask = np.ones_like(targets)
    for column in columns:
        mask[metadata.axis_unknown & (targets[:, column] == 0), column] = 0
    return mask


@dataclass(frozen=True)
class Batch:
    """B windows of L samples, zero-padded at the end where a recording is shorter; `b` of them where several
    processes share a batch.
    """

    x: torch.Tensor  # (b, n_leads, L) float32 mV
    y: torch.Tensor  # (b, C + A) float32
    mask: torch.Tensor  # (b, C + A) float32
    lengths: torch.Tensor  # (b,) int64, samples before the padding
    covariates: torch.Tensor  # (b, N_COVARIATES) float32
    subset_covariates: torch.Tensor  # (b, S, N_COVARIATES) float32, S = 0 unless the Dataset has them
    starts: np.ndarray  # (b,) first sample of each window in its recording
    index: np.ndarray  # (B,) rows of the whole batch in the Dataset


class TrainBatches:
    """Shuffled batches of one random window per recording; the same (seed, epoch) always gives the same batches,
    whatever the number of processes. Of `size` processes that share each batch, number `rank` gets its part of the
    windows.

    A large set is not shuffled as a whole: place p of every batch is taken from the p-th of B equal parts of the
    recordings, B the batch size. So a process, whose places are always the same, needs its own share of the
    recordings and their files only.

    Args:
        dataset: the recordings.
        indices: rows of those that train.
        seq_length: samples of a window, L.
        batch_size: windows of a batch, B; of fewer recordings, their number.
        seed: decides order and windows, together with the epoch.
        rank: number of this process.
        size: number of processes; a ValueError if it does not divide the batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: np.ndarray,
        seq_length: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        size: int = 1,
    ):
        self.dataset = dataset
        self.indices = np.asarray(indices)
        self.seq_length = seq_length
        self.seed = seed
        self.batch_size = min(batch_size, len(self.indices))
        if self.batch_size % size:
            raise ValueError(
                f"a batch of {self.batch_size} windows cannot be shared evenly by {size} processes: change --batch_size"
            )
        self.part = slice(rank * self.batch_size // size, (rank + 1) * self.batch_size // size)
        self.strata = None
        rows = self.indices
        if dataset.cache.n_bytes > SHUFFLED_WHOLE:
            self.strata = np.array_split(np.sort(self.indices), self.batch_size)
            rows = np.concatenate(self.strata[self.part])
        self.own = np.unique(rows)  # those that this process reads
        self.n_leads = dataset.cache.n_leads
        self.n_samples = np.diff(dataset.cache.offsets) // self.n_leads  # (R,) samples
        self.subset_covariates = dataset.subset_covariates
        if self.subset_covariates is None:
            self.subset_covariates = np.zeros((len(dataset), 0, dataset.covariates.shape[1]), np.float32)

    def __len__(self) -> int:
        return len(self.indices) // self.batch_size  # the rest of an epoch is dropped: batch norm dislikes tiny batches

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the Batches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        order = self._order(rng)
        for b in range(len(self)):
            rows = order[b * self.batch_size : (b + 1) * self.batch_size]
            places = rng.random(len(rows))  # of the whole batch: it is the same for any number of processes
            mine = rows[self.part]
            n_samples = self.n_samples[mine]
            starts = (places[self.part] * (np.maximum(n_samples - self.seq_length, 0) + 1)).astype(np.int64)
            yield self._batch(rows, mine, starts, np.minimum(n_samples, self.seq_length))

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """Rows of the batches, one after another."""
        if self.strata is None:
            return rng.permutation(self.indices)
        return np.stack([rng.permutation(stratum)[: len(self)] for stratum in self.strata], axis=1).ravel()

    def _batch(self, rows: np.ndarray, mine: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Batch:
        """Cut this process's part of a batch.

        Args:
            rows: (B,) of the whole batch.
            mine: (b,) of this process's recordings.
            starts: (b,) first samples of their windows.
            lengths: (b,) samples of them.
        """
        data = self.dataset
        x = np.zeros((len(mine), self.n_leads, self.seq_length), np.int16)
        for window, row, start, n in zip(x, mine.tolist(), starts.tolist(), lengths.tolist()):
            window[:, :n] = data.cache.signal(row)[:, start : start + n]
        return Batch(
            torch.from_numpy(to_millivolts(x)),
            torch.from_numpy(data.targets[mine]),
            torch.from_numpy(data.mask[mine]),
            torch.from_numpy(lengths),
            torch.from_numpy(data.covariates[mine]),
            torch.from_numpy(self.subset_covariates[mine]),
            starts,
            rows,
        )


class ResidentBatches(TrainBatches):
    """The same batches, cut on the device, where the signals lie that this process reads: no sample passes through
    the processor while training. 43,101 recordings of 10 s take 1 GB at 100 Hz.
    """

    def __init__(self, *args, device: str | torch.device, **kwargs):
        super().__init__(*args, **kwargs)
        data = self.dataset

        def put(array):
            return torch.from_numpy(np.array(array)).to(device)

        ends = np.cumsum(self.n_leads * self.n_samples[self.own])
        offsets = np.zeros(len(data), np.int64)
        offsets[self.own] = ends - self.n_leads * self.n_samples[self.own]
        self.signals = torch.empty(int(ends[-1]), dtype=torch.int16, device=device)
        for rows in np.array_split(self.own, -(-len(self.own) // BLOCK)):
            block = np.concatenate([data.cache.signal(row).ravel() for row in rows.tolist()])
            self.signals[offsets[rows[0]] : offsets[rows[0]] + len(block)] = torch.from_numpy(block).to(device)
        self.offsets = put(offsets)
        self.all_n_samples = put(self.n_samples)
        columns = (data.targets, data.mask, data.covariates, self.subset_covariates)
        self.columns = [put(column) for column in columns]
        self.lead = torch.arange(self.n_leads, device=device)[:, None]  # (n_leads, 1)
        self.time = torch.arange(self.seq_length, device=device)  # (L,)

    def _batch(self, rows, mine, starts, lengths):
        mine, first, lengths = (
            torch.from_numpy(a).to(self.time.device, non_blocking=True) for a in (mine, starts, lengths)
        )
        length = self.all_n_samples[mine, None, None]  # (b, 1, 1)
        inside = self.time < lengths[:, None, None]  # (b, 1, L)
        lead_start = self.offsets[mine, None, None] + self.lead * length  # (b, n_leads, 1)
        place = lead_start + first[:, None, None] + self.time.where(inside, 0)  # (b, n_leads, L)
        x = self.signals[place] * inside  # (b, n_leads, L) int16
        y, mask, covariates, of_subsets = (column[mine] for column in self.columns)
        return Batch(x.float() * 1e-3, y, mask, lengths, covariates, of_subsets, starts, rows)


class PrefetchBatches(TrainBatches):
    """The same batches, cut by a thread some steps ahead and put into pinned memory, from which a GPU copies while it
    computes.
    """

    def epoch(self, epoch: int) -> Iterator[Batch]:
        batches = super().epoch(epoch)
        with ThreadPoolExecutor(1) as thread:
            waiting = deque(thread.submit(self._next, batches) for _ in range(AHEAD))
            while (batch := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(self._next, batches))
                yield batch

    def _next(self, batches: Iterator[Batch]) -> Batch | None:
        batch = next(batches, None)
        return None if batch is None else Batch(**{name: self._pin(value) for name, value in vars(batch).items()})

    @staticmethod
    def _pin(value: torch.Tensor | np.ndarray) -> torch.Tensor | np.ndarray:
        return value.pin_memory() if isinstance(value, torch.Tensor) else value


def train_batches(
    dataset: Dataset,
    indices: np.ndarray,
    seq_length: int,
    batch_size: int,
    seed: int,
    rank: int = 0,
    size: int = 1,
    device: str | torch.device = "cpu",
) -> TrainBatches:
    """TrainBatches for a device: on a GPU this process's signals move there if they fit into half of the memory that
    is free, or else batches are prepared ahead. Arguments as those of TrainBatches, and the device.
    """
    args = dataset, indices, seq_length, batch_size, seed, rank, size
    batches = TrainBatches(*args)
    if torch.device(device).type != "cuda":
        return batches
    n_bytes = 2 * batches.n_leads * batches.n_samples[batches.own].sum()
    if n_bytes > torch.cuda.mem_get_info(device)[0] / 2:
        return PrefetchBatches(*args)
    return ResidentBatches(*args, device=device)
