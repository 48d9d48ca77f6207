"""driver.py on folders as people have them, with a small untrained model: the summary, names, segments, its help."""

import csv
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import fake_ecg, write_record

import driver
from data.labels import ClassSet, load_class_set
from engine.output_folder import ANSWERED_BY, SKIPPED
from engine.summary import diagnosis_columns
from evaluate_12ECG_score import evaluate_12ECG_score

CLASSES = load_class_set("cinc2020")


@pytest.fixture(scope="module")
def run(untrained_run):
    return str(untrained_run(CLASSES).path)


@pytest.fixture
def folder(tmp_path):
    """Five recordings, two of which have the same id, and one that cannot be read."""
    rng = np.random.default_rng(0)
    for name in ("a/R0", "a/R1", "b/R1", "b/R2", "broken", "z"):
        place, _, record_id = name.rpartition("/")
        write_record(tmp_path / "in" / place, record_id, fake_ecg(rng, 2))
    (tmp_path / "in" / "z.hea").rename(tmp_path / "in" / 'z, "quoted".hea')  # of files, not in the header
    (tmp_path / "in" / "broken.mat").write_bytes(b"")
    return tmp_path


def table(file):
    return pd.read_csv(file, dtype={"record": str, "diagnoses": str}, keep_default_na=False)


def answer(file):
    _, classes, labels, scores = file.read_text().splitlines()
    return classes.split(","), labels.split(","), scores.split(",")


NAMES = ('z, "quoted"', "a/R0", "a/R1", "b/R1", "b/R2")
FILES = ('z, "quoted"', "R0", "a/R1", "b/R1", "R2")


def check_summary(folder, file):
    """The table says what the answers say, to the last digit."""
    with open(file, newline="", encoding="utf-8") as lines:
        header, *rows = csv.reader(lines)
    assert header == ["record", "diagnoses", *CLASSES.names]
    assert [row[0] for row in rows] == list(NAMES)
    for row, name in zip(rows, FILES):
        codes, labels, scores = answer(folder / "out" / f"{name}.csv")
        assert codes == list(CLASSES.codes) and row[2:] == scores
        called = [CLASSES.abbreviations[k] for k, label in enumerate(labels) if label == "1"]
        assert row[1] == "|".join(called)


def test_summary_has_a_row_for_every_answer(folder, run):
    file = folder / "tables" / "summary.csv"
    arguments = [run, str(folder / "in"), str(folder / "out")]
    assert driver.main([*arguments, f"--summary={file}"]) == 1
    check_summary(folder, file)
    plain = folder / "plain"
    assert driver.main([run, str(folder / "in"), str(plain)]) == 1  # the answers are the same without it
    for name in FILES:
        assert (plain / f"{name}.csv").read_bytes() == (folder / "out" / f"{name}.csv").read_bytes()
    frame = table(file).set_index("record")
    assert frame.loc["a/R0", "atrial fibrillation"] == float(answer(folder / "out" / "R0.csv")[2][1])
    dummies = frame["diagnoses"].str.get_dummies()
    assert set(dummies.columns) <= set(CLASSES.abbreviations)
    assert int(dummies.to_numpy().sum()) == sum(answer(folder / "out" / f"{name}.csv")[1].count("1") for name in FILES)


def test_summary_with_skip_existing_holds_earlier_answers_too(folder, run):
    arguments = [run, str(folder / "in"), str(folder / "out")]
    driver.main(arguments)
    (folder / "out" / "R2.csv").unlink()
    (folder / "out" / "a" / "R1.csv").unlink()
    assert driver.main([*arguments, "--skip_existing", "--summary", str(folder / "s.csv")]) == 1
    check_summary(folder, folder / "s.csv")
    first = (folder / "s.csv").read_bytes()
    assert driver.main([*arguments, "--skip_existing", "--summary", str(folder / "s.csv")]) == 1  # nothing left to do
    assert (folder / "s.csv").read_bytes() == first and not list(folder.glob(".*"))


