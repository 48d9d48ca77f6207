"""How well does a trained run diagnose recordings of which only some leads are there?

    python -m benchmarks.few_leads RUN Training_WFDB                     the recordings that RUN validated on
    python -m benchmarks.few_leads RUN OTHER_HOSPITALS --all             every recording of a folder

Leads are taken out of header and signal, as if they had never been recorded, and the rest goes the way of every other
recording. Prints a table: AUROC is the mean over the scored classes with at least 5 positives among the recordings. The
last column is the Challenge metric if classes that the leads cannot establish (`data.needed_leads`) were never called.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.runs import CLASS_SET, Answers, scores
from data.headers import Header
from data.leads import LEADS, lead_name
from data.record_names import NameIndex
from data.records import Record, find_records, read_record
from engine.inference import Predictor, load_predictor

LEAD_SETS = (LEADS, ("I", "II", "V2"), ("I", "II"), ("I",))


def with_leads(adc: np.ndarray, header: Header, names: tuple[str, ...]) -> tuple[np.ndarray, Header]:
    """A recording as it would be if only some leads had been recorded.

    Args:
        adc: (leads of the header, n).
        header: of the whole recording.
        names: of the leads that stay, as in LEADS.
    """
    rows = [row for row, name in enumerate(header.lead_names) if lead_name(name) in names]
    leads = tuple(header.leads[row] for row in rows)
    return adc[rows], header._replace(n_leads=len(rows), leads=leads)


def answers_with(predictor: Predictor, records: list[Record], names: tuple[str, ...]) -> tuple[Answers, Answers]:
    """What a run answers on recordings with these leads only; and the same without the calls of classes that cannot be
    established with them.
    """
    signals, covariates, dx = [], [], []
    for record in tqdm(records, desc=" ".join(names), leave=False):
        adc, header = with_leads(*read_record(record), names)
        signal, known = predictor.read(adc, header)
        signals.append(signal)
        covariates.append(known)
        dx.append(header.dx)
    y_score = predictor.predict(signals, np.array(covariates))
    y_pred = predictor.decide(y_score)
    silent = y_pred.copy()
    for row, signal in zip(silent, signals):
        row[list(predictor.needs(signal))] = False
    y_true = CLASS_SET.encode_all(dx) > 0
    return Answers(y_true, y_score, y_pred), Answers(y_true, y_score, silent)


def validated(run: Path, records: list[Record]) -> list[Record]:
    """Those of the recordings that a run validated on."""
    index = NameIndex([record.name for record in records])
    names = (run / "valid_ids.txt").read_text(encoding="utf-8").splitlines()
    return [records[row] for name in names for row in index.rows(name)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a model for the classes cinc2020")
    parser.add_argument("input_folder", help="12-lead recordings with their diagnoses")
    parser.add_argument("--all", action="store_true", help="every recording, not only those that the run validated on")
    args = parser.parse_args(argv)
    predictor = load_predictor(args.run)
    if predictor.class_set != CLASS_SET:
        parser.error(f"{args.run} answers other classes than {CLASS_SET.name}")
    records = find_records(args.input_folder)
    if not args.all:
        records = validated(args.run, records)
    print(f"{len(records)} recordings\n")
    print("| leads | AUROC | Challenge metric | without classes that they cannot establish |\n|---|---|---|---|")
    for names in LEAD_SETS:
        found, silent = map(scores, answers_with(predictor, records, names))
        title = "all 12" if names == LEADS else ", ".join(names)
        print(f"| {title} | {found['auroc']:.3f} | {found['challenge']:.3f} | {silent['challenge']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
