"""Pre-training of encoders that look both ways: predict what is hidden from them.

Of a window, leads and a stretch are hidden and predicted sample by sample. From the pooled features of the same window
follow, by one linear layer, what the rest of the recording looks like: its mean beat, how its beats vary, its rhythm.
The first asks for what a lead shows of another one and what leads up to a moment and follows it; the second for what
tells one heart from another, which is what a classifier needs.

Errors of samples are counted in each lead's typical spread, its mean standard deviation in the training recordings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.beats import N_COMPONENTS, N_VARIED, Unseen, UnseenBeats
from data.covariates import N_DEMOGRAPHICS
from data.dataset import Batch
from data.leads import INDEPENDENT
from data.preprocess import to_millivolts
from data.rhythm import N_RHYTHM
from engine.augment import add_noise, add_wander, change_band, uniform
from engine.baselines import skill
from engine.hidden_baselines import interpolated, regressed, second_moments
from engine.hiding import Visible, hide
from engine.objective import Objective
from engine.windows import full_float32, half_overlapping, window_batches
from models.folding import fold_norms
from models.hidden_samples import HiddenSamplesModel

BAND = 0.5  # share of windows seen through another recorder's filters, as in classification
WANDER = 0.3  # with a wandering baseline, which need not be predicted
NOISE = 0.3  # with white noise, likewise
BETA = 0.5  # smooth L1: errors beyond half a spread count linearly
SMALLEST_SPREAD = 0.01  # mV, for leads that are flat in most recordings
RHYTHM_UNIT = 0.5  # the numbers of data.rhythm reach from -0.5 to 0.5
SUMMARY = (N_COMPONENTS, N_VARIED, N_RHYTHM)
WEIGHTS = (1.0, 1.0, 0.3, 0.3)  # of hidden samples, mean beat, variation, rhythm
KINDS = ("stretches", "leads")


@dataclass(frozen=True)
class Targets:
    """What the summary of b windows is to say, and of which windows that is known."""

    values: tuple[Tensor, Tensor, Tensor]  # mean beat (b, 64), variation (b, 16), rhythm (b, 19)
    known: Tensor  # (b, 3) bool


class HiddenSamples(Objective):
    """Of the flags it reads seq_length, sample_freq and gain; the encoder is any that looks both ways."""

    shown = {
        "train_loss": "train",
        "valid_loss": "valid",
        "skill_interpolation": "skill against interpolation",
        "skill_linear": "against linear",
        "skill_beat": "of the unseen beats",
    }

    def _prepare(self, encoder: nn.Module) -> None:
        train = self.recordings.train
        self.valid = self.recordings.valid
        self.rhythm = self.recordings.cache.covariates[:, N_DEMOGRAPHICS:]  # (R, N_RHYTHM)
        signals = dict(zip([*train.tolist(), *self.valid.tolist()], [*self.train_signals, *self.valid_signals]))
        self.beats = UnseenBeats(signals, train, self.args.sample_freq, self.args.seq_length)
        self.of_mean_beat = torch.from_numpy(self.beats.components.of_mean).to(self.group.device)
        self.windows = half_overlapping(self.args.seq_length)
        self.valid_unseen = self._measure_unseen()
        scale = mean_deviation(self.train_signals)  # 8 numbers, mV
        self.head_config = {"scale": scale, "n_summary": sum(SUMMARY)}
        self.model = HiddenSamplesModel(encoder, scale, sum(SUMMARY)).to(self.group.device)
        self.scale = torch.tensor(scale, device=self.group.device)[:, None]  # (8, 1)
        self.baselines = self._measure_baselines(second_moments(self.train_signals))

    # ---- training

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Weighted sum of the errors of hidden samples and of the summary."""
        x, lengths = self._whole_batch(batch)
        recorded = has_signal(x)
        gain = torch.exp(uniform((len(x), 1, 1), -self.args.gain, self.args.gain, x, self.generator))
        x = change_band(x * gain, BAND, self.generator)
        seen = add_noise(add_wander(x, WANDER, self.generator), NOISE, self.generator)
        visible = hide(seen, lengths, self.args.sample_freq, self.generator)
        own = self.group.local_rows(len(x))
        rows = batch.index[own]
        targets = self._targets(rows, self.beats(rows, batch.starts), gain[own, 0])
        hidden = visible.hidden & recorded  # (B, 8, L)

        samples, summary = model(visible.x[own], lengths[own])
        errors = self._sample_errors(samples, x[own]) * hidden[own]
        sums = torch.cat([errors.sum()[None], *summary_sums(summary, targets)])  # (4,)
        n_known = self.group.all_reduce(targets.known.sum(0))  # (3,)
        n = torch.cat([hidden.sum()[None], n_known])  # (4,)
        return sum(weight * part for weight, part in zip(WEIGHTS, sums / n.clamp(min=1)))

    def _targets(self, rows: np.ndarray, unseen: Unseen, gain: Tensor | float = 1.0) -> Targets:
        """Of windows of the recordings `rows` (b,), amplified by gain (b, 1), that do not show what `unseen` says."""
        rhythm = self.rhythm[rows]
        known = np.stack([unseen.has_beat, unseen.has_variation, rhythm.any(1)], 1)  # (b, 3)
        arrays = (unseen.beat, unseen.variation, rhythm, known)
        beat, variation, rhythm, known = (
            torch.from_numpy(array).to(self.group.device, non_blocking=True) for array in arrays
        )
        beat = (beat + self.of_mean_beat) * gain - self.of_mean_beat
        return Targets((beat, variation, rhythm), known)

    def _sample_errors(self, samples: Tensor, x: Tensor) -> Tensor:
        """Predicted samples (b, 8, L) mV against windows x (b, 12, L) mV -> (b, 8, L)."""
        target = x[:, list(INDEPENDENT)] / self.scale
        return F.smooth_l1_loss(samples / self.scale, target, reduction="none", beta=BETA)

    # ---- validation

    @torch.inference_mode()
    def scores(self, model: nn.Module) -> dict[str, float]:
        """Columns of pretrain_history.csv on all windows of the validation recordings, what is hidden of them being
        the same in every epoch.
        """
        model = fold_norms(deepcopy(model))
        sample_sums = torch.zeros(len(KINDS), dtype=torch.float64)
        sums = torch.zeros(len(SUMMARY), dtype=torch.float64)
        for x, lengths, visible, targets in self._valid_windows():
            with full_float32(self.group.device):
                samples, summary = model(visible.x, lengths)
            sample_sums += self._sums_by_kind(samples, x, visible).cpu()
            sums += torch.cat(summary_sums(summary, targets)).cpu()
        return history_row(sample_sums, sums, self.baselines)

    def _measure_unseen(self) -> Unseen:
        """What the windows of the validation recordings do not show. Of all that validation needs, this alone is slow
        to find and small to keep: at the default sizes it takes less memory than the beats that it is found from.
        """
        places = [self.windows.starts(signal.shape[1]) for signal in self.valid_signals]
        rows = np.repeat(self.valid, list(map(len, places)))
        starts = np.array([start for of_one in places for start in of_one], np.int64)
        unseen = self.beats(rows, starts)
        self.beats.forget(self.valid)
        return unseen

    def _measure_baselines(self, moments: Tensor) -> Baselines:
        """What model and baselines are asked on validation, and how well these answer."""
        moments = moments.to(self.group.device)
        n_samples = torch.zeros(len(KINDS), dtype=torch.float64)
        interpolation = torch.zeros_like(n_samples)
        linear = torch.zeros_like(n_samples)
        answers = [[] for _ in SUMMARY]
        for x, _, visible, targets in self._valid_windows():
            n_samples += by_kind(torch.ones_like(x[:, list(INDEPENDENT)]), x, visible).cpu()
            interpolation += self._sums_by_kind(interpolated(visible), x, visible).cpu()
            linear += self._sums_by_kind(regressed(visible, moments), x, visible).cpu()
            for found, values, known in zip(answers, targets.values, targets.known.T):
                found.append(values[known].cpu())
        n_known = torch.tensor([sum(map(len, found)) for found in answers], dtype=torch.float64)
        constant = torch.tensor([constant_error(found) for found in answers], dtype=torch.float64)
        constant[2] /= RHYTHM_UNIT**2
        return Baselines(n_samples, interpolation, linear, n_known, constant)

    def _sums_by_kind(self, samples: Tensor, x: Tensor, visible: Visible) -> Tensor:
        return by_kind(self._sample_errors(samples, x), x, visible)

    def _valid_windows(self) -> Iterator[tuple[Tensor, Tensor, Visible, Targets]]:
        """All windows of the validation recordings in batches: x (b, 12, L) mV, lengths (b,), what is left of them and
        what their summary is to say. Always the same is hidden, on whatever device.
        """
        generator = torch.Generator().manual_seed(0)
        done = 0
        for x, lengths, which in window_batches(self.valid_signals, self.windows):
            targets = self._targets(self.valid[which], self.valid_unseen[done : done + len(x)])
            done += len(x)
            x = torch.from_numpy(x)
            lengths = torch.from_numpy(lengths)
            visible = hide(x, lengths, self.args.sample_freq, generator)
            visible = Visible(**{name: part.to(self.group.device) for name, part in vars(visible).items()})
            yield x.to(self.group.device), lengths.to(self.group.device), visible, targets


