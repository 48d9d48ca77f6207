"""Folders that are wrong on purpose: what driver.py and the evaluator do with names, links, pipes and what is in
their way.
"""

import csv
import os
import shutil
import zlib

import numpy as np
import pytest
from conftest import fake_ecg, write_record

import driver
from data.labels import load_class_set
from data.records import RecordError, find_records, read_record
from engine import score_files
from engine.output_folder import ANSWERED_BY, JOURNAL, SKIPPED, WARNINGS, OutputFolder
from engine.run_folder import RunFolder
from engine.script import INTERRUPTED
from evaluate_12ECG_score import evaluate_12ECG_score
from evaluate_12ECG_score import main as evaluate

ANSWER = "#x\n426783006\n1\n0.5\n"


@pytest.fixture(scope="module")
def run(untrained_run):
    """An untrained model in a run folder."""
    return untrained_run(load_class_set("cinc2020"))


def record(folder, name, flat=False):
    signal = fake_ecg(np.random.default_rng(0), 2)
    if flat:
        signal[8] = 0
    write_record(folder, name, signal)


def answers(out):
    return sorted(
        file.relative_to(out).as_posix() for file in out.rglob("*.csv") if file.is_file() and file.name != SKIPPED
    )


def rows(file):
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def drive(run, tmp_path, *flags):
    return driver.main([str(run.path), str(tmp_path / "in"), str(tmp_path / "out"), *flags])


def test_a_name_too_long_to_be_written_does_not_stop_the_others(run, tmp_path):
    """100 latin-1 letters in the name of a file, whose escapes are 600."""
    record(tmp_path / "in", "a")
    record(tmp_path / "in", "z")
    os.link(tmp_path / "in" / "a.hea", os.fsencode(tmp_path / "in") + b"/" + b"\xe4" * 100 + b".hea")
    assert drive(run, tmp_path) == 1 and answers(tmp_path / "out") == ["a.csv", "z.csv"]
    (row,) = rows(tmp_path / "out" / SKIPPED)
    assert row["stage"] == "writing" and "File name too long" in row["reason"]


def test_two_names_that_are_written_alike_are_not_one_answer(run, tmp_path):
    record(tmp_path / "in", "a")
    for name in ("two\nlines", "two\\nlines"):
        os.link(tmp_path / "in" / "a.hea", tmp_path / "in" / f"{name}.hea")
    assert drive(run, tmp_path) == 1 and answers(tmp_path / "out") == ["a.csv", "two\\nlines.csv"]
    assert "that of another record" in rows(tmp_path / "out" / SKIPPED)[0]["reason"]


def test_folders_in_the_way_of_answers_do_not_stop_the_others(run, tmp_path):
    record(tmp_path / "in", "a")
    record(tmp_path / "in", "b")
    for folder in ("a.csv", "c"):  # their ids are the same, so their answers lie in folders
        record(tmp_path / "in" / folder, "R")
    (tmp_path / "out" / "b.csv").mkdir(parents=True)
    assert drive(run, tmp_path) == 1 and answers(tmp_path / "out") == ["a.csv", "c/R.csv"]
    assert {row["record"]: row["stage"] for row in rows(tmp_path / "out" / SKIPPED)} == {
        "b": "writing",
        "a.csv/R": "writing",
    }


def test_no_link_leads_out_of_the_output_folder(run, tmp_path):
    for folder in ("a", "b"):
        record(tmp_path / "in" / folder, "R")
    record(tmp_path / "in", "c")
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / f".{zlib.crc32(b'c.csv'):08x}.partial").symlink_to(tmp_path / "precious")
    (tmp_path / "out" / JOURNAL).symlink_to(tmp_path / "precious")
    assert drive(run, tmp_path) == 1 and (tmp_path / "out" / "b" / "R.csv").exists()
    assert not list((tmp_path / "elsewhere").iterdir()) and (tmp_path / "precious").read_text() == "mine"
    assert "outside the output folder" in rows(tmp_path / "out" / SKIPPED)[0]["reason"]


def test_a_folder_that_cannot_be_listed_is_skipped_and_the_rest_is_found(tmp_path, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    (tmp_path / "a" / "locked").mkdir(parents=True)
    with pytest.raises(
        RecordError, match="holds no WFDB header .*/a/locked: folder cannot be listed: Permission denied"
    ):
        find_records(tmp_path)
    for name in ("a/A", "b/locked", "z"):
        (tmp_path / f"{name}.hea").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.hea").touch()
    records = find_records(tmp_path)
    assert [record.name for record in records] == ["z", "a/A", "a/locked/", "b/locked"]
    with pytest.raises(RecordError, match="a/locked: folder cannot be listed: Permission denied"):
        read_record(records[2])


def test_a_folder_beyond_the_longest_path_does_not_stop_the_others(run, tmp_path):
    record(tmp_path / "in", "a")
    place = os.open(tmp_path / "in", os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=place)
        above, place = place, os.open("d" * 250, os.O_RDONLY, dir_fd=place)
        os.close(above)
    os.close(place)
    try:
        assert drive(run, tmp_path) == 1 and answers(tmp_path / "out") == ["a.csv"]
        (row,) = rows(tmp_path / "out" / SKIPPED)
        assert (
            row["record"].endswith("ddd/")
            and row["stage"] == "reading"
            and "folder cannot be listed: File name too long" in row["reason"]
        )
    finally:
        shutil.rmtree(tmp_path / "in")


@pytest.mark.parametrize("name", [WARNINGS, JOURNAL])
def test_a_pipe_in_place_of_a_list_is_not_waited_for(name, run, tmp_path):
    record(tmp_path / "in", "a")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / name)
    with pytest.raises(SystemExit, match=f"not a regular file: '.*{name}'"):
        drive(run, tmp_path, "--skip_existing")


