"""Scores that look fine and are not: the official numbers where the official script gives some, with a warning."""

import os
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import plain_evaluator as plain
import pytest
from scored_folder import CODES, random_folder, write

import evaluate_12ECG_score as script
from data.labels import TABLES, diagnosis_table, load_class_set
from data.records import find_records
from engine.score_files import find_pairs

FIRST_PHASE = ["AF", "I-AVB", "LBBB", "Normal", "PAC", "PVC", "RBBB", "STD", "STE"]
CASES = Path(__file__).parent / "reference" / "evaluator_cases"


def score_text(folder, capsys, *flags):
    """(status, stdout, stderr) of the script."""
    status = script.main([str(folder / "labels"), str(folder / "outputs"), *map(str, flags)])
    return status, *capsys.readouterr()


def official(folder):
    """stdout of the script where the plain loops, which follow the official one, give the numbers."""
    expected = plain.evaluate(folder / "labels", folder / "outputs", TABLES / "weights_2020.csv")
    return script.scores_text(expected) + "\n"


def each_output(folder, change):
    for file in (folder / "outputs").iterdir():
        file.write_text(change(file.read_text()))


def each_label(folder, change):
    for file in (folder / "labels").iterdir():
        file.write_text(change(file.read_text()))


def changed_words(row, form):
    """Change of a line of an output, counted from 0: form(word) in place of each word."""

    def change(text):
        lines = text.split("\n")
        lines[row] = ",".join(form(word) for word in lines[row].split(","))
        return "\n".join(lines)

    return change


rename = partial(changed_words, 1)
decisions = partial(changed_words, 2)
scores = partial(changed_words, 3)


ABBREVIATION = {code: name for code, (name, _) in diagnosis_table().items()}


@pytest.mark.parametrize(
    "which, change, named",
    [
        ("outputs", rename(ABBREVIATION.get), "the labels have .*, the outputs IAVB, AF, AFL, ..."),
        ("outputs", rename("SNOMED_{}".format), "share no class"),
        ("outputs", lambda text: "", "no output file is well-formed"),
        ("outputs", lambda text: text.split("\n", 3)[3], "no output file is well-formed"),
        ("outputs", lambda text: text.replace("0.", "0,"), "no output file is well-formed"),
        ("outputs", lambda text: "<html>\nnot found\n</html>\n", "share no class"),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx:", text), "no label file has a diagnosis"),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx: Unknown", text), "no label file has a diagnosis"),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx: 164865005,I21.0", text), "the labels have 164865005, I21.0, "),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx: SNR", text), "the labels have SNR, the outputs 270492004, "),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx: AF", text), "the labels have AF, the outputs 270492004, "),
    ],
)
def test_outputs_and_labels_without_a_common_class_are_refused(tmp_path, capsys, which, change, named):
    random_folder(tmp_path, 8)
    {"outputs": each_output, "labels": each_label}[which](tmp_path, change)
    status, out, err = score_text(tmp_path, capsys, tmp_path / "scores.csv")
    assert status == 1 and out == "" and err.count("\n") == 1 and not (tmp_path / "scores.csv").exists()
    assert re.search(named, err), err


@pytest.mark.parametrize("kind", ["labels", "outputs"])
@pytest.mark.parametrize("mark", [";", " ; ", "|", "\t", " "])
def test_other_separators_get_the_official_numbers_and_a_remark(tmp_path, capsys, kind, mark):
    random_folder(tmp_path, 20)
    if kind == "labels":
        each_label(tmp_path, lambda text: re.sub("#Dx: (.*)", lambda dx: dx[0].replace(",", mark), text))
        remark = (
            r"diagnoses of the labels \(the first: '.*' in .*R000..\.hea\) are not SNOMED CT codes separated by commas"
        )
    else:
        each_output(tmp_path, lambda text: text.replace(",", mark))
        remark = "1 classes of the output files are not SNOMED CT codes separated by commas.*270492004"
    status, out, err = score_text(tmp_path, capsys)
    assert status == 0 and out == official(tmp_path) and re.search(remark, err), err


