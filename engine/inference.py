"""From preprocessed recordings to probabilities and decisions: the one way that validation, driver and API share."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from data.covariates import recording_covariates
from data.preprocess import preprocess, to_microvolts, to_millivolts, window_starts
from engine.decision import decide
from engine.run_folder import RunError, load_run
from models.folding import fold_norms

BATCH = 64  # windows


def predict(models, seq_lengths, signals, covariates, device="cpu"):
    """Probabilities, the mean over each recording's windows and over the models.

    models: in evaluation mode, from `models.folding.fold_norms`; seq_lengths: samples in a window of each; signals: R
    arrays (12, T_i) int16 microvolts; covariates (R, N_COVARIATES) -> (R, C) float32. Always in float32: the same
    recording gets the same probabilities wherever it is asked for.
    """

    def answer(task):
        model, x, lengths, rows = task
        with torch.inference_mode():
            logits = model(
                torch.from_numpy(x).to(device),
                torch.from_numpy(lengths).to(device),
                torch.from_numpy(covariates[rows]).to(device),
            )  # (b, C)
            return torch.sigmoid(logits.float()).cpu().numpy()

    total = 0
    for seq_length in sorted(set(seq_lengths)):
        members = [model for model, length in zip(models, seq_lengths) if length == seq_length]
        tasks = ((model, *batch) for batch in window_batches(signals, seq_length) for model in members)
        sums, n_windows = np.zeros((len(signals), members[0].head.thresholds.numel())), np.zeros(len(signals))
        for (_, _, _, rows), scores in in_threads(answer, tasks, torch.get_num_threads() if device == "cpu" else 1):
            np.add.at(sums, rows, scores)
            np.add.at(n_windows, rows, 1)
        total = total + sums / (n_windows / len(members))[:, None]  # (R, C)
    return (total / len(models)).astype(np.float32)


def in_threads(function, items, n_threads):
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
def single_threads(n):
    """A pool of n threads in each of which PyTorch does not start further ones; kept, for its threads take time to
    start.
    """
    return ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,))


def window_batches(signals, seq_length):
    """Yield (x (b, 12, L) float32 mV, lengths (b,), row of each window) with b <= BATCH, all windows in order.

    As few windows as cover a recording (`data.preprocess.window_starts`): half-overlapping ones, nearly twice as many,
    were not more accurate. A shorter recording is zero-padded after its lengths samples. No more than one batch is in
    memory beside the signals, however long they are.
    """
    places = (
        (row, start) for row, signal in enumerate(signals) for start in window_starts(signal.shape[1], seq_length)
    )
    while batch := list(islice(places, BATCH)):
        x, lengths = np.zeros((len(batch), 12, seq_length), np.int16), np.empty(len(batch), np.int64)
        for i, (row, start) in enumerate(batch):
            window = signals[row][:, start : start + seq_length]  # (12, <= L)
            lengths[i] = window.shape[1]
            x[i, :, : lengths[i]] = window
        yield to_millivolts(x), lengths, [row for row, _ in batch]


class Predictor:
    """A trained run, or an ensemble of runs: recordings in, probabilities and decisions out.

    `signal_config` and `class_set` are the data contract stored with the model(s), `decision` the rule
    that makes diagnoses of probabilities, `frequency` (C,) how often each class
    occurred in training."""

    def __init__(self, models, seq_lengths, signal_config, class_set, decision, frequency, device="cpu"):
        self.models = [
            fold_norms(model.to(device)) for model in models
        ]  # for answers only: they cannot be trained further
        self.seq_lengths, self.signal_config, self.class_set, self.device = (
            seq_lengths,
            signal_config,
            class_set,
            device,
        )
        self.decision, self.frequency = decision, np.asarray(frequency, np.float64)
        self.thresholds = torch.stack([model.head.thresholds.cpu() for model in models]).mean(0).numpy()  # (C,)

    def read(self, adc, header):
        """What the models see of a recording: (signal (12, T) int16 microvolts, covariates (N_COVARIATES,)). Raises
        RecordError.
        """

        def work():
            signal = to_microvolts(preprocess(adc, header, self.signal_config))
            return signal, recording_covariates(signal, self.signal_config.sample_freq, header.age, header.sex)

        # The threads that PyTorch starts for an operation keep their cores for some milliseconds after it: the models
        # need them.
        return single_threads(torch.get_num_threads()).submit(work).result()

    def predict(self, signals, covariates):
        """R signals (12, T_i) int16 microvolts, covariates (R, N_COVARIATES) -> y_score (R, C) float32, the mean over
        members.
        """
        return predict(self.models, self.seq_lengths, signals, covariates, self.device)

    def decide(self, y_score):
        """y_score (R, C) -> y_pred (R, C) bool."""
        return decide(y_score, self.thresholds, self.decision)


def load_predictor(folder, device="cpu"):
    """Predictor of a run folder, or of all the run folders in it (an ensemble). A member that does not load, or that
    reads its input or names its outputs differently, is a RunError."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such model folder")
    runs = [folder]
    if not (folder / "config.json").exists():
        runs = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not runs:
            raise RunError(f"{folder} holds neither a config.json nor run folders")
    models, seq_lengths, contracts, frequencies = [], [], [], []
    for run in runs:
        run_models, run_lengths, signal, class_set, config = load_run(run)
        models, seq_lengths = models + run_models, seq_lengths + run_lengths
        frequencies.append(config["data"]["frequency"])
        contracts.append((signal, class_set, config["decision"]))
        if contracts[-1] != contracts[0]:
            raise RunError(
                f"{run} has another signal configuration, other classes or another decision rule than {runs[0]}: they cannot be averaged"
            )
    return Predictor(models, seq_lengths, *contracts[0], np.mean(frequencies, axis=0), device)
