"""Sections of a report on a trained classifier."""

import csv
import re
from pathlib import Path

import numpy as np

from data.groups import clinical_order
from data.labels import ClassSet
from data.page import Facts, Picture, Section, Table
from data.records import Record, RecordError, find_records
from engine import report_plots as plots
from engine.answers import answer_of, draw
from engine.inference import Predictor
from engine.metrics import expected_calibration_error, load_weights
from engine.plots import is_number
from engine.report_data import (
    Predictions,
    Scores,
    confusion,
    curves,
    losses,
    reliability,
    score,
    threshold_for,
)
from engine.run_folder import RunError, RunFolder

N_WORST = 10
N_COSTLY = 12
MIN_POSITIVES = 5  # of a class that is drawn as a curve
SENSITIVITIES = (0.8, 0.9, 0.95)
NAMES = {"auroc": "AUROC", "auprc": "AUPRC", "sensitivity": "sensitivity", "ppv": "PPV", "f": "F"}


def read_history(run: RunFolder) -> list[dict]:
    """Rows of history.csv, texts; none if it is not there. Raises RunError."""
    if not (run / "history.csv").exists():
        return []
    try:
        with open(run.regular("history.csv"), newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"{run / 'history.csv'} cannot be read: {error}") from error


def training_sections(
    run: RunFolder, config: dict, predictor: Predictor, p: Predictions, folders: list[str]
) -> list[Section]:
    """Everything about a classifier and its answers `p`; recordings to be drawn are looked for in `folders`."""
    class_set = predictor.class_set
    order = clinical_order(class_set.members)
    scores = score(p, class_set)
    return [
        settings_section(run, config, predictor),
        curves_section(read_history(run)),
        scores_section(p, scores),
        classes_section(scores, class_set, order),
        sources_section(p, class_set, order),
        ranking_section(p, scores, class_set, order),
        calibration_section(p),
        *confusion_sections(p, class_set, order),
        thresholds_section(p, predictor, order),
        worst_section(p, predictor, folders),
    ]


def settings_section(run: RunFolder, config: dict, predictor: Predictor) -> Section:
    """What was trained, in words."""
    members, data, signal = config["members"], config["data"], config["signal"]
    settings = config["training"].get("members", [config["training"]])[0]
    n_weights = sum(parameter.numel() for parameter in predictor.models[0].parameters())
    seconds = members[0]["seq_length"] / signal["sample_freq"]
    leads = "12 leads" if len(signal["leads"]) == 12 else f"leads {', '.join(signal['leads'])}"
    count = "one network" if len(members) == 1 else f"{len(members)} networks, whose probabilities are averaged; each"
    rule = config["decision"]
    decision = (
        f"the classes that promise the highest reward of the Challenge {rule['year']}"
        if rule["rule"] == "reward"
        else "probabilities above a threshold for each class"
    )
    size = _size_on_disk(run)
    facts = [
        ("Network", f"{count} {members[0]['model']['encoder']} with {n_weights:,} weights ({size})"),
        ("Reads", f"windows of {seconds:g} s of {leads} at {signal['sample_freq']:g} Hz, averaged"),
        ("Answers", f"{len(predictor.class_set)} classes of the set {predictor.class_set.name}"),
        ("Calls", decision),
        ("Data", _data(data)),
        ("Sources", ", ".join(source or "(one folder)" for source in data.get("sources", []))),
        ("Training", _settings(settings)),
        ("Software", ", ".join(f"{name} {value}" for name, value in config["versions"].items() if value)),
        ("Commit", config["git_commit"] or "unknown"),
    ]
    return Section("trained", "What was trained", [], [Facts(facts)])


def _data(data):
    text = f"{_number(data.get('n_train'))} recordings trained, {_number(data.get('n_valid'))} validated"
    return text + (", each by members that had not trained on it" if "out_of_fold" in data else "")


def _settings(settings):
    names = ("epochs", "batch_size", "lr", "weight_decay", "seed", "fold", "n_folds", "hold_out", "valid_fold")
    return ", ".join(f"{name} {settings[name]}" for name in names if settings.get(name) is not None)


