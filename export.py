"""Write a trained model as ONNX, to be used without this code and without PyTorch.

    python export.py RUN model.onnx          a run folder, or a folder of run folders (an ensemble)
    python export.py mdl model.onnx          the model that comes with the code

The graph takes whole recordings: windows are cut and padded inside, probabilities averaged over windows and members.

    signal         (N, 12, T) float32, millivolts at the model's rate, leads in its order; any N and T
    covariates     (N, 23) float32, age, sex and rhythm; zeros where unknown. Not there if the model uses none
    probabilities  (N, C) float32

Everything else that one must know is JSON in the metadata of the file: classes, abbreviations, names, decision,
thresholds, sample_freq, leads, unit, clip, windows, rhythm. docs/onnx.md explains them, with an example that needs
nothing but numpy and onnxruntime. If onnxruntime is installed, its answers are compared with PyTorch's.
"""

import argparse
import sys
from collections.abc import Sequence

from data.files import write_atomically
from engine.arguments import path_argument
from engine.inference import load_predictor
from engine.onnx_file import largest_difference, onnx_bytes
from engine.run_folder import RunError
from engine.script import clean_exit

TOLERANCE = 1e-5  # of probabilities, between onnxruntime and PyTorch


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=path_argument, metavar="RUN", help="run folder, or a folder of run folders")
    parser.add_argument("file", type=path_argument, metavar="FILE.onnx", help="what is written")
    args = parser.parse_args(argv)
    if args.file.suffix != ".onnx":
        parser.error(f"{args.file}: name a file that ends in .onnx")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with clean_exit("export.py", "nothing was written"):
        predictor = load_predictor(args.run)
        content = onnx_bytes(predictor)
        difference = largest_difference(content, predictor)
        if difference is not None and difference > TOLERANCE:
            raise RunError(f"onnxruntime and PyTorch give different probabilities, by up to {difference:.1g}")
        write_atomically(args.file, content)
        compared = "onnxruntime is not installed: not compared with PyTorch"
        if difference is not None:
            compared = f"onnxruntime and PyTorch agree to {difference:.1g}"
        print(f"{args.file}: {len(content) / 1e6:.1f} MB, {len(predictor.models)} network(s); {compared}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
