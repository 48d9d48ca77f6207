"""How does the recipe do on a hospital that it has never seen? Leave one source out, with and without adaptation.

    python -m benchmarks.sources --input_folder all --metadata benchmarks/ptbxl_folds.csv --out sources

Every sub-folder of --input_folder is a source. For each one (or those named by --sources) the recipe is trained on
all others, on six sevenths of their patients; the rest of them chooses epoch and thresholds, and `driver.py`, plain
and with --adapt, classifies the source left out. Nothing of that source is used before it is scored. OUT/sources.json
keeps the scores; runs that are finished are not repeated.

AUROC is the mean over scored classes with at least MIN_POSITIVES positives; in the last row all recordings are pooled.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.accuracy import CLASS_SET, ROOT, read_outputs, scores
from engine.metrics import auroc_per_class
from engine.run_folder import RunFolder

MIN_POSITIVES = 2


def leave_out(source, folders, args):
    """Train without `source`, classify it plainly and adapted; -> {"plain": ..., "adapted": ...} as read_outputs
    gives.
    """
    work = args.out / source
    others = work / "others"
    others.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        link = others / folder.name
        if folder.name != source and not link.exists():
            link.symlink_to(folder.resolve())
    if not (work / "run" / "final_model.pth").exists():
        command = [
            sys.executable,
            ROOT / "train.py",
            "--input_folder",
            others,
            "--fold",
            "1",
            "--n_folds",
            "7",
            "--folder",
            work / "run",
            "--overwrite",
            "--cache",
            args.out / "cache",
            *(["--metadata", args.metadata] if args.metadata else []),
        ]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = {}
    for name, flags in (("plain", []), ("adapted", ["--adapt"])):
        output, inputs = work / name, args.input_folder / source
        subprocess.run(
            [sys.executable, str(ROOT / "driver.py"), str(work / "run"), str(inputs), str(output), *flags],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        found[name] = read_outputs(inputs, output)
    return found


def score(y_true, y_score, y_pred):
    """{n, auroc, n_classes, challenge} of some recordings."""
    classes = (y_true.sum(0) >= MIN_POSITIVES) & ~y_true.all(0)
    auroc = float(np.nanmean(auroc_per_class(y_true[:, classes], y_score[:, classes]))) if classes.any() else None
    return {
        "n": len(y_true),
        "n_classes": int(classes.sum()),
        "auroc": auroc,
        "challenge": scores(y_true, y_score, y_pred, CLASS_SET)["challenge"],
    }


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_folder", type=Path, required=True)
    parser.add_argument("--metadata", default=None)
    parser.add_argument("--sources", nargs="+", default=None, help="leave out these only (default: each in turn)")
    parser.add_argument("--out", type=Path, default=Path("sources"), help="default: %(default)s")
    args = parser.parse_args(argv)
    folders = sorted(p for p in args.input_folder.iterdir() if p.is_dir())
    found = {source: leave_out(source, folders, args) for source in args.sources or [folder.name for folder in folders]}
    found["all of these"] = {
        name: [np.concatenate(parts) for parts in zip(*(each[name] for each in found.values()))]
        for name in ("plain", "adapted")
    }
    result = {source: {name: score(*each[name]) for name in each} for source, each in found.items()}
    RunFolder(args.out).write_json("sources.json", result)
    print(
        "| left out | recordings | AUROC (classes) | Challenge metric | Challenge metric, adapted |\n|---|---|---|---|---|"
    )
    for source, each in result.items():
        plain = each["plain"]
        auroc = "" if plain["auroc"] is None else f"{plain['auroc']:.3f} ({plain['n_classes']})"
        print(f"| {source} | {plain['n']} | {auroc} | {plain['challenge']:.3f} | {each['adapted']['challenge']:.3f} |")


if __name__ == "__main__":
    main()
