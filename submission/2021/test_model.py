"""Classify a folder as the PhysioNet/Computing in Cardiology Challenge 2021 did.

python test_model.py MODEL DATA OUTPUTS

DATA holds ID.hea and ID.mat of recordings with any of the Challenge's sets of leads; OUTPUTS/ID.csv has four lines:
`#ID`, classes, 0/1 labels, probabilities. It stands in for the organisers' script of this name, makes the same calls
and, like it, reads recordings by itself. A recording on which the model fails gets an output without classes, which
scores as negative throughout.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from team_code import load_model, run_model

from data.files import write_atomically

ORDER = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def sorted_leads(header: str) -> tuple[str, ...]:
    """Names of the leads that a header lists, in the usual order, others behind."""
    first, *lines = header.split("\n")
    names = [line.split(" ")[-1] for line in lines[: int(first.split(" ")[1])]]
    return tuple(sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)))


def write_output(path: Path, record_id: str, classes: list, labels: np.ndarray, probabilities: np.ndarray) -> None:
    rows = [",".join(map(str, row)) for row in (classes, labels, probabilities)]
    write_atomically(path, "".join(f"{line}\n" for line in (f"#{record_id}", *rows)).encode())


def test_model(model_directory: Path, data_directory: Path, output_directory: Path) -> int:
    """Classify everything in `data_directory`; returns the number of recordings on which the model failed."""
    files = [file for file in sorted(data_directory.glob("[!.]*.hea")) if file.with_suffix(".mat").is_file()]
    if not files:
        sys.exit(f"{data_directory}: holds no recordings (ID.hea with ID.mat)")
    output_directory.mkdir(exist_ok=True)
    headers = [file.read_text() for file in files]
    models = {leads: load_model(model_directory, leads) for leads in sorted(set(map(sorted_leads, headers)))}
    n_failed = 0
    for file, header in zip(files, headers):
        recording = loadmat(file.with_suffix(".mat"))["val"]  # (n_leads, n)
        try:
            answer = run_model(models[sorted_leads(header)], header, recording)
        except Exception as error:  # whatever a team's code raises, the other recordings are classified
            print(f"failed: {error}", file=sys.stderr)
            n_failed += 1
            answer = ([], [], [])
        write_output(output_directory / f"{file.stem}.csv", header.split(" ")[0], *answer)
    print(f"{len(files)} recordings, {n_failed} failed")
    return n_failed


def main(arguments: list[str]) -> int:
    if len(arguments) != 3:
        sys.exit("name three folders: python test_model.py MODEL DATA OUTPUTS")
    return 1 if test_model(*map(Path, arguments)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
