"""Feed mutated files to everything that reads files, until time is up; only the documented exceptions may escape.

    python tests/robustness/fuzz.py --seconds 600            all targets in turn; prints how many inputs ended how
    python tests/robustness/fuzz.py --target header --seed 7

Inputs are real and generated files with random bytes, lines, fields and JSON values replaced, removed, repeated or
inserted. An input that raises something else, takes longer than 5 seconds or needs more than 6 GB of addresses is
kept in the folder fuzz_failures/, and the exit status is 1.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import torch
from conftest import fake_ecg, write_record

from data.inputs import read_input
from data.labels import load_class_set
from data.preprocess import SignalConfig
from data.records import RecordError, find_records
from engine.run_folder import RunError, RunFolder
from engine.score_checks import check_scores
from engine.score_files import ScoreFileError, find_pairs, read_first_phase, read_labels, read_outputs
from engine.trained_run import load_run, make_config
from models import DEFAULT_MODEL, build_model

SAMPLE = ROOT / "data" / "sample"
NUMBERS = [
    "0",
    "-1",
    "1",
    "nan",
    "inf",
    "1e999",
    "1e-30",
    "65536",
    "2147483648",
    "9" * 18,
    "9" * 400,
    "0x10",
    "1_0",
    "٣",
    "",
]
WORDS = NUMBERS + [
    "~",
    "..",
    "../x.mat",
    "/etc/passwd",
    "x.mat",
    "x.dat",
    "212",
    "16x2:3+24",
    "16+24",
    "80",
    "508",
    "1000(0)/mV",
    "#",
    "/",
    "x/2",
    "mV",
    "\0",
    "\r",
    "\u2028",
    "\x85",
    "\ufeff",
    "V1",
    "MLII",
    "#Dx: 1",
    "x" * 3000,
    "é",
    "\t",
    "true",
    ",",
]
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    10**9,
    10**30,
    10**400,
    1e308,
    -0.5,
    "",
    "x",
    [],
    {},
    [[]],
    [1, 2],
    [10**6] * 3,
    [1] * 100,
    {"a": 1},
    "\ud800",
]
LIMIT_SECONDS, LIMIT_BYTES = 5, 6 * 2**30


def mutate_bytes(data, rng):
    """Change a few places of some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and data:
            data[place % len(data)] = rng.randrange(256)
        elif kind == 1:
            data[place:place] = rng.randbytes(rng.choice((1, 2, 8, 100)))
        elif kind == 2:
            del data[place : place + rng.choice((1, 2, 8, 100))]
        elif kind == 3:
            del data[place:]
        else:
            data[place:place] = data[max(0, place - 50) : place] * rng.choice((1, 2, 50))
    return bytes(data)


def mutate_text(text, rng):
    """Change words and lines of a text."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(lines))
        kind = rng.randrange(6)
        if kind < 3:
            mark = rng.choice(" ,/()")
            words = lines[place].split(mark)
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            lines[place] = mark.join(words)
        elif kind == 3:
            lines.insert(place, rng.choice((rng.choice(lines), rng.choice(WORDS))))
        elif kind == 4 and len(lines) > 1:
            del lines[place]
        else:
            lines[place] = lines[place][: rng.randrange(len(lines[place]) + 1)]
    return "\n".join(lines)


def mutate_file(data, rng):
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    return mutate_text(data.decode("latin-1"), rng).encode(rng.choice(("utf-8", "latin-1", "utf-16")), "replace")


def mutate_json(value, rng):
    """Replace one value, at any depth, or remove or add a key."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        value = value.copy()
        if rng.random() < 0.1:
            del value[key]
        elif isinstance(value, dict) and rng.random() < 0.05:
            value["new"] = rng.choice(VALUES)
        else:
            value[key] = mutate_json(value[key], rng)
        return value
    return rng.choice(VALUES)


class Fuzzer:
    """One target. `make` writes the unchanged files into the folder; `files` are those to mutate."""

    expected = RecordError
    files = ("x.hea",)

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seeds = self.make()

    def mutated(self, rng):
        """{file name: bytes}, for one input."""
        files = dict(rng.choice(self.seeds))
        name = rng.choice([name for name in files if name.endswith(self.files)])
        return files | {name: mutate_file(files[name], rng)}

    def run(self, files):
        """What became of an input: 'read', or the name of the exception that was expected."""
        for name, data in files.items():
            (self.folder / name).write_bytes(data)
        try:
            self.read()
        except self.expected as error:
            str(error).encode()  # printable anywhere
            return type(error).__name__
        return "read"


class Headers(Fuzzer):
    """Real and generated headers with their signal files."""

    def make(self):
        rng = np.random.default_rng(0)
        write_record(self.folder, "x", fake_ecg(rng, 1, 100), sample_freq=100)
        first = {name: (self.folder / name).read_bytes() for name in ("x.hea", "x.mat")}
        segments = b"x/2 12 100 200\ny 100\ny 100\n"
        write_record(self.folder, "y", fake_ecg(rng, 1, 100), sample_freq=100)
        write_record(self.folder, "z", fake_ecg(rng, 1, 100), sample_freq=100, gain=500)
        scales = b"x/3 12 100 250 2006\ny 100\n~ 50\nz 100\n# Dx: 426783006; 59118001 (RBBB)\n"
        (self.folder / "x.dat").write_bytes(rng.bytes(2400))
        bits = b"x 3 360/100(5) 400 12:00:00 1/2/2020\n" + b"".join(
            b"x.dat 212 200(5)/mV 12 0 1 2 0 %s\n" % lead for lead in (b"MLII", b"V1", b"V5")
        )
        (self.folder / "f.dat").write_bytes(rng.bytes(2800))  # 200 frames of 7 samples
        frames = b"x.dat 3 50 200\n" + b"".join(
            b"f.dat 16x%d 200/mV 16 0 1 2 0 %s\n" % lead for lead in ((4, b"I"), (2, b"II"), (1, b"V1"))
        )
        real = [
            {
                "x.hea": file.read_bytes().replace(f"{file.stem}.mat".encode(), b"x.mat"),
                "x.mat": file.with_suffix(".mat").read_bytes(),
            }
            for file in sorted(SAMPLE.rglob("*.hea"))[::30]
        ]
        return [first, {"x.hea": segments}, {"x.hea": bits}, {"x.hea": scales}, {"x.hea": frames}, *real]

    def read(self):
        (record,) = (record for record in find_records(self.folder) if record.record_id == "x")
        signal, _, header, _ = read_input(record, SignalConfig(sample_freq=50))
        assert signal.shape[0] == 12 and header.n_samples > 0