def _size_on_disk(run):
    return f"{run.size('model.pth') / 1e6:.1f} MB"


def _number(value):
    return f"{value:,}" if isinstance(value, int) else "an unknown number of"


def curves_section(rows: list[dict]) -> Section:
    """Learning curves."""
    if not rows:
        return Section("curves", "Learning curves", ["There is no history.csv in the run folder."])
    members = {row.get("member", "") for row in rows}
    validated = any(is_number(row.get("valid_loss")) for row in rows)
    label = (
        "By epoch"
        + (", on the validation recordings" if validated else "; nothing was validated")
        + (f"; a line for each of {len(members)} members." if len(members) > 1 else ".")
    )
    return Section("curves", "Learning curves", [], [Picture(plots.learning_curves(rows), label, "wide")])


def with_interval(values) -> str:
    """'0.902 (0.893–0.932)', or a dash where the value is not defined."""
    value, low, high = (float(v) for v in values)
    if np.isnan(value):
        return "–"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} ({low:.3f}–{high:.3f})"


def scores_section(p: Predictions, scores: Scores) -> Section:
    """Averages over the classes."""
    rows = [[f"{NAMES[name]}, mean over classes", with_interval(values)] for name, values in scores.macro.items()]
    if scores.reward is not None:
        rows.append(["Challenge metric, labels as the scorer counts them", with_interval(scores.reward)])
        rows.append(["Challenge metric, further names of a finding count too", with_interval(scores.reward_aliases)])
    rows.append(["expected calibration error", f"{expected_calibration_error(p.y_true, p.y_score):.4f}"])
    text = (
        f"{scores.n_records:,} recordings: {p.where}. In brackets 95 % bootstrap intervals over recordings. A label "
        "counts for its class if the Challenge's scorer counts it or if it names the same finding in other words "
        "(ventricular ectopics for PVC)."
    )
    return Section("scores", "Scores", [text], [Table(["", "value"], rows)])


def label(class_set: ClassSet, column: int) -> str:
    """Name and abbreviation of a class."""
    name = class_set.names[column].split(" / ")[0]
    short = class_set.abbreviations[column]
    return f"{name} ({short})" if name and short else name or short or class_set.codes[column]


def short_label(class_set: ClassSet, column: int) -> str:
    """Abbreviation of a class, or its code."""
    return class_set.abbreviations[column] or class_set.codes[column]


def classes_section(scores: Scores, class_set: ClassSet, order: list[int]) -> Section:
    """Scores of every class with intervals."""
    rows = []
    for k in order:
        values = [with_interval([part[k] for part in scores.classes[name]]) for name in NAMES]
        rows.append([label(class_set, k), class_set.codes[k], f"{scores.positives[k]:,}", *values])
    columns = ["diagnosis", "code", "positives", *NAMES.values()]
    text = "Sensitivity, PPV (positive predictive value) and F are those of the stored decision."
    return Section("classes", "Scores by class", [text], [Table(columns, rows, n_text=2)])


def sources_section(p: Predictions, class_set: ClassSet, order: list[int]) -> Section:
    """The same by the folder that a recording comes from."""
    names = sorted(set(p.sources.tolist()))
    if len(names) == 1:
        return Section("sources", "Scores by source", [f"All recordings come from one source, {names[0]}."])
    by_source = {name: score(p, class_set, np.flatnonzero(p.sources == name)) for name in names}
    rows = []
    for name, scores in by_source.items():
        reward = "" if scores.reward is None else with_interval(scores.reward)
        rows.append([name, f"{scores.n_records:,}", reward, *(with_interval(scores.macro[score]) for score in NAMES)])
    overall = Table(["source", "recordings", "Challenge metric", *NAMES.values()], rows)
    cells = []
    for k in order:
        row = [label(class_set, k)]
        for scores in by_source.values():
            value, n = scores.classes["auroc"][0][k], scores.positives[k]
            row.append("–" if n == 0 else f"{n}: –" if np.isnan(value) else f"{n}: {value:.3f}")
        cells.append(row)
    by_class = Table(["positives: AUROC", *names], cells)
    text = "Means over the classes that occur in the source, so that sources of few recordings vary by chance."
    return Section("sources", "Scores by source", [text], [overall, by_class])


