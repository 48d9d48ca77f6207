"""One recording and what a model says of it, by name: for people (text, picture) and for programs (plain values)."""

import math
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from data.groups import NAMES, clinical_order, group_of
from data.headers import Header, printable
from data.inputs import read_input
from data.labels import ClassSet
from data.leads import LEADS, lead_name
from data.preprocess import SignalConfig, preprocess, to_millivolts
from data.records import Record, read_record
from data.rhythm import BAND, MIN_INTERVALS, r_peaks
from engine.explain import attribute, important, lead_shares, stretches
from engine.inference import Predictor

LIMB = LEADS[:6]
EXPLAINED_WHOLE = 60.0  # s; of longer recordings only the page that is drawn is explained, for it takes seconds a page
PAGE = 10.0  # s
DRAWN_FINE = 2**20  # samples a lead up to which a recording is drawn at its own rate, beyond it at the model's
TITLE_LENGTH = 150  # characters that fit over the paper


@dataclass
class Answer:
    """A recording, read as the model reads it, and the model's answers."""

    record: Record
    header: Header
    signal: np.ndarray  # (n_leads, T) int16 microvolts at sample_freq
    sample_freq: float  # Hz, of the model
    covariates: np.ndarray  # (N_COVARIATES,)
    warnings: list  # texts on quality
    y_score: np.ndarray  # (C,) probabilities
    y_pred: np.ndarray  # (C,) bool, called
    leads: tuple[str, ...] = LEADS  # of the model
    needs: dict[int, str] = field(default_factory=dict)  # of classes that cannot be established, see Predictor.needs

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return self.header.n_samples / self.header.sample_freq

    @property
    def heart_rate(self) -> float | None:
        """Beats per minute, from the median distance of the R peaks; None where too few are found."""
        if self.sample_freq <= 2 * BAND[1] or self.signal.shape[1] < self.sample_freq:
            return None
        intervals = np.diff(r_peaks(to_millivolts(self.signal), self.sample_freq)) / self.sample_freq  # s
        return 60 / median(intervals.tolist()) if len(intervals) >= MIN_INTERVALS else None

    @property
    def missing(self) -> list[str]:
        """Leads of the model that were neither recorded nor follow from those that were."""
        return [name for name in self.leads if name not in self.recorded]

    @property
    def recorded(self) -> set[str]:
        """Leads that were recorded or follow from those that were, whether the model reads them or not."""
        recorded = {lead_name(name) for name in self.header.lead_names}
        return recorded | set(LIMB if len(recorded & set(LIMB)) >= 2 else ())


def answer_of(predictor: Predictor, record: Record) -> Answer:
    """Read a recording and ask the model, by the very functions that driver.py uses. Raises RecordError."""
    signal, covariates, header, warnings = read_input(record, predictor.signal_config)
    warnings = warnings + predictor.needs_warnings(signal)
    y_score = predictor.predict([signal], covariates[None])  # (1, C)
    y_pred = predictor.decide(y_score)
    return Answer(
        record=record,
        header=header,
        signal=signal,
        sample_freq=predictor.signal_config.sample_freq,
        covariates=covariates,
        warnings=warnings,
        y_score=y_score[0],
        y_pred=y_pred[0],
        leads=predictor.signal_config.leads,
        needs=predictor.needs(signal),
    )


def explain(predictor: Predictor, answer: Answer, start: float = 0.0) -> dict:
    """{column: {"leads": {name: share}, "stretches": [(name, from second, to second)]}} for every called class.

    Of a recording beyond EXPLAINED_WHOLE seconds only the page from `start` on is explained, as if it were all.
    """
    first = 0
    signal = answer.signal
    if signal.shape[1] > EXPLAINED_WHOLE * answer.sample_freq:
        first = round(start * answer.sample_freq)
        signal = signal[:, first : first + round(PAGE * answer.sample_freq)]
    found = {}
    for column in np.flatnonzero(answer.y_pred).tolist():
        attribution = attribute(predictor, signal, answer.covariates, column)  # (n_leads, T)
        mask = important(attribution, answer.sample_freq)
        shares = lead_shares(attribution, mask)
        order = [lead for lead in np.argsort(-shares, kind="stable") if shares[lead] > 0]
        found[column] = {
            "leads": {answer.leads[lead]: round(float(shares[lead]), 3) for lead in order},
            "stretches": [
                (answer.leads[lead], *(round((first + sample) / answer.sample_freq, 3) for sample in ends))
                for lead, *ends in stretches(mask)
            ],
        }
    return found


