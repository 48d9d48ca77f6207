"""How does the recipe do on a hospital that it has never seen? Leave one source out.

    python -m benchmarks.sources --input_folder all --metadata benchmarks/ptbxl_folds.csv --out sources

Every sub-folder of --input_folder is a source. For each one (or those named by --sources) the recipe is trained on
all others, on six sevenths of their patients; the rest of them chooses epoch and thresholds, and `driver.py`
classifies the source left out. Nothing of that source is used before it is scored. OUT/sources.json
keeps the scores; runs that are finished are not repeated.

AUROC is the mean over scored classes with at least MIN_POSITIVES positives; in the last row all recordings are pooled.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.runs import ROOT, Answers, classify, is_finished, joined, mean_auroc, run_python, scores
from engine.run_folder import RunFolder

MIN_POSITIVES = 2  # a small hospital has few of each class


def leave_out(source: str, folders: list[Path], args: argparse.Namespace) -> Answers:
    """Train without a source, and classify it.

    Args:
        source: name of the folder left out.
        folders: of all sources.
        args: of the command line.

    Returns:
        What the driver answers on it.
    """
    work = args.out / source
    others = work / "others"
    others.mkdir(parents=True, exist_ok=True)
    for folder in folders:
        link = others / folder.name
        if folder.name != source and not link.exists():
            link.symlink_to(folder.resolve())
    run = work / "run"
    if not is_finished(run):
        flags = ["--metadata", args.metadata] if args.metadata else []
        data = ("--input_folder", others, "--fold", 1, "--n_folds", 7, "--cache", args.out / "cache")
        run_python(ROOT / "train.py", *data, "--folder", run, "--overwrite", *flags)
    inputs = args.input_folder / source
    return classify(run, inputs, work / "plain")


def summarise(answers: Answers) -> dict[str, float | int | None]:
    """{"n", "n_classes", "auroc", "challenge"} of some recordings."""
    classes = answers.measurable(MIN_POSITIVES) & ~answers.y_true.all(0)
    return {
        "n": len(answers),
        "n_classes": int(classes.sum()),
        "auroc": mean_auroc(answers, classes) if classes.any() else None,
        "challenge": scores(answers)["challenge"],
    }


def table(result: dict[str, dict]) -> str:
    """Markdown."""
    lines = [
        "| left out | recordings | AUROC (classes) | Challenge metric |",
        "|---|---|---|---|",
    ]
    for source, found in result.items():
        auroc = "" if found["auroc"] is None else f"{found['auroc']:.3f} ({found['n_classes']})"
        lines.append(f"| {source} | {found['n']} | {auroc} | {found['challenge']:.3f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Leave out each source in turn, and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input_folder", type=Path, required=True, help="a folder with a sub-folder for each source")
    parser.add_argument("--metadata", default=None, help="as train.py takes it (default: none)")
    parser.add_argument("--sources", nargs="+", default=None, help="leave out these only (default: each in turn)")
    parser.add_argument("--out", type=Path, default=Path("sources"), help="default: %(default)s")
    args = parser.parse_args(argv)
    folders = sorted(path for path in args.input_folder.iterdir() if path.is_dir())
    sources = args.sources or [folder.name for folder in folders]
    found = {source: leave_out(source, folders, args) for source in sources}
    found["all of these"] = joined([found[source] for source in sources])
    result = {source: summarise(answers) for source, answers in found.items()}
    RunFolder(args.out).write_json("sources.json", result)
    print(table(result))


if __name__ == "__main__":
    main()
