"""One recording in, diagnoses by name out; and a picture, if you like.

    python predict.py RECORD                       what the model in mdl/ says: a table of the probable diagnoses
    python predict.py RECORD --plot ecg.png        and the ECG on paper, 25 mm/s and 10 mm/mV (.png, .pdf or .svg)
    python predict.py RECORD --plot --explain      into ID.png, with what the network saw (three decisions)
    python predict.py A.hea B.hea --json           several recordings, for programs
    python predict.py RECORD --model RUN --all     every class of your own model, a run folder or a folder of them

RECORD is a header ID.hea, its signal file ID.mat or ID.dat, or the name without an ending; or an EDF, BDF or DICOM
file. With several recordings, --plot ecg.png writes ecg_ID.png for each, and ecg_FOLDER_ID.png for those that share an
ID, with a number (ecg_FOLDER_ID_2.png) where that is the name of another, too. A recording that cannot be read is named
with the reason and the others go on; the exit status is then 1. Probabilities are those of driver.py.

--json prints one object:

    {"format": "12ecg-prediction", "version": 1, "model": "mdl",
     "recordings": [{
        "record": "HR04001", "path": "Training_WFDB/HR04001",   id, and path without ending
        "leads": ["I", ...], "missing": [],                     as recorded; those that the model lacks for its answer
        "units": ["mV"], "sample_freq": 500.0, "seconds": 10.0, of the file
        "age": 89.0, "sex": "Female", "heart_rate": 78.9,       null where unknown; beats per minute
        "labels": ["426783006"],                                diagnoses in the header (#Dx), never seen by the model
        "warnings": ["flat: V3"],                               what is suspicious about the signal
        "diagnoses": [{                                         every class, by group
            "code": "426783006", "snomed": "426783006",         name of the output; SNOMED CT code or null
            "abbreviation": "NSR", "name": "sinus rhythm",
            "group": "rhythm",                                  conduction, axis and voltage, ectopy,
                                                                repolarisation and infarction, other
            "probability": 0.97, "called": true,                called: the model's decision
            "needs": null,                                      or the leads, in words, without which nobody can tell
            "explanation": {"leads": {"V1": 0.4, ...},          with --explain, of called classes: share of each lead,
                            "stretches": [["V1", 0.5, 0.7]]}    and lead, from and to second of each stretch
        }]
     }, {"record": "B", "path": "B", "error": "B.hea: header is missing"}]}
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data.formats import record_of_file
from data.header_files import header_path
from data.headers import printable
from data.records import Record, RecordError, read_facts_above
from engine.answers import Answer, answer_of, as_values, called_text, draw, explain, person
from engine.inference import Predictor, load_predictor
from engine.script import clean_exit
from run_12ECG_classifier import DEFAULT_MODEL

ENDINGS = (".hea", ".mat", ".dat")
PICTURES = (".png", ".pdf", ".svg")
SHOWN = 0.1  # probability from which a class that is not called is in the table without --all
LEADS_TOLD = 3  # of an explanation
SHADED = 3  # classes in a picture, the most probable called ones: more colours cannot be told apart


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", metavar="RECORD", help="ID.hea, ID.mat, ID.dat or ID, with its path")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="run folder, or a folder of them (default: mdl)")
    parser.add_argument(
        "--plot",
        nargs="?",
        const="",
        metavar="FILE",
        help="draw the ECG: .png, .pdf or .svg; without FILE into ID.png; left out: no picture",
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS", help="where the picture begins")
    parser.add_argument("--explain", action="store_true", help="say and shade what carried the network's decisions")
    parser.add_argument("--all", action="store_true", help="every class, not only the probable ones")
    parser.add_argument("--json", action="store_true", help="for programs: see above")
    args = parser.parse_args(argv)
    if args.plot and Path(args.plot).suffix.lower() not in PICTURES:
        parser.error(f"--plot {args.plot} does not end in .png, .pdf or .svg; if it is a RECORD, name it before --plot")
    return args


def find_record(text: str) -> Record:
    """The Record that a user means by ID, ID.hea, ID.mat or ID.dat, or by a file in another format. Raises RecordError
    if there is no header.
    """
    if os.path.isdir(text):
        raise RecordError(f"{text} is a folder; for all recordings in it: python driver.py {text} OUT")
    foreign = record_of_file(text)
    if foreign and os.path.lexists(text):
        return read_facts_above(foreign)
    stem = text[:-4] if text[-4:].lower() in ENDINGS else text
    header = header_path(stem)
    if not os.path.lexists(header):
        raise RecordError(f"{header}: there is no such header; name a recording as FOLDER/ID")
    return read_facts_above(Record(printable(os.path.basename(stem)), stem, "", ending=header[-4:]))


def picture_files(args: argparse.Namespace, records: Sequence[Record]) -> dict[str, Path]:
    """{header_path: where its picture goes} of the recordings of a call, each into a file of its own."""
    paths = {record.header_path: record.path for record in records}  # one that is named twice has one picture
    n_alike = Counter(os.path.basename(path) for path in paths.values())
    files = {}
    taken = set()
    for header, path in paths.items():
        folder, name = os.path.split(os.path.abspath(path))
        if n_alike[name] > 1:
            name = f"{os.path.basename(folder)}_{name}"
        file = _picture_file(args, name)
        number = 1
        while file in taken:
            number += 1
            file = _picture_file(args, f"{name}_{number}")
        files[header] = file
        taken.add(file)
    return files


def _picture_file(args, name):
    if not args.plot:
        return Path(f"{name}.png")
    file = Path(args.plot)
    return file if len(args.records) == 1 else file.with_name(f"{file.stem}_{name}{file.suffix}")


def plot(args, answer, class_set, explanations, file):
    """Draw a recording into a file."""
    from engine.plots import save

    columns = sorted(explanations or {}, key=lambda column: -answer.y_score[column])[:SHADED]
    shading = [
        (class_set.abbreviations[column] or class_set.codes[column], explanations[column]["stretches"])
        for column in columns
    ]
    save(draw(answer, called_text(answer, class_set), args.start, shading), file)


def table(values: dict, everything: bool) -> str:
    """The answers on a recording (from `as_values`) as text."""
    rows = values["diagnoses"]
    shown = [row for row in rows if everything or row["called"] or row["probability"] >= SHOWN]
    width = max([len(row["name"]) for row in shown], default=0)
    short = max([len(row["abbreviation"]) for row in shown], default=0)
    lines, group = [], None
    for row in shown:
        if row["group"] != group:
            group = row["group"]
            lines.append(f"  {group}")
        mark = "*" if row["called"] else " "
        probability = f"{row['probability']:.3f}" + (" ?" if row["needs"] else "")
        code = row["snomed"] or row["code"]
        lines.append(f"  {mark} {row['name']:<{width}}  {row['abbreviation']:<{short}}  {code:>15}  {probability}")
        if "explanation" in row:
            lines.append(f"      carried by {carried_by(row['explanation'])}")
    hidden = len(rows) - len(shown)
    notes = ["*: called"]
    if any(row["needs"] for row in shown):
        notes.append("?: cannot be established without other leads")
    if hidden:
        notes.append(f"{hidden} classes below {SHOWN:g} are not shown (--all)")
    lines.append("  " + "; ".join(notes))
    return printable_lines(lines)


def printable_lines(lines):
    return "\n".join(printable(line) for line in lines)


def carried_by(explanation: dict) -> str:
    """'V1 41 % (0.5 to 0.7 s), II 20 % (...)': the leads that weighed most, each with its longest stretch."""
    parts = []
    for name, share in list(explanation["leads"].items())[:LEADS_TOLD]:
        own = [(b - a, a, b) for lead, a, b in explanation["stretches"] if lead == name]
        _, begin, end = max(own)
        parts.append(f"{name} {100 * share:.0f} % ({begin:.2f} to {end:.2f} s)")
    return ", ".join(parts) or "nothing in the signal: age, sex and rhythm decided"


def heading(answer: Answer, predictor: Predictor) -> str:
    """What was read, what is suspicious about it, and how the model copes where leads are missing."""
    header = answer.header
    units = "/".join(sorted({lead.unit for lead in header.leads}))
    lines = [
        f"{answer.record.record_id}: {len(header.leads)} leads, {header.sample_freq:g} Hz, {answer.seconds:.1f} s, "
        f"in {units}; {person(answer)}"
    ]
    lines += [f"  warning: {text}" for text in answer.warnings]
    if answer.missing:
        lines.append(f"  missing leads: {predictor.without_leads}")
    return printable_lines(lines)


def answer_one(args: argparse.Namespace, predictor: Predictor, record: Record, file: Path) -> dict:
    """Read, ask, draw (into a file) and print one recording; returns its values for JSON."""
    answer = answer_of(predictor, record)
    if not 0 <= args.start < answer.seconds:
        raise RecordError(f"{record.path}: --start {args.start:g} is not within its {answer.seconds:.1f} s")
    explanations = explain(predictor, answer, args.start) if args.explain else None
    values = as_values(answer, predictor.class_set, explanations)
    if not args.json:
        print(heading(answer, predictor))
        print(table(values, args.all))
    if args.plot is not None:
        plot(args, answer, predictor.class_set, explanations, file)
        print(f"  picture: {file}", file=sys.stderr if args.json else sys.stdout)
    return values


def _record_or_error(text):
    try:
        return find_record(text)
    except RecordError as error:
        return error


def run(args):
    """Everything that the flags ask for; returns the exit status."""
    predictor = load_predictor(args.model)
    records = [_record_or_error(text) for text in args.records]
    files = picture_files(args, [record for record in records if isinstance(record, Record)])
    found, failed = [], False
    for text, record in zip(args.records, records):
        try:
            if isinstance(record, RecordError):
                raise record
            found.append(answer_one(args, predictor, record, files[record.header_path]))
        except RecordError as error:
            failed = True
            print(f"predict.py: {error}", file=sys.stderr)
            found.append({"record": printable(os.path.basename(text)), "path": text, "error": str(error)})
    if args.json:
        content = {"format": "12ecg-prediction", "version": 1, "model": str(args.model), "recordings": found}
        print(json.dumps(content, indent=1, ensure_ascii=False))
    return 1 if failed else 0


def main(argv=None):
    with clean_exit("predict.py", "type the same again"):
        return run(parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