def ranking_section(p: Predictions, scores: Scores, class_set: ClassSet, order: list[int]) -> Section:
    """ROC and precision-recall curves as small multiples."""
    shown = [k for k in order if scores.positives[k] >= MIN_POSITIVES]
    found = [(short_label(class_set, k), scores.positives[k], curves(p.y_true[:, k], p.y_score[:, k])) for k in shown]
    panels = [(f"{name} ({n})", curve) for name, n, curve in found if curve]
    rare = [short_label(class_set, k) for k in order if k not in shown]
    texts = [f"Not drawn, for they have fewer than {MIN_POSITIVES} positives: {', '.join(rare)}."] if rare else []
    if not panels:
        return Section("ranking", "ROC and precision-recall curves", texts)
    roc = plots.small_multiples(panels, "roc", ("false positive rate", "sensitivity"))
    pr = plots.small_multiples(panels, "pr", ("sensitivity", "positive predictive value"))
    parts = [
        Picture(roc, "ROC curve of each class, number of positives in brackets.", "wide"),
        Picture(pr, "Precision-recall curve of each class.", "wide"),
    ]
    return Section("ranking", "ROC and precision-recall curves", texts, parts)


def calibration_section(p: Predictions) -> Section:
    """Are probabilities frequencies?"""
    promised, seen, n = reliability(p.y_true, p.y_score)
    error = expected_calibration_error(p.y_true, p.y_score)
    text = (
        f"Expected calibration error {error:.4f} (15 bins, all classes together). On the dashed line a probability of "
        "30 % is right in 30 of 100 cases; below it the model promises too much."
    )
    picture = Picture(plots.reliability_diagram(promised, seen, n), "All classes of all recordings together.")
    return Section("calibration", "Calibration", [text], [picture])


def confusion_sections(p: Predictions, class_set: ClassSet, order: list[int]) -> list[Section]:
    """The Challenge's confusion and what it costs; nothing for class sets without rewards."""
    year = class_set.year
    if year is None:
        return []
    counted = confusion(p)  # (C, C)
    share = counted / np.maximum(counted.sum(1, keepdims=True), 1e-12)
    names = [label(class_set, k) for k in order]
    short = [short_label(class_set, k) for k in order]
    picture = plots.confusion_matrix(share[np.ix_(order, order)], names, short)
    rewards = load_weights(year)[1]
    lost = counted * (1 - rewards)
    rows = []
    for place in np.argsort(-lost, axis=None)[:N_COSTLY]:
        row, column = np.unravel_index(place, lost.shape)
        if lost[row, column] > 0:
            numbers = [f"{counted[row, column]:.1f}", f"{rewards[row, column]:.2f}", f"{lost[row, column]:.1f}"]
            rows.append([label(class_set, row), label(class_set, column), *numbers])
    columns = ["label", "answer", "counted", "reward", "lost"]
    text = (
        f"As the Challenge {year} counts: each pair of a label and an answer of a recording counts one divided by the "
        "number of classes that are labelled or answered, and earns the pair's reward."
    )
    parts = [
        Picture(picture, "Per cent of each label's row that met each answer; below 1 % nothing is written.", "wide"),
        Table(columns, rows, "What costs most: counted times (1 - reward)", n_text=2),
    ]
    return [Section("confusion", "Reward-weighted confusion", [text], parts)]


