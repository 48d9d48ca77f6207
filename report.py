"""A run as one page: what was trained, how good it is and where it fails.

    python report.py RUN                                      writes RUN/report.html
    python report.py RUN --out page.html                      elsewhere
    python report.py RUN --input_folder DIR                   where the recordings to be drawn are, if they moved
    python report.py RUN --outputs OUT --labels DIR           on the answers that driver.py wrote into OUT

RUN is a run folder of train.py, of pretrain.py or of both. The page is one file that needs nothing else: no script, no
font, no picture from elsewhere. Without --outputs the scores are those of the run's validation recordings.
"""

import argparse
import sys
from pathlib import Path

from data.headers import printable
from data.page import write_page
from engine.arguments import path_argument
from engine.inference import load_predictor
from engine.report_data import folder_predictions, validation_predictions
from engine.run_folder import PRETRAIN, RunError, RunFolder
from engine.score_files import ScoreFileError
from engine.script import clean_exit

ROOT = Path(__file__).resolve().parent
USUAL_FOLDERS = ("Training_WFDB", ROOT / "data" / "sample")  # where training looks if it is told nothing


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=path_argument, metavar="RUN", help="run folder of train.py or pretrain.py")
    parser.add_argument("--outputs", metavar="OUT", help="answers of driver.py to be scored, with --labels")
    parser.add_argument("--labels", metavar="DIR", help="their recordings, for the diagnoses in the headers")
    parser.add_argument(
        "--input_folder", metavar="DIR", help="recordings to be drawn (default: where training read them)"
    )
    parser.add_argument("--out", metavar="FILE", help="the page (default: RUN/report.html)")
    args = parser.parse_args(argv)
    if (args.outputs is None) != (args.labels is None):
        parser.error("--outputs and --labels belong together: --outputs OUT --labels DIR")
    args.out = Path(args.out) if args.out else Path(args.run, "report.html")
    return args


def drawn_from(args, config) -> list[str]:
    """Folders in which the recordings to be drawn are looked for, the first that has any counts."""
    if args.input_folder:
        return [args.input_folder]
    settings = config["training"].get("members", [config["training"]])[0]
    return [str(folder) for folder in (args.labels, settings.get("input_folder"), *USUAL_FOLDERS) if folder]


def classifier_sections(args, run):
    """Sections on a classifier."""
    from engine.report_training import training_sections

    predictor, config = load_predictor(run.path), run.read_config()
    if args.outputs:
        predictions = folder_predictions(args.labels, args.outputs, predictor.class_set)
    else:
        predictions = validation_predictions(run, predictor)
    return training_sections(run, config, predictor, predictions, drawn_from(args, config))


def encoder_sections(args, run):
    """Sections on a pre-trained encoder."""
    from engine.report_pretraining import pretraining_sections

    return pretraining_sections(run, drawn_from(args, run.read_config()))


def run_report(args):
    """Gather all sections and write the page."""
    run = RunFolder(args.run)
    sections = []
    if (run / "config.json").exists():
        sections += classifier_sections(args, run)
    pretraining = RunFolder(args.run, PRETRAIN)
    if (pretraining / "config.json").exists() and not args.outputs:
        sections += encoder_sections(args, pretraining)
    if not sections:
        raise RunError(f"{run.path} holds neither config.json nor pretrain_config.json: name a run folder")
    name = printable(run.path.resolve().name)
    write_page(args.out, f"Report on the run {name}", "Research software, not a medical device.", sections)
    print(f"report: {args.out}")


def main(argv=None):
    with clean_exit("report.py", "type the same again"):
        try:
            run_report(parse_args(argv))
        except ScoreFileError as error:
            raise RunError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