def test_answers_of_another_model_are_not_taken_for_those_of_this_one(folder, run, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    weights = torch.load(other / "model.pth", weights_only=True)
    weights["members"][0]["head.linear.bias"] += 1
    torch.save(weights, other / "model.pth")
    out = folder / "out"
    driver.main([run, str(folder / "in"), str(out)])
    before = (out / "R0.csv").read_bytes()
    with pytest.raises(SystemExit, match="holds answers of another model, .* leave out --skip_existing"):
        driver.main([str(other), str(folder / "in"), str(out), "--skip_existing"])
    assert (out / "R0.csv").read_bytes() == before and "another model" not in capsys.readouterr().out
    assert driver.main([str(other), str(folder / "in"), str(out)]) == 1
    assert (out / "R0.csv").read_bytes() != before and "holds answers of another model" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="holds answers of another model"):  # that call might have been killed
        driver.main([str(other), str(folder / "in"), str(out), "--skip_existing"])
    (out / ANSWERED_BY).write_text("[]")
    with pytest.raises(SystemExit, match="answered_by.json is not what this program wrote: remove it"):
        driver.main([str(other), str(folder / "in"), str(out)])


@pytest.mark.parametrize("text", ["mine", "", "#R2\n426783006\n1\n0.5\n", "#R2\n1,2\n1\n0.5,1\n"])
def test_an_earlier_file_that_is_no_answer_of_the_model_is_left_out_and_named(folder, run, text):
    arguments = [run, str(folder / "in"), str(folder / "out"), "--skip_existing", "--summary", str(folder / "s.csv")]
    driver.main(arguments)
    (folder / "out" / "R2.csv").write_text(text)
    assert driver.main(arguments) == 1
    assert [*table(folder / "s.csv")["record"]] == [name for name in NAMES if name != "b/R2"]
    with open(folder / "out" / SKIPPED, newline="", encoding="utf-8") as lines:
        rows = {row["record"]: row for row in csv.DictReader(lines)}
    assert rows.keys() == {"broken", "b/R2"} and rows["b/R2"]["stage"] == "summary"
    assert "not an answer with the classes of this model" in rows["b/R2"]["reason"]


def test_an_old_answer_of_a_recording_that_is_broken_now_is_not_in_the_summary(folder, run):
    arguments = [run, str(folder / "in"), str(folder / "out"), "--summary", str(folder / "s.csv")]
    driver.main(arguments)
    (folder / "in" / "b" / "R2.mat").write_bytes(b"")
    driver.main(arguments)
    assert [*table(folder / "s.csv")["record"]] == [name for name in NAMES if name != "b/R2"]


def test_nothing_is_answered_is_a_table_without_rows(folder, run):
    shutil.rmtree(folder / "in" / "a")
    shutil.rmtree(folder / "in" / "b")
    for file in (folder / "in").glob("z*"):
        file.unlink()
    assert driver.main([run, str(folder / "in"), str(folder / "out"), "--summary", str(folder / "s.csv")]) == 1
    frame = table(folder / "s.csv")
    assert len(frame) == 0 and len(frame.columns) == 26


@pytest.mark.parametrize(
    "name, message",
    [
        ("in/broken.hea", "ends in .csv"),
        ("in", "ends in .csv"),
        ("folder.csv", "ends in .csv"),
        ("in/broken.mat/s.csv", "cannot be made"),
        (f"out/{SKIPPED}", "choose another name for the summary"),
    ],
)
def test_a_summary_that_cannot_be_written_is_refused_before_anything_is_done(folder, run, name, message):
    (folder / "folder.csv").mkdir()
    before = (folder / "in" / "broken.hea").read_bytes()
    with pytest.raises(SystemExit, match=message):
        driver.main([run, str(folder / "in"), str(folder / "out"), "--summary", str(folder / name)])
    assert not list((folder / "out").glob("*.csv")) and (folder / "in" / "broken.hea").read_bytes() == before


def test_a_summary_in_the_output_folder_is_no_answer_and_no_answer_overwrites_it(folder, run):
    write_record(folder / "in", "table", fake_ecg(np.random.default_rng(0), 2))
    assert (
        driver.main([run, str(folder / "in"), str(folder / "out"), "--summary", str(folder / "out" / "table.csv")]) == 1
    )
    assert [*table(folder / "out" / "table.csv")["record"]] == list(NAMES)
    assert "its answer would be" in (folder / "out" / SKIPPED).read_text()


