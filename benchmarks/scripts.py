"""driver.py, run_12ECG_classifier.py and the evaluator as whole processes: python -m benchmarks.scripts"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.growth import replicate
from benchmarks.reference import PlainResNet, load_window
from benchmarks.timing import compare, report
from data.records import find_records, read_header
from engine.metrics import load_weights
from engine.run_folder import RunFolder
from run_12ECG_classifier import DEFAULT_MODEL, load_12ECG_model, run_12ECG_classifier

ROOT = Path(__file__).resolve().parent.parent
N_RECORDS = 1000


def call(script, *args):
    subprocess.run(
        [sys.executable, script, *map(str, args)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def one_member(folder):
    """A run folder with the first member of the shipped model."""
    shipped, run = RunFolder(DEFAULT_MODEL), RunFolder(folder)
    run.create()
    config = shipped.read_config()
    run.write_json("config.json", config | {"members": config["members"][:1]})
    run.save("model.pth", {"members": shipped.load("model.pth")["members"][:1]})
    return folder


def driver(records, top):
    """Rows of driver.py: all recordings, less what one takes."""
    replicate(records, top / "in", N_RECORDS)
    replicate(records, top / "one", 1)
    plain = PlainResNet().eval()

    def predecessor():
        with torch.inference_mode():
            for record in records[:20]:
                torch.sigmoid(plain(torch.from_numpy(load_window(record.path))[None]))

    for name, model in (("the shipped ensemble", DEFAULT_MODEL), ("one member", one_member(top / "member"))):
        start = compare(
            f"driver.py with {name}: start, and one recording",
            lambda: call("driver.py", model, top / "one", top / "out"),
            unit="s",
            goal="2 s",
            repetitions=3,
        )
        yield start
        row = compare(
            f"driver.py with {name}: {N_RECORDS} recordings after start-up",
            lambda: call("driver.py", model, top / "in", top / "out"),
            predecessor,
            n=N_RECORDS,
            n_reference=20,
            reference_name="predecessor's network and loading, one by one",
            goal="20x",
            repetitions=2,
        )
        row.ours, row.ours_range = (
            N_RECORDS / (N_RECORDS / row.ours - start.ours),
            tuple(N_RECORDS / (N_RECORDS / r - start.ours) for r in row.ours_range),
        )
        yield row


def one_recording(path):
    """Row of run_12ECG_classifier on samples that are read, as the organisers' driver calls it."""
    lines = Path(f"{path}.hea").read_text().splitlines(keepends=True)
    adc = np.fromfile(f"{path}.mat", "<i2", offset=24).reshape(-1, 12).T
    model = load_12ECG_model()
    for name, members in (("the shipped ensemble", model.models), ("one member", model.models[:1])):
        model.models = members
        yield compare(
            f"run_12ECG_classifier, {name}",
            lambda: run_12ECG_classifier(adc, lines, model),
            unit="s",
            goal="0.015 s",
            repetitions=20,
        )


def evaluator(top):
    """Rows of the evaluator against loops, both as whole processes."""
    rng, codes = np.random.default_rng(0), [code for group in load_weights(2020)[0] for code in group]
    for n, goal in ((6877, "8x"), (20_000, "13x")):
        labels, outputs = top / f"labels_{n}", top / f"outputs_{n}"
        labels.mkdir(), outputs.mkdir()
        for i in range(n):
            dx, scores = rng.choice(codes, rng.integers(1, 4), replace=False), rng.random(len(codes))
            (labels / f"R{i:05d}.hea").write_text(f"R{i:05d} 12 500 5000\n#Age: 60\n#Dx: {','.join(dx)}\n")
            rows = [codes, (scores > 0.8).astype(int), scores.round(4)]
            (outputs / f"R{i:05d}.csv").write_text(
                f"#R{i:05d}\n" + "\n".join(",".join(map(str, row)) for row in rows) + "\n"
            )
        yield compare(
            f"evaluate {n:,} recordings, whole process",
            lambda: call("evaluate_12ECG_score.py", labels, outputs, top / "scores.csv"),
            lambda: call("-m", "benchmarks.loops", labels, outputs, top / "loops.csv"),
            unit="s",
            reference_name="plain loops, whole process",
            goal=goal,
            repetitions=3,
        )


def measure(folder):
    """driver.py, run_12ECG_classifier.py and the evaluator."""
    headers = [(record, read_header(record.path)) for record in find_records(folder)]
    records = [record for record, header in headers if header.sample_freq == 500 and header.n_samples == 5000][:200]
    with tempfile.TemporaryDirectory() as top:
        yield from evaluator(Path(top))
        yield from one_recording(records[0].path)
        yield from driver(records, Path(top))


if __name__ == "__main__":
    report(measure)
