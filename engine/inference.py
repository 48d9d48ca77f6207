"""From preprocessed recordings to probabilities and decisions: the one way that validation, driver and API share.

From Python, for recordings in files (of arrays, see `Predictor.classify` and docs/python.md):

    from data.records import read_record
    from engine.inference import load_predictor

    predictor = load_predictor("mdl")                           # or a run folder, or a folder of them
    adc, header = read_record("data/sample/georgia/E00001")     # (n_leads, n) ADC values
    signal, covariates = predictor.read(adc, header)            # (n_leads, T) int16 microvolts, (N_COVARIATES,)
    y_score = predictor.predict([signal], covariates[None])     # (1, C) probabilities
    y_pred = predictor.decide(y_score)                          # (1, C) bool
    dict(zip(predictor.class_set.abbreviations, y_score[0]))
"""

import copy
import os
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.formats.arrays import array_header
from data.headers import Header, RecordError
from data.inputs import model_input
from data.labels import ClassSet
from data.leads import LEADS
from data.measures import recording_numbers
from data.needed_leads import needs, needs_text
from data.preprocess import MISSING_LEADS, SignalConfig
from engine.decision import decide
from engine.run_folder import RunError
from engine.trained_run import load_run
from engine.windows import Windows, embed, predict, single_threads
from models import ECGModel
from models.folding import fold_norms


class Predictor:
    """A trained run, or an ensemble of runs: recordings in, probabilities and decisions out. See the module's example.

    Attributes:
        signal_config: rate, leads and range of the signals that the models see (`data.inputs.read_input` takes it).
        class_set: codes, abbreviations and names of the C columns; `class_set.column("AF")` finds one.
        decision: the rule that makes diagnoses of probabilities (`engine.decision`).
        thresholds: (C,) mean over the models, for a rule that uses them.
        models, windows, device: the members, how each reads recordings (`engine.windows.Windows`), where they are.
    """

    def __init__(
        self,
        models: Sequence[torch.nn.Module],
        windows: Sequence[Windows],
        signal_config: SignalConfig,
        class_set: ClassSet,
        decision: dict[str, Any],
        device: str = "cpu",
    ):
        """Args: as the attributes. The models are folded for inference: they cannot be trained further."""
        self.models = [fold_norms(model.to(device)) for model in models]
        self.windows = windows
        self.signal_config = signal_config
        self.class_set = class_set
        self.decision = decision
        self.thresholds = torch.stack([model.head.thresholds.cpu() for model in models]).mean(0).numpy()  # (C,)
        self.device = device

    @property
    def without_leads(self) -> str:
        """How the model copes with recordings that lack some of its leads, in words."""
        if all(model.lead_flags for model in self.models):
            return "the network is told which leads are missing"
        return "zeros stand for them (to train for that: --lead_subsets or --leads)"

    @property
    def has_forest(self) -> bool:
        """Whether any member has trees beside its network."""
        return any(model.forest is not None for model in self.models)

    def without_forests(self) -> "Predictor":
        """The same networks, whose forests stay behind: what can be asked of signals and covariates alone."""
        alone = copy.copy(self)
        alone.models = [ECGModel(model.encoder, model.head, model.lead_flags).eval() for model in self.models]
        return alone

    def needs(self, signal: np.ndarray | None = None) -> dict[int, str]:
        """{column: leads in words} of the classes that cannot be established on a recording (n_leads, T) for lack of
        leads, see `data.needed_leads`; of None, those on no recording, for the model does not read the leads.
        """
        leads = self.signal_config.leads
        if signal is not None:
            leads = [name for name, is_there in zip(leads, signal.any(axis=1)) if is_there]
        return needs(self.class_set.members, leads)

    def needs_warnings(self, signal: np.ndarray) -> list[str]:
        """A text on the classes that cannot be established on a recording (n_leads, T) because it lacks leads that the
        model reads, or none. Decisions stay: what else shows, and how often a class occurs, is worth more than silence
        (docs/results.md).
        """
        if signal.any(axis=1).all():
            return []
        always = self.needs()
        found = {column: text for column, text in self.needs(signal).items() if column not in always}
        if not found:
            return []
        text = needs_text(found, self.class_set)
        return [f"cannot be established for lack of leads, answered by other signs and by how often they occur: {text}"]

    def read(self, adc: np.ndarray, header: Header) -> tuple[np.ndarray, np.ndarray]:
        """What the models see of a recording: (signal (n_leads, T) int16 microvolts, covariates (N_COVARIATES,)
        float32), with the leads of `signal_config` whichever others it has.

        What is suspicious (a scale off by 1000, swapped leads, invalid samples) is a UserWarning each.

        Args:
            adc: (leads of the header, n) ADC values as stored, any number type.
            header: of the recording, from `data.records.parse_header` or `read_record`.

        Raises:
            data.records.RecordError: the recording cannot be used.
        """
        # The threads that PyTorch starts for an operation keep their cores for some milliseconds after it: the models
        # need them.
        reading = single_threads(torch.get_num_threads()).submit(model_input, adc, header, self.signal_config)
        signal, covariates, texts = reading.result()
        for text in texts:
            # Where leads are missing they are so in all recordings: named once, not for each.
            name = "" if text.startswith(MISSING_LEADS) else f"{header.record_name}: "
            warnings.warn(name + text, stacklevel=2)
        return signal, covariates

    def classify(
        self,
        signal: np.ndarray,
        sample_freq: float,
        *,
        unit: str,
        leads: Sequence[str] | None = None,
        age: float | None = None,
        sex: str | None = None,
    ) -> "pandas.DataFrame":  # noqa: F821  (imported below)
        """What the model says of a recording that stands in an array. The same as of a file with the same samples:
        leads are placed by name, missing ones computed or zero, other rates resampled. What is suspicious (a scale off
        by 1000, swapped leads, invalid samples), or cannot be established for lack of leads, is a UserWarning each.

        Args:
            signal: (rows, n), integers or floats; NaN, or the mask of a masked array, marks samples that are missing.
            sample_freq: Hz.
            unit: of the samples, V, mV, uV or nV. Never guessed.
            leads: names of the rows. None says that these are I, II, III, aVR, aVL, aVF, V1 ... V6, in this order.
            age: years, or None if unknown.
            sex: Male or Female, or None if unknown.

        Returns:
            a row for each class, in the order of `class_set`: code (SNOMED CT), abbreviation, name, probability (0 to
            1), called (bool: whether the decision rule makes it a diagnosis).

        Raises:
            data.records.RecordError: a ValueError: the array or what is said about it cannot be used.
        """
        import pandas as pd

        if np.ma.isMaskedArray(signal) and signal.mask.any() and signal.dtype.kind in "iuf":
            signal = signal.astype(np.float64).filled(np.nan)  # asarray would give what lies under the mask
        adc = np.asarray(signal)
        if adc.ndim != 2 or len(adc) != len(LEADS if leads is None else leads):
            rows = f"{len(leads or ())}, the number of leads"
            if leads is None:
                rows = f"12, for {', '.join(LEADS)}; name others by leads=[...]"
            raise RecordError(f"array: has the shape {adc.shape}, not (rows, samples) with rows = {rows}")
        header = array_header(adc.shape[1], sample_freq, LEADS if leads is None else leads, unit, age, sex)
        x, covariates, texts = model_input(adc, header, self.signal_config)
        for text in texts + self.needs_warnings(x):
            warnings.warn(text, stacklevel=2)
        y_score = self.predict([x], covariates[None])  # (1, C)
        columns = {
            "code": self.class_set.codes,
            "abbreviation": self.class_set.abbreviations,
            "name": self.class_set.names,
            "probability": y_score[0],
            "called": self.decide(y_score)[0],
        }
        return pd.DataFrame(columns)

    def predict(
        self, signals: Sequence[np.ndarray], covariates: np.ndarray, numbers: np.ndarray | None = None
    ) -> np.ndarray:
        """Probabilities (R, C) float32 of recordings, the mean over members (network and forest).

        Args:
            signals: R arrays (n_leads, T_i) int16 microvolts, of any lengths.
            covariates: (R, N_COVARIATES), as `read` gives them.
            numbers: (R, N_NUMBERS), as `measure` gives them, which is asked here if it is None. Only a forest needs it.
        """
        if numbers is not None or not self.has_forest:
            return predict(self.models, self.windows, signals, covariates, self.device, lambda: numbers)
        # One thread measures while others compute: it keeps the interpreter, which they hardly need.
        measuring = single_threads(1).submit(self.measure, signals, covariates)
        return predict(self.models, self.windows, signals, covariates, self.device, measuring.result)

    def measure(self, signals: Sequence[np.ndarray], covariates: np.ndarray) -> np.ndarray:
        """(R, N_NUMBERS) float32, what a forest wants to know of recordings. Arguments as of `predict`."""
        return recording_numbers(signals, self.signal_config.sample_freq, covariates)

    def embed(self, signals: Sequence[np.ndarray]) -> np.ndarray:
        """Features (R, D) float32 of R signals (n_leads, T_i) int16 microvolts: mean and maximum over time of what the
        encoder of each member sees, averaged over windows. `feature_members` says whose each of the D is.
        """
        return embed(self.models, self.windows, signals, self.device)

    @property
    def feature_members(self) -> np.ndarray:
        """(D,) the index of the member that each feature of `embed` belongs to."""
        return np.repeat(np.arange(len(self.models)), [2 * model.encoder.out_channels for model in self.models])

    def decide(self, y_score: np.ndarray) -> np.ndarray:
        """Decisions (R, C) bool for probabilities (R, C)."""
        return decide(y_score, self.thresholds, self.decision)