@dataclass(frozen=True)
class Baselines:
    """How much is asked on validation, and the errors of answers that need no network."""

    n_samples: Tensor  # (2,) hidden samples in stretches and in leads
    interpolation: Tensor  # (2,) sum of errors over them
    linear: Tensor  # (2,) likewise
    n_known: Tensor  # (3,) windows of which beat, variation and rhythm are known
    constant: Tensor  # (3,) mean error of the best constant


def mean_deviation(signals: Iterable[np.ndarray]) -> list[float]:
    """Mean over recordings of each independent lead's standard deviation: arrays (12, T_i) int16 microvolts -> 8 floats
    in mV.
    """
    deviations = [to_millivolts(signal)[list(INDEPENDENT)].std(1) for signal in signals]
    return np.maximum(np.mean(deviations, axis=0), SMALLEST_SPREAD).tolist()


def has_signal(x: Tensor) -> Tensor:
    """Which independent leads of windows x (B, 12, L) were recorded at all: (B, 8, 1) bool. Nothing is learned from
    the others, which are zero.
    """
    return (x[:, list(INDEPENDENT)] != 0).any(2, keepdim=True)


def by_kind(values: Tensor, x: Tensor, visible: Visible) -> Tensor:
    """Sums of values (b, 8, L) over the hidden samples of windows x (b, 12, L) in stretches and in leads: (2,)
    float64.
    """
    values = (values * (visible.hidden & has_signal(x))).double()
    in_leads = (values * visible.moments[:, None]).sum()
    return torch.stack([values.sum() - in_leads, in_leads])