@pytest.mark.parametrize(
    "change, remark",
    [
        (
            decisions("{}.0".format),
            r"540 decisions \(the first: '.\.0' in .*csv\) are neither 0 nor 1: they count as 0",
        ),
        (decisions(lambda word: word.replace("1", "yes")), "decisions .*'yes' in .* are neither 0 nor 1"),
        (decisions(lambda word: word.replace("1", "")), r"decisions \(the first: '' in"),
        (decisions(lambda word: "0.7"), "540 decisions .* neither 0 nor 1"),
        (decisions(lambda word: "nan"), "540 decisions .* neither 0 nor 1"),
        (decisions(lambda word: "2"), "540 decisions .* neither 0 nor 1"),
        (decisions(lambda word: "0"), "every decision is 0: the scores that depend on decisions say nothing"),
        (decisions(lambda word: "True"), "every decision is 1"),
        (scores(lambda word: f"{100 * float(word):g}"), "the scores reach from .* to 100: they are not probabilities"),
        (scores(lambda word: f"{float(word) - 0.5}"), "the scores reach from -0.* not probabilities"),
        (scores(lambda word: "inf"), "the scores reach from inf to inf"),
        (scores(lambda word: "0.5"), "every score is 0.5: AUROC and AUPRC say nothing"),
        (scores(lambda word: f"{word}%"), r"540 scores \(the first: '.*%' in .*\) are not numbers: they count as 0"),
        (scores(lambda word: "NaN"), "540 scores .*'NaN' in .* are not numbers: they count as 0"),
        (scores(lambda word: ""), "540 scores .*'' in .* are not numbers"),
        (rename(lambda code: code if code != "426783006" else "SNR"), "426783006 .*recordings.*"),
        (rename('"{}"'.format), """27 classes of the output files are not SNOMED CT codes .*'"270492004"', """),
        (rename("{}.0".format), "27 classes of the output files are not SNOMED CT codes .*'270492004.0', "),
        (rename(lambda code: code if code != "426783006" else ""), "classes of the labels that no output file has"),
        (lambda text: "\ufeff" + text.split("\n", 1)[1], "no output file has, counted as negative: IAVB 270492004 "),
        (lambda text: text.split("\n", 1)[1], None),  # the line with the recording's name may be missing
        (lambda text: text.replace(",", " , ").replace("\n", "\r\n"), None),
        (decisions({"0": "False", "1": "T"}.get), None),
    ],
)
def test_strange_outputs_get_the_official_numbers_and_a_remark(tmp_path, capsys, change, remark):
    random_folder(tmp_path, 20)
    each_output(tmp_path, change)
    status, out, err = score_text(tmp_path, capsys)
    assert status == 0 and out == official(tmp_path)
    assert err == "" if remark is None else re.search(remark, err), err


def test_a_class_that_some_outputs_lack_is_named_with_its_recordings(tmp_path, capsys):
    for i, codes in enumerate((CODES, CODES, CODES[1:])):
        write(tmp_path, f"R{i}", CODES[:2], {}, codes=codes)
    write(tmp_path, "R3", ["164865005"], {}, codes=CODES[2:])  # of what they lack it has no label
    status, out, err = score_text(tmp_path, capsys)
    assert status == 0 and out == official(tmp_path)
    assert "recordings labelled so lack, counted as negative: IAVB 270492004 (1 of 3 recordings)\n" in err


def test_malformed_files_are_named_but_not_by_the_thousand(tmp_path, capsys):
    random_folder(tmp_path, 40)
    for i in range(30):
        (tmp_path / "outputs" / f"R{i:05d}.csv").write_text("#R\n")
    status, out, err = score_text(tmp_path, capsys)
    assert status == 0 and out == official(tmp_path)
    assert err.count("not a well-formed output file") == 10 and "... and 20 more files" in err


def test_outputs_without_a_label_are_said_to_be_left_out(tmp_path, capsys):
    labels, outputs = random_folder(tmp_path, 5)
    shutil.copy(outputs / "R00001.csv", outputs / "extra.csv")
    (outputs / "a").mkdir()
    shutil.copy(outputs / "R00001.csv", outputs / "a" / "R00001.csv")
    for name in ("skipped_records.csv", "summary.csv"):  # as driver.py writes them
        (outputs / name).write_text("record,stage,reason\n")
    (outputs / "pipe.csv").symlink_to("/dev/zero")
    expected = script.evaluate_12ECG_score(labels, outputs)
    _, out, err = score_text(tmp_path, capsys)
    assert "2 output files without a label file are left out: a/R00001.csv, extra.csv\n" in err
    shutil.rmtree(outputs / "a")
    (outputs / "extra.csv").unlink()
    np.testing.assert_equal(script.evaluate_12ECG_score(labels, outputs), expected)