def diagnoses(answer: Answer, class_set: ClassSet, explanations: dict | None = None) -> list[dict]:
    """A row for each class, by group in the order in which an ECG is read, the called and probable ones first.

    Keys: code (name of the column), snomed (SNOMED CT code, or None), abbreviation, name, group, probability, called,
    needs (leads in words, where those that are there cannot establish the diagnosis, else None); and of called
    classes, if there are `explanations`, explanation.
    """
    rows = []
    for column in clinical_order(class_set.members):
        row = {
            "code": class_set.codes[column],
            "snomed": next((code for code in class_set.members[column] if code.isdigit()), None),
            "abbreviation": class_set.abbreviations[column] or class_set.codes[column],
            "name": class_set.names[column] or class_set.codes[column],
            "group": group_of(class_set.members[column]),
            "probability": float(answer.y_score[column]),
            "called": bool(answer.y_pred[column]),
            "needs": answer.needs.get(column),
        }
        if explanations and column in explanations:
            row["explanation"] = explanations[column]
        rows.append(row)
    return sorted(rows, key=lambda row: (NAMES.index(row["group"]), not row["called"], -row["probability"]))


def as_values(answer: Answer, class_set: ClassSet, explanations: dict | None = None) -> dict:
    """Everything about a recording in plain values, fit for JSON; predict.py documents the keys."""
    header = answer.header
    return {
        "record": answer.record.record_id,
        "path": answer.record.path,
        "leads": list(header.lead_names),
        "missing": answer.missing,
        "units": sorted({lead.unit for lead in header.leads}),
        "sample_freq": header.sample_freq,
        "seconds": answer.seconds,
        "age": None if math.isnan(header.age) else header.age,
        "sex": header.sex,
        "heart_rate": answer.heart_rate,
        "labels": list(header.dx),
        "warnings": answer.warnings,
        "diagnoses": diagnoses(answer, class_set, explanations),
    }


def person(answer: Answer) -> str:
    """'89 years, female, 88/min', with what is known."""
    age = "age unknown" if math.isnan(answer.header.age) else f"{answer.header.age:g} years"
    rate = answer.heart_rate
    beats = "rate unknown" if rate is None else f"{rate:.0f}/min"
    return f"{age}, {(answer.header.sex or 'sex unknown').lower()}, {beats}"


def called_text(answer: Answer, class_set: ClassSet) -> str:
    """The called diagnoses with their probabilities, in clinical order; by abbreviation where names are too long."""
    called = [row for row in diagnoses(answer, class_set) if row["called"]]
    if not called:
        return "no diagnosis called"
    for key in ("name", "abbreviation"):
        text = ", ".join(f"{row[key].split(' / ')[0]} {row['probability']:.2f}" for row in called)
        if len(text) <= TITLE_LENGTH:
            return text
    return text[: TITLE_LENGTH - 4] + " ..."


def fine_signal(answer: Answer) -> tuple[np.ndarray, float, set[str]]:
    """(signal (12, T) float32 mV, Hz, leads in it) for pictures: all leads at their own rate, or if the recording is
    very long what the model sees.
    """
    header = answer.header
    if header.n_samples > DRAWN_FINE or header.sample_freq <= answer.sample_freq:
        return coarse_signal(answer)
    adc, header = read_record(answer.record)
    return preprocess(adc, header, SignalConfig(header.sample_freq)), header.sample_freq, answer.recorded


def coarse_signal(answer: Answer) -> tuple[np.ndarray, float, set[str]]:
    """(signal (12, T) float32 mV, Hz, leads in it) as the model sees it; leads that it does not read are zero."""
    from engine.plots import on_page

    signal = on_page(to_millivolts(answer.signal), answer.leads, 0)
    return signal, answer.sample_freq, answer.recorded & set(answer.leads)


def draw(answer: Answer, subtitle: str, start: float = 0.0, shading: list | tuple = (), fine: bool = True):
    """The recording on ECG paper, a matplotlib Figure; see `engine.plots.plot_ecg` for shading and start."""
    from engine.plots import plot_ecg  # matplotlib takes half a second to import: only those who draw wait for it

    signal, freq, drawn = fine_signal(answer) if fine else coarse_signal(answer)
    title = f"{printable(answer.record.record_id)}   {person(answer)}"
    missing = [name for name in LEADS if name not in drawn]
    return plot_ecg(signal, freq, title=title, subtitle=subtitle, start=start, missing=missing, shading=shading)