def stop_at(monkeypatch, number, error):
    """Let the `number`-th answer (from 0) raise `error`."""
    real = OutputFolder._write_answer
    left = [number]

    def write(*args):
        if left[0] == 0:
            raise error
        left[0] -= 1
        real(*args)

    monkeypatch.setattr("driver.BATCH", 3)
    monkeypatch.setattr(OutputFolder, "_write_answer", write)


def test_warnings_of_an_interrupted_call_are_not_lost(run, tmp_path, monkeypatch, capsys):
    for i in range(8):
        record(tmp_path / "in", f"r{i}", flat=i % 2)
    for number in (4, 2):
        stop_at(monkeypatch, number, KeyboardInterrupt())
        with pytest.raises(SystemExit) as caught:
            drive(run, tmp_path, "--skip_existing")
        assert caught.value.code == INTERRUPTED
        monkeypatch.undo()
    assert len(answers(tmp_path / "out")) == 6
    for _ in range(2):  # the second call finds nothing to do, and says the same
        assert (
            drive(run, tmp_path, "--skip_existing", "--strict") == 1
            and "0 skipped, 4 warnings" in capsys.readouterr().out
        )
        assert [row["record"] for row in rows(tmp_path / "out" / WARNINGS)] == ["r1", "r3", "r5", "r7"]
    assert [file.name for file in (tmp_path / "out").glob(".*")] == [ANSWERED_BY]
    assert drive(run, tmp_path) == 0 and len(rows(tmp_path / "out" / WARNINGS)) == 4  # anew


def test_a_full_disk_leaves_whole_answers_and_a_second_call_goes_on(run, tmp_path, monkeypatch):
    for i in range(8):
        record(tmp_path / "in", f"r{i}")
    real, left = os.fsync, [6]  # the first is that of the model's fingerprint

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SystemExit, match="No space left"):
        drive(run, tmp_path)
    monkeypatch.undo()
    assert len(answers(tmp_path / "out")) == 5
    assert drive(run, tmp_path, "--skip_existing") == 0
    assert (
        all(len(file.read_text().splitlines()) == 4 for file in (tmp_path / "out").glob("*.csv"))
        and len(answers(tmp_path / "out")) == 8
    )


def test_a_model_whose_answers_are_not_numbers_writes_none(run, tmp_path):
    """Its weights are numbers, but a variance is negative."""
    record(tmp_path / "in", "a")
    state = run.load("model.pth")
    name = next(name for name in state["members"][0] if name.endswith("running_var"))
    state["members"][0][name].fill_(-1)
    broken = RunFolder(tmp_path / "broken")
    broken.create()
    broken.save("model.pth", state)
    broken.write_bytes("config.json", (run / "config.json").read_bytes())
    with pytest.raises(SystemExit, match="answers are not numbers"):
        drive(broken, tmp_path)
    assert answers(tmp_path / "out") == []


# --- the evaluator
# -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(tmp_path):
    """A folder with a label header and its answer."""
    folder = tmp_path / "scored"
    folder.mkdir()
    (folder / "a.hea").write_text("a 1 1 1\n#Dx: 426783006\n")
    (folder / "a.csv").write_text(ANSWER)
    return folder


@pytest.mark.parametrize("name", ["a.csv", "a.hea"])
@pytest.mark.parametrize(
    "put",
    [os.mkfifo, lambda file: os.symlink("/dev/zero", file), lambda file: os.symlink(file.name, file)],
    ids=["pipe", "endless device", "link to itself"],
)
def test_what_is_no_file_is_neither_waited_for_nor_read_to_its_end(name, put, scored, capsys):
    (scored / name).unlink()
    put(scored / name)
    evaluate([str(scored), str(scored)])
    assert name in capsys.readouterr().err


def test_folders_linked_in_circles_are_scored_once(scored, monkeypatch, capsys):
    (scored / "sub").mkdir()
    for place in ("self", "sub/up"):
        (scored / place).symlink_to(scored)
    assert len(score_files.find_pairs(scored, scored).outputs) == 1
    for i in range(12):  # these have more than a billion paths
        (scored / str(i)).mkdir()
        for j in range(12):
            (scored / str(i) / f"to{j}").symlink_to(scored / str(j))
    monkeypatch.setattr("data.files.MAX_FOLDERS", 3000)
    assert evaluate([str(scored), str(scored)]) == 1 and "more than 3000 folders" in capsys.readouterr().err


def test_a_decision_of_400_digits_is_positive(scored):
    (scored / "a.hea").write_text("a 1 1 1\n#Dx: AF\n")
    (scored / "a.csv").write_text(f"a\nAF,Normal\n{'9' * 400},0\n0.5,0.1\n")
    assert evaluate_12ECG_score(scored, scored)[1]["f_measure"] == 1


def test_answers_to_odd_names_are_found(run, tmp_path):
    """The driver writes what cannot be printed in a name as escapes."""
    record(tmp_path / "in", "a")
    for name in (b"two\nlines.hea", b"no_text_\xff.hea"):
        os.link(tmp_path / "in" / "a.hea", os.fsencode(tmp_path / "in") + b"/" + name)
    assert drive(run, tmp_path) == 0
    assert len(score_files.find_pairs(tmp_path / "in", tmp_path / "out").outputs) == 3