def test_outputs_of_another_year_are_remarked_upon(tmp_path, capsys):
    for i, code in enumerate(("426783006", "164889003", "164909002")):
        codes = load_class_set("cinc2021").codes
        write(tmp_path, f"R{i}", [code], {code: 0.9, "733534002": 0.9 * (i == 2)}, codes=codes)
    _, by_2021, err = score_text(tmp_path, capsys, "--year", 2021)
    assert err == "" and by_2021.endswith("1.000\n")
    status, out, err = score_text(tmp_path, capsys)
    assert (
        status == 0 and out == official(tmp_path) and "no output file has, counted as negative: LBBB 164909002" in err
    )
    assert "scored in 2021 and not in 2020: " in err and "--year 2021 scores them" in err
    for file in (tmp_path / "outputs").iterdir():
        file.unlink()
    for i in range(3):  # codes of 2020 by the matrix of 2021, which has them all
        write(tmp_path, f"R{i}", ["426783006"], {"426783006": 0.9})
    assert score_text(tmp_path, capsys, "--year", 2021)[2] == ""


def test_first_phase_scores_of_every_class(tmp_path, run_script):
    case = CASES / "cpsc9_1"
    run_script("evaluate_12ECG_score.py", case / "labels", case / "outputs", "s.csv", "c.csv", cwd=tmp_path)
    lines = [line.split(",") for line in (tmp_path / "c.csv").read_text().split("\n")]
    assert [line[0] for line in lines] == ["Classes", "AUROC", "AUPRC", "F-measure"] and lines[0][1:] == FIRST_PHASE
    rows = [plain.read_output(file, [(n,) for n in FIRST_PHASE]) for file in sorted((case / "outputs").iterdir())]
    labels = [file.read_text() for file in sorted((case / "labels").iterdir())]
    dx = [re.search("#Dx: (.*)", text)[1].split(",") for text in labels]
    y_true = [[name in words for name in FIRST_PHASE] for words in dx]
    expected = plain.first_phase_scores_by_class(y_true, [row[0] for row in rows], [row[1] for row in rows])
    for line, name in zip(lines[1:], ("auroc", "auprc", "f_measure")):
        assert line[1:] == [f"{value:.3f}" for value in expected[name]]
    means = [float(value) for value in (tmp_path / "s.csv").read_text().split("\n")[1].split("|")]
    assert np.mean([float(value) for value in lines[1][1:]]) == pytest.approx(means[0], abs=1e-3)


def test_a_recording_is_what_it_is_for_the_driver(tmp_path, capsys):
    """Headers in capitals are labels, segments of a multi-segment recording are not."""
    labels, outputs = random_folder(tmp_path, 6)
    (labels / "R00000.hea").rename(labels / "R00000.HEA")
    (labels / "R00001.hea").write_text("R00001/2 12 500 5000\nR00001_1 2500\nR00001_2 2500\n#Dx: 426783006\n")
    for i in (1, 2):
        (labels / f"R00001_{i}.hea").write_text(f"R00001_{i} 12 500 2500\n")
    (labels / "R00002.hea").write_text("# made by hand\nR00002/3 12 500 5000\nlayout 0\nx 5000\n~ 1\n#Dx: 426783006\n")
    for name in ("layout", "x"):
        (labels / f"{name}.hea").write_text(f"{name} 12 500 0\n#Dx: 164889003\n")
    records = find_records(labels)
    pairs = find_pairs(labels, outputs)
    assert [record.record_id for record in records] == [Path(path).stem for path in pairs.outputs]
    assert len(records) == 6 and pairs.dx[1] == ["426783006"]
    assert score_text(tmp_path, capsys)[0] == 0


def test_folders_whose_names_are_not_utf8_and_a_tilde(tmp_path, run_script, monkeypatch):
    random_folder(tmp_path / "home", 5)
    expected = official(tmp_path / "home")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(tmp_path / "home", odd)
    done = run_script("evaluate_12ECG_score.py", f"{odd}/labels", f"{odd}/outputs", cwd=tmp_path)
    assert done.stdout == expected
    os.unlink(f"{odd}/outputs/R00003.csv")
    done = run_script("evaluate_12ECG_score.py", f"{odd}/labels", f"{odd}/outputs", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "R00003.csv: no output file" in done.stderr and "Traceback" not in done.stderr
    random_folder(tmp_path / "home", 5)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert script.main(["~/labels", "~/outputs", "~/s.csv"]) == 0
    assert (tmp_path / "home" / "s.csv").read_text() + "\n" == expected
    for arguments in (["", "~/outputs"], ["~/labels", ""]):
        with pytest.raises(SystemExit):
            script.main(arguments)


def test_empty_folders_are_errors(tmp_path, capsys):
    (tmp_path / "labels").mkdir()
    (tmp_path / "outputs").mkdir()
    assert score_text(tmp_path, capsys)[0] == 1
    write(tmp_path, "R0", ["426783006"], {})
    (tmp_path / "outputs" / "R0.csv").unlink()
    status, out, err = score_text(tmp_path, capsys)
    assert status == 1 and out == "" and "R0.csv: no output file for the label file" in err
