"""Classify every recording of a folder: one CSV each.

    python driver.py IN OUT                   with the model shipped in mdl/
    python driver.py MODEL IN OUT             with a run folder, or a folder of run folders (an ensemble)
    python driver.py IN OUT --skip_existing   go on where an earlier call stopped
    python driver.py IN OUT --adapt           estimate how frequent each class is in IN, and adapt the probabilities to it

IN is searched at any depth for WFDB records. OUT/ID.csv has four lines: `#Record ID`, classes, 0/1 labels, probabilities.
Where an ID occurs in several sub-folders, those records are written to OUT/SUBFOLDER/ID.csv. A recording that cannot be
read is skipped and named at the end, with the reason; the exit status is then 1.
"""
import argparse
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.records import RecordError, find_records, read_record
from engine.adapt import adapt_to_frequencies
from engine.inference import load_predictor
from engine.run_folder import RunError, RunFolder
from run_12ECG_classifier import DEFAULT_MODEL

BATCH = 64  # recordings


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="[MODEL] IN OUT", help="model folder (optional), input folder, output folder")
    parser.add_argument("--skip_existing", action="store_true", help="leave recordings alone that already have an output")
    parser.add_argument("--adapt", action="store_true", help="adapt the probabilities to the class frequencies of IN, estimated without labels")
    parser.add_argument("--cuda", action="store_true", help="use a GPU")
    parser.add_argument("--workers", type=int, default=2, help="reading threads (default: 2)")
    args = parser.parse_args(argv)
    if len(args.folders) not in (2, 3):
        parser.error("name IN OUT or MODEL IN OUT")
    if args.adapt and args.skip_existing:
        parser.error("--adapt needs all recordings of IN at once: leave out --skip_existing")
    if args.cuda and not torch.cuda.is_available():
        parser.error("--cuda: there is no CUDA device (or a CPU build of PyTorch)")
    *model, args.input, args.output = args.folders
    args.model = model[0] if model else DEFAULT_MODEL
    return args


def output_files(records, output):
    """Where each record's answer goes: OUT/ID.csv, or OUT/SUBFOLDER/ID.csv if the ID occurs more than once."""
    times = Counter(record.record_id for record in records)
    return [Path(output, f"{r.record_id if times[r.record_id] == 1 else r.name}.csv") for r in records]


def read(predictor, record):
    """(signal, person), or the RecordError that says why not."""
    try:
        return predictor.read(*read_record(record))
    except RecordError as error:
        return error


def write_prediction(file, record_id, classes, y_pred, y_score):
    """The official four lines, written atomically."""
    lines = [f"#{record_id}", ",".join(classes), ",".join(str(int(label)) for label in y_pred),
             ",".join(repr(float(score)) for score in y_score)]
    file.parent.mkdir(parents=True, exist_ok=True)
    RunFolder(file.parent).write_text(file.name, "\n".join(lines) + "\n")


def classify(predictor, records, workers, done):
    """Call done(indices, y_score (b, C)) for one batch of recordings after another; returns [(name, reason)] of the recordings
    that could not be read."""
    skipped = []
    with ThreadPoolExecutor(max(1, workers)) as pool, tqdm(total=len(records), desc="Classifying", unit="rec") as bar:
        for start in range(0, len(records), BATCH):
            chunk = records[start:start + BATCH]
            inputs = list(pool.map(lambda record: read(predictor, record), chunk))
            good = [i for i, item in enumerate(inputs) if not isinstance(item, RecordError)]
            skipped += [(chunk[i].name, str(item)) for i, item in enumerate(inputs) if isinstance(item, RecordError)]
            if good:
                y_score = predictor.predict([inputs[i][0] for i in good], np.stack([inputs[i][1] for i in good]))  # (b, C)
                done([start + i for i in good], y_score)
            bar.update(len(chunk))
    return skipped


def classify_folder(predictor, records, files, workers, adapt):
    """Write all predictions, batch by batch, or at the end if they are adapted to the folder; returns what was skipped."""
    def write(indices, y_score):
        for i, y_pred, score in zip(indices, predictor.decide(y_score), y_score):
            write_prediction(files[i], records[i].record_id, predictor.class_set.codes, y_pred, score)
    if not adapt:
        return classify(predictor, records, workers, write)
    kept, scores = [], []
    skipped = classify(predictor, records, workers, lambda indices, y_score: (kept.extend(indices), scores.append(y_score)))
    if kept:
        y_score, frequency = adapt_to_frequencies(np.concatenate(scores), predictor.frequency)
        write(kept, y_score)
        for name, old, new in zip(predictor.class_set.abbreviations, predictor.frequency, frequency):
            print(f"  {name}: frequency {old:.3f} in training, {new:.3f} here")
    return skipped


def main(argv=None):
    args = parse_args(argv)
    try:
        predictor = load_predictor(args.model, "cuda" if args.cuda else "cpu")
        records = find_records(args.input)
        files = output_files(records, args.output)
        Path(args.output).mkdir(parents=True, exist_ok=True)
        if args.skip_existing:
            kept = [(record, file) for record, file in zip(records, files) if not file.exists()]
            print(f"{len(records) - len(kept)} of {len(records)} recordings have an output already")
            records, files = [record for record, _ in kept], [file for _, file in kept]
        skipped = classify_folder(predictor, records, files, args.workers, args.adapt)
    except (RunError, RecordError) as error:
        sys.exit(f"driver.py: {error}")
    print(f"{len(records) - len(skipped)} recordings classified into {args.output}, {len(skipped)} skipped")
    for name, reason in skipped:
        print(f"  skipped {name}: {reason}")
    return 1 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