class Signals(Headers):
    """The same with the samples mutated."""

    files = (".mat", ".dat")

    def make(self):
        seeds = super().make()
        return [seeds[0], seeds[2] | {"x.dat": (self.folder / "x.dat").read_bytes()}]

    def mutated(self, rng):
        files = dict(rng.choice(self.seeds))
        name = next(name for name in files if name.endswith(self.files))
        return files | {name: mutate_bytes(files[name], rng)}


class Outputs(Fuzzer):
    """Output files and label headers, as the evaluator reads them."""

    expected = ScoreFileError
    files = ("x.csv", "x.hea")

    def make(self):
        codes, names = "164889003,270492004,426783006", "AF,I-AVB,Normal"
        return [
            {"x.csv": f"#x\n{classes}\n1,0,True\n0.5,1e-3,nan\n".encode(), "x.hea": f"x 1 1 1\n#Dx: {dx}\n".encode()}
            for classes, dx in ((codes, "426783006"), (names, "AF"))
        ]

    def read(self):
        pairs = find_pairs(self.folder, self.folder)
        groups = [("164889003",), ("270492004", "1"), ("426783006",)]
        outputs = read_outputs(pairs.outputs, groups)
        y_true = read_labels(pairs.dx, groups)
        assert outputs.y_pred.shape == outputs.y_score.shape == y_true.shape == (1, 3)
        assert not np.isnan(outputs.y_score).any()
        check_scores(pairs, outputs, y_true, groups, 2020)
        if pairs.textual:
            read_first_phase(pairs)


class Runs(Fuzzer):
    """config.json of a run folder."""

    expected = RunError

    def make(self):
        sizes = {**DEFAULT_MODEL, "stem": 8, "widths": [8, 8], "depths": [1, 1]}
        run = RunFolder(self.folder)
        run.save("model.pth", {"members": [build_model(sizes).state_dict()]})
        members = [{"model": sizes, "seq_length": 250}]
        self.config = make_config(
            SignalConfig(), load_class_set("cinc2020"), {"rule": "thresholds"}, members, {}, {"frequency": [0.1] * 24}
        )
        run.write_json("config.json", self.config)
        return [{"config.json": (run / "config.json").read_bytes()}]

    def mutated(self, rng):
        if rng.random() < 0.1:
            return {"config.json": mutate_file(self.seeds[0]["config.json"], rng)}
        config = self.config | {rng.choice(("members", "members", "signal", "classes")): None}
        config = {
            key: mutate_json(self.config[key], rng) if value is None and self.config[key] else self.config[key]
            for key, value in config.items()
        }
        return {"config.json": json.dumps(config).encode()}

    def read(self):
        load_run(self.folder)


class Weights(Runs):
    """model.pth of a run folder."""

    def make(self):
        super().make()
        return [{"model.pth": (self.folder / "model.pth").read_bytes()}]

    def mutated(self, rng):
        return {"model.pth": mutate_bytes(self.seeds[0]["model.pth"], rng)}


TARGETS = {"header": Headers, "signal": Signals, "output": Outputs, "config": Runs, "weights": Weights}


def fuzz(target, folder, rng, stop):
    """Run inputs until stop(n) is true; -> Counter of outcomes, list of (input, text) that failed."""
    fuzzer, outcomes, failures = TARGETS[target](folder), Counter(), []
    while not stop(outcomes.total()):
        files, start = fuzzer.mutated(rng), time.perf_counter()
        try:
            outcome = fuzzer.run(files)
        except Exception:  # whatever it is, it should not have come out: that is what this program looks for
            outcome = "failure"
            failures.append((files, traceback.format_exc()))
        if time.perf_counter() - start > LIMIT_SECONDS:
            failures.append((files, "took too long"))
        outcomes[outcome] += 1
    return outcomes, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together (default: %(default)s)")
    parser.add_argument("--target", choices=TARGETS, nargs="+", default=list(TARGETS), help="default: all")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, resource.RLIM_INFINITY))
    n_failures = 0
    for target in args.target:
        end = time.monotonic() + args.seconds / len(args.target)
        with tempfile.TemporaryDirectory() as folder:
            outcomes, failures = fuzz(
                target, folder, random.Random(args.seed), lambda n, end=end: time.monotonic() > end
            )
        print(f"{target}: {outcomes.total()} inputs, {dict(outcomes)}, {len(failures)} failures", flush=True)
        for i, (files, text) in enumerate(failures[:20]):
            kept = Path("fuzz_failures") / f"{target}_{args.seed}_{i}"
            kept.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                (kept / name).write_bytes(data)
            (kept / "failure.txt").write_text(text, encoding="utf-8", errors="backslashreplace")
            print(f"  {kept}: {text.strip().splitlines()[-1]}")
        n_failures += len(failures)
    return 1 if n_failures else 0


if __name__ == "__main__":
    sys.exit(main())