def thresholds_section(p: Predictions, predictor: Predictor, order: list[int]) -> Section:
    """Stored thresholds and odds, and what thresholds for a wanted sensitivity would cost."""
    odds = predictor.decision.get("odds")
    rows = []
    for k in order:
        row = [label(predictor.class_set, k), f"{predictor.thresholds[k]:.3f}", f"{odds[k]:g}" if odds else ""]
        for wanted in SENSITIVITIES:
            found = threshold_for(p.y_true[:, k], p.y_score[:, k], wanted)
            row.append("–" if found is None else f"{found[0]:.3f} / {found[1]:.2f} / {found[2]:.2f}")
        rows.append(row)
    wanted = [f"sensitivity {100 * s:.0f} %" for s in SENSITIVITIES]
    texts = ["For a wanted sensitivity: the threshold, and with it specificity and positive predictive value."]
    if predictor.decision["rule"] == "reward":
        texts.append("Decisions of this run go by reward; the stored thresholds are for those who decide by threshold.")
    return Section("thresholds", "Thresholds", texts, [Table(["diagnosis", "stored", "odds", *wanted], rows)])


def find_drawn(names: list[str], folders: list[str]) -> dict[str, Record]:
    """{name: its Record} of the recordings that lie in one of the folders, the first that has it, as 'source/record_id'
    or by the id alone where the folder has it once.
    """
    found = {}
    for folder in folders:
        missing = [name for name in names if name not in found]
        if not missing or not Path(folder).is_dir():
            continue
        try:
            records = find_records(folder)
        except RecordError:
            continue
        by_name, by_id = {}, {}
        for record in records:
            by_name[record.name] = record
            by_id[record.record_id] = None if record.record_id in by_id else record
        found |= {name: by_name.get(name) or by_id.get(name.rpartition("/")[2]) for name in missing}
        found = {name: record for name, record in found.items() if record}
    return {name: found[name] for name in names if name in found}


def worst_section(p: Predictions, predictor: Predictor, folders: list[str]) -> Section:
    """The recordings that the model got most wrong, drawn where they can be found."""
    wrong = losses(p)
    worst = np.argsort(-wrong, kind="stable")[:N_WORST]
    records = find_drawn([p.names[i] for i in worst], folders)
    class_set, rows, pictures = predictor.class_set, [], []
    for place, i in enumerate(worst, 1):
        truth = ", ".join(label(class_set, k) for k in np.flatnonzero(p.y_true[i])) or "none of the classes"
        called = [f"{label(class_set, k)} {p.y_score[i, k]:.2f}" for k in np.flatnonzero(p.y_pred[i])]
        answer = ", ".join(called) or "nothing"
        rows.append([p.names[i], f"{wrong[i]:.2f}", truth, answer])
        record = records.get(p.names[i])
        if record:
            texts = [f"Labelled: {truth}.", f"Called: {answer}."]
            short = [
                ", ".join(short_label(class_set, k) for k in np.flatnonzero(of)) for of in (p.y_true[i], p.y_pred[i])
            ]
            subtitle = f"labelled {short[0] or 'none of the classes'}; called {short[1] or 'nothing'}"
            pictures.append(drawn(predictor, record, f"{place}. {p.names[i]}", subtitle, texts))
    notes = ["Largest cross-entropy over the classes. Labels are wrong too at times."]
    if not records:
        notes.append("The recordings were not found, so they are not drawn: add --input_folder DIR.")
    elif len(records) < len(worst):
        lost = ", ".join(p.names[i] for i in worst if p.names[i] not in records)
        notes.append(f"Not found and therefore not drawn: {lost}.")
    table = Table(["recording", "loss", "labelled", "called"], rows, n_text=4)
    return Section("worst", "Most wrong", notes, [table, *pictures])


def drawn(predictor: Predictor, record: Record, heading: str, subtitle: str, texts: list[str]) -> Picture:
    """A recording on ECG paper, or why it cannot be read."""
    try:
        figure = draw(answer_of(predictor, record), subtitle, fine=False)
    except RecordError as error:
        return Picture("", str(error), heading=heading, texts=texts)
    prefix = re.sub(r"\W", "-", heading)
    return Picture(plots.svg(figure, prefix, themed=False), "25 mm/s, 10 mm/mV", "paper", heading, texts)