def load_predictor(folder: str | Path, device: str = "cpu") -> Predictor:
    """Predictor of a run folder, or of all the run folders in it (an ensemble). Of a run folder, what lies in folders
    inside it, as mdl/ensemble/ in mdl/, has no part in the answers.

    Raises:
        engine.run_folder.RunError: there is no such folder or no run in it, or a member does not load, or it reads its
            input or names its outputs differently than the others.
    """
    runs = _run_folders(folder)
    models = []
    windows = []
    contracts = []
    for run in runs:
        run_models, run_windows, signal, class_set, config = load_run(run)
        models += run_models
        windows += run_windows
        contracts.append((signal, class_set, config["decision"]))
        if contracts[-1] != contracts[0]:
            raise RunError(
                f"{run} has another signal configuration, other classes or another decision rule than {runs[0]}: "
                "they cannot be averaged"
            )
    return Predictor(models, windows, *contracts[0], device)


def fingerprint(folder: str | Path) -> str:
    """Eight hexadecimal digits that another model than the one `load_predictor` gives hardly shares: of its files."""
    crc = 0
    for run in _run_folders(folder):
        for name in ("config.json", "model.pth"):
            crc = zlib.crc32((run / name).read_bytes(), crc)
    return f"{crc:08x}"


def _run_folders(folder):
    folder = Path(os.path.expanduser(folder))
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such model folder")
    if (folder / "config.json").exists():
        return [folder]
    runs = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not runs:
        raise RunError(f"{folder} holds neither a config.json nor run folders")
    return runs
