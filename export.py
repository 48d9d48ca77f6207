"""Write a trained model as one file, to be used without this code: as ONNX, or as a program of torch.export.

    python export.py RUN model.onnx          a run folder, or a folder of run folders (an ensemble)
    python export.py mdl model.onnx          the model that comes with the code
    python export.py mdl model.pt2           for PyTorch (torch.export), without packages beside it

Either takes whole recordings: windows are cut and padded inside, probabilities averaged over windows and members.
Forests (train.py --forest, and the one of mdl/) stay behind: the networks answer alone.

    signal         (N, 12, T) float32, millivolts at the model's rate, leads in its order; any N and T
    covariates     (N, 23) float32, age, sex and rhythm; zeros where unknown. Not there if the model uses none
    probabilities  (N, C) float32

Everything else that one must know is JSON in the file's metadata: classes, abbreviations, names, decision, thresholds,
sample_freq, leads, unit, clip, windows, rhythm. docs/onnx.md explains them, with an example for each that needs nothing
of this code. What the file answers is compared with PyTorch, an .onnx if onnxruntime is installed.
"""

import argparse
import sys
from collections.abc import Sequence

from data.files import write_atomically
from engine import onnx_file, torch_file
from engine.arguments import path_argument
from engine.inference import Predictor, load_predictor
from engine.run_folder import RunError
from engine.script import clean_exit

ENDINGS = (".onnx", ".pt2")
FOREST_STAYS = (
    "Only networks are exported. The forest, which driver.py joins with them, needs what data/measures.py measures: "
    "the file's probabilities are other than the driver's (docs/onnx.md)."
)
TOLERANCE = {"onnxruntime": 1e-5, "torch.export": 1e-6}  # of probabilities, from PyTorch's


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=path_argument, metavar="RUN", help="run folder, or a folder of run folders")
    parser.add_argument("file", type=path_argument, metavar="FILE", help="what is written: FILE.onnx or FILE.pt2")
    args = parser.parse_args(argv)
    if args.file.suffix not in ENDINGS:
        parser.error(f"{args.file}: name a file that ends in {' or '.join(ENDINGS)}")
    return args


def exported(predictor: Predictor, ending: str) -> tuple[bytes, str]:
    """The content of a file and a sentence on how it was compared. Raises RunError if it gives other probabilities."""
    if ending == ".pt2":
        engine = "torch.export"
        content = torch_file.program_bytes(predictor)
        difference = torch_file.largest_difference(content, predictor)
    else:
        engine = "onnxruntime"
        content = onnx_file.onnx_bytes(predictor)
        difference = onnx_file.largest_difference(content, predictor)
    if difference is None:
        return content, f"{engine} is not installed: not compared with PyTorch"
    if difference > TOLERANCE[engine]:
        raise RunError(f"{engine} and PyTorch give different probabilities, by up to {difference:.1g}")
    return content, f"{engine} and PyTorch agree to {difference:.1g}"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with clean_exit("export.py", "nothing was written"):
        trained = load_predictor(args.run)
        predictor = trained.without_forests()
        content, compared = exported(predictor, args.file.suffix)
        write_atomically(args.file, content)
        print(f"{args.file}: {len(content) / 1e6:.1f} MB, {len(predictor.models)} network(s); {compared}")
        if trained.has_forest:
            print(FOREST_STAYS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
