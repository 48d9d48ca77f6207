"""Coverage-guided fuzzing of everything that reads recordings and the evaluator's input.

    python tests/robustness/fuzz_coverage.py --seconds 1800                     for all targets together
    python tests/robustness/fuzz_coverage.py --target header --corpus corpus    keep inputs that reached new code

The targets are those of tests/robustness/fuzz.py. Here libFuzzer (through atheris, which tests/requirements.txt
installs where it is built) chooses the changes by the code of data/ and engine/ that an input reaches. An input that
raises an exception that is not documented, takes longer than 10 seconds or makes the process larger than 3 GB is kept
in fuzz_failures/, and the exit status is 1.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

TARGETS = ("header", "signal", "output", "config")
LIBFUZZER = (
    "-rss_limit_mb=3000",
    "-timeout=10",
    "-max_len=30000",
    "-print_final_stats=1",
    "-artifact_prefix=fuzz_failures/",
)


def choices(fuzzer):
    """[(files of a seed, name of the file in it that is changed)]"""
    return [(seed, name) for seed in fuzzer.seeds for name in seed if name.endswith((*fuzzer.files, ".json"))]


def fuzz(target, corpus, flags):
    """In a process of its own, for libFuzzer ends it: the first byte of an input chooses the seed, the others are its
    file.
    """
    import atheris

    with atheris.instrument_imports(include=["data", "engine"]):
        import fuzz as targets
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = targets.TARGETS[target](folder)
        files = choices(fuzzer)
        for i, (seed, name) in enumerate(files):
            Path(corpus, f"seed_{i}").write_bytes(bytes([i]) + seed[name])

        def one_input(data):
            seed, name = files[data[0] % len(files)] if data else files[0]
            fuzzer.run(seed | {name: data[1:]})

        atheris.Setup([sys.argv[0], corpus, *LIBFUZZER, *flags], one_input)
        atheris.Fuzz()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300, help="for all targets together (default: %(default)s)")
    parser.add_argument("--target", choices=TARGETS, nargs="+", default=list(TARGETS), help="default: all")
    parser.add_argument(
        "--corpus",
        type=Path,
        default=None,
        help="folder of inputs to begin with and to add to (default: a temporary one)",
    )
    parser.add_argument("--one", nargs=2, metavar=("TARGET", "CORPUS"), default=None, help=argparse.SUPPRESS)
    args, flags = parser.parse_known_args()
    if args.one:
        return fuzz(*args.one, flags)
    failed = False
    Path("fuzz_failures").mkdir(exist_ok=True)
    for target in args.target:
        with tempfile.TemporaryDirectory() as temporary:
            corpus = Path(args.corpus or temporary, target)
            corpus.mkdir(parents=True, exist_ok=True)
            limit = f"-max_total_time={args.seconds // len(args.target)}"
            command = [sys.executable, __file__, "--one", target, str(corpus), limit]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        found = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        n_inputs = found.get("number_of_executed_units", "no")
        end = f"status {done.returncode}" if done.returncode else "no failure"
        print(f"{target}: {n_inputs} inputs, peak {found.get('peak_rss_mb', '?')} MB, {end}", flush=True)
        if done.returncode:
            failed = True
            print(done.stderr[-3000:])
    return failed


if __name__ == "__main__":
    sys.exit(main())