def test_columns_of_the_summary_are_unique_and_never_empty():
    plain = ClassSet("x", ("1", "2", "3", "4", "5"), ("A", "A", "C", "", ""), ("one", "one", "", "", "record"),
                     tuple((code,) for code in "12345"), ((),) * 5)  # fmt: skip
    assert diagnosis_columns(plain) == ["one (1)", "one (2)", "C", "4", "record (5)"]
    for name in ("cinc2020", "cinc2021", "cpsc2018"):
        columns = diagnosis_columns(load_class_set(name))
        assert len({*columns, "record", "diagnoses"}) == len(columns) + 2 and all(columns)


def test_a_folder_whose_name_is_not_utf8(folder, run, capsys):
    odd = os.fsdecode(os.fsencode(folder) + b"/caf\xe9")
    os.rename(folder / "in", odd)
    os.mkdir(f"{odd}/sub_\udcff")
    for ending in (".hea", ".mat"):
        shutil.copy(f"{odd}/a/R0{ending}", f"{odd}/sub_\udcff/R0{ending}")
    out = f"{odd}_out"
    assert driver.main([run, odd, out, "--summary", f"{odd}_s.csv"]) == 1
    printed = capsys.readouterr().out  # strict, as a terminal: it takes no half characters
    assert "6 recordings classified into " in printed and "caf\\udce9_out, 1 skipped" in printed
    assert sorted(os.listdir(out)) == [ANSWERED_BY, "R2.csv", "a", "b", SKIPPED, "sub_\\udcff", 'z, "quoted".csv']
    assert "sub_\\udcff/R0" in set(table(f"{odd}_s.csv")["record"])
    os.unlink(f"{odd}/broken.hea")
    evaluate_12ECG_score(odd, out)


def test_a_header_in_capitals_is_a_recording_and_a_segment_is_none(folder, run):
    (folder / "in" / "a" / "R0.hea").rename(folder / "in" / "a" / "R0.HEA")
    rng = np.random.default_rng(1)
    for name in ("M_1", "M_2"):
        write_record(folder / "in", name, fake_ecg(rng, 2))
    (folder / "in" / "M.hea").write_text("M/2 12 500 2000\nM_1 1000\nM_2 1000\n#Dx: 426783006\n")
    (folder / "in" / "broken.hea").unlink()
    assert driver.main([run, str(folder / "in"), str(folder / "out")]) == 0
    files = {file.relative_to(folder / "out").as_posix() for file in (folder / "out").rglob("*.csv")}
    assert files == {f"{name}.csv" for name in (*FILES, "M")}
    evaluate_12ECG_score(folder / "in", folder / "out")


def test_two_places_of_one_answer_through_a_link_in_the_output_folder(folder, run):
    (folder / "out").mkdir()
    (folder / "out" / "b").mkdir()
    (folder / "out" / "a").symlink_to("b")  # then a/R1.csv is b/R1.csv
    assert driver.main([run, str(folder / "in"), str(folder / "out")]) == 1
    with open(folder / "out" / SKIPPED, newline="", encoding="utf-8") as lines:
        reasons = {row["record"]: row["reason"] for row in csv.DictReader(lines)}
    assert "that of another record" in reasons["b/R1"]


def test_a_tilde_is_the_home_folder_and_an_empty_path_is_refused(folder, run, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder / "in")
    assert driver.main([run, "~/in", "~/out", "--summary=~/s.csv"]) == 1
    assert (folder / "s.csv").exists() and (folder / "out" / "R0.csv").exists() and not (folder / "in" / "~").exists()
    for arguments in (["", "~/out"], ["~/in", ""], ["~/in", "~/out", "--summary="]):
        with pytest.raises(SystemExit) as caught:
            driver.main(arguments)
        assert caught.value.code == 2 and "the path is empty" in capsys.readouterr().err


def test_help_begins_with_examples_of_the_flags_that_most_need(capsys):
    with pytest.raises(SystemExit) as caught:
        driver.main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for example in ("IN OUT", "RUN IN OUT", "IN OUT --summary table.csv", "IN OUT --skip_existing"):
        assert re.search(rf"python driver.py {example} ", text)
    for flag in ("--strict", "--cuda", "--workers"):
        assert flag in text