def summary_sums(summary: Tensor, targets: Targets) -> list[Tensor]:
    """Squared errors of summaries (b, 64 + 16 + 19), summed over the windows of which the target is known: one (1,) for
    mean beat, variation and rhythm each.
    """
    errors = [
        (answer - target).square().mean(1) for answer, target in zip(summary.split(SUMMARY, 1), targets.values)
    ]  # 3 times (b,)
    errors[2] = errors[2] / RHYTHM_UNIT**2
    return [(error * known).sum()[None] for error, known in zip(errors, targets.known.T)]


def constant_error(found: list[Tensor]) -> float:
    """Mean squared error of the best constant answer to targets, batches (n_i, K); NaN if there are none."""
    values = torch.cat(found) if found else torch.zeros(0, 1)
    return (values - values.mean(0)).square().mean().item()


def history_row(sample_sums: Tensor, sums: Tensor, baselines: Baselines) -> dict[str, float]:
    """Columns of pretrain_history.csv.

    Args:
        sample_sums: (2,) the model's errors of hidden samples, in stretches and in leads.
        sums: (3,) its errors of mean beat, variation and rhythm.
        baselines: the number of each, and errors to compare with.
    """
    hidden = sample_sums.sum() / baselines.n_samples.sum().clamp(min=1)
    parts = [hidden, *(sums / baselines.n_known.clamp(min=1))]
    asked = baselines.n_samples.sum() + baselines.n_known.sum() > 0
    total = sum(weight * part for weight, part in zip(WEIGHTS, parts))
    row = {"valid_loss": total if asked else torch.nan}
    for end, chosen in (("", slice(None)), *((f"_{kind}", slice(i, i + 1)) for i, kind in enumerate(KINDS))):
        n = baselines.n_samples[chosen].sum()  # nothing divided by nothing is NaN: not known
        row[f"hidden_loss{end}"] = sample_sums[chosen].sum() / n
        row[f"hidden_interpolation_loss{end}"] = baselines.interpolation[chosen].sum() / n
        row[f"hidden_linear_loss{end}"] = baselines.linear[chosen].sum() / n
        for baseline in ("interpolation", "linear"):
            row[f"skill_{baseline}{end}"] = skill(row[f"hidden_loss{end}"], row[f"hidden_{baseline}_loss{end}"])
    for name, loss, constant in zip(("beat", "variation", "rhythm"), sums / baselines.n_known, baselines.constant):
        row[f"{name}_loss"] = loss
        row[f"{name}_constant_loss"] = constant
        row[f"skill_{name}"] = skill(loss, constant)
    return {name: float(value) for name, value in row.items()}
