"""PTB-XL as it is downloaded: statements, patients, folds, and its benchmark's protocol."""

import csv
import importlib.util
import os
from argparse import Namespace

import numpy as np
import pytest
from conftest import PTB_XL_TABLE, fake_ecg, write_ptb_xl, write_record

from data.formats import ptbxl
from data.inputs import read_input
from data.labels import load_class_set
from data.metadata import read_metadata
from data.metadata_files import find_table
from data.preprocess import SignalConfig
from data.rates import one_rate_only
from data.records import RecordError, find_records, find_with_table_above, read_header
from data.statements import PREFIX, diagnosis_codes, statements
from engine.distributed import ProcessGroup
from engine.recordings import open_recordings, read_own_metadata
from engine.run_folder import RunFolder
from predict import find_record

CONFIG = SignalConfig()
TINY = tuple("--stem 8 --widths 8 8 --depths 1 1 --epochs 1 --batch_size 8 --no-plots".split())


def rows_of(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install {package}")


@pytest.fixture(scope="module")
def ptb_xl(tmp_path_factory):
    """PTB-XL as downloaded, of 40 shipped recordings: both rates, headers without age, sex and diagnoses."""
    folder = tmp_path_factory.mktemp("download") / "ptb-xl-1.0.3"
    write_ptb_xl(folder)
    return folder


def test_statements_give_the_codes_of_the_challenge(sample):
    """The headers of the shipped recordings are the Challenge's."""
    for row in rows_of(PTB_XL_TABLE):
        header = read_header(sample / "ptb-xl" / f"HR{int(row['ecg_id']):05d}")
        codes = diagnosis_codes(eval(row["scp_codes"], {}), row["heart_axis"])
        assert {code for code in codes if not code.startswith(PREFIX)} == set(header.dx), row


def test_the_benchmarks_tasks():
    sizes = {"all": 71, "diagnostic": 44, "subdiagnostic": 23, "superdiagnostic": 5, "form": 19, "rhythm": 12}
    sets = {task: load_class_set(f"ptbxl_{task}") for task in sizes}
    assert {task: len(classes) for task, classes in sets.items()} == sizes
    assert set(sets["superdiagnostic"].codes) == {"NORM", "MI", "STTC", "CD", "HYP"}
    for fine, coarse in (("diagnostic", "subdiagnostic"), ("subdiagnostic", "superdiagnostic")):
        for code in sets[fine].codes:  # whatever has a fine class has a coarse one
            members = [member for member in sets[fine].members[sets[fine].column(code)] if member.startswith(PREFIX)]
            assert len(np.unique(sets[coarse].encode_all([[member] for member in members]), axis=0)) == 1
            assert sets[coarse].encode(members).sum() == 1
    assert (
        sets["superdiagnostic"].encode(["scp:ASMI", "scp:SR"]).tolist()
        == (np.array(sets["superdiagnostic"].codes) == "MI").astype(float).tolist()
    )


def test_ptb_xl_reads_as_the_challenges_copy(ptb_xl, sample):
    records = find_records(ptb_xl)
    kept, line = one_rate_only(records)
    assert len(records) == 80 and len(kept) == 40 and "40 recordings at 100 Hz" in line
    for record in kept:
        signal, covariates, header, warnings = read_input(record, CONFIG)
        theirs = read_input(sample / "ptb-xl" / f"HR{record.record_id[:5]}", CONFIG)
        assert np.array_equal(signal, theirs[0]) and np.array_equal(covariates, theirs[1])
        assert {code for code in header.dx if not code.startswith(PREFIX)} == set(theirs[2].dx)
        assert header.sex == theirs[2].sex and not warnings


def test_ptb_xl_patients_and_folds(ptb_xl):
    for folder in (ptb_xl, ptb_xl.parent):
        assert find_table(folder) == ptb_xl / "ptbxl_database.csv"
    names = [record.name for record in one_rate_only(find_records(ptb_xl.parent))[0]]
    metadata = read_metadata(find_table(ptb_xl.parent), names)
    assert metadata.found.all() and not metadata.warnings
    expected = {f"{int(row['ecg_id']):05d}_hr": int(row["strat_fold"]) for row in rows_of(PTB_XL_TABLE)[:40]}
    assert {name.rpartition("/")[2]: fold for name, fold in zip(names, metadata.folds.tolist())} == expected


@pytest.mark.parametrize("part", ["records500", "records500/00000"])
def test_a_part_of_ptb_xl_has_the_facts_of_the_whole(part, ptb_xl):
    """As predict.py finds them for a single recording."""
    whole = {record.path: record.facts for record in find_records(ptb_xl)}
    records, table = find_with_table_above(ptb_xl / part)
    assert table == str(ptb_xl / "ptbxl_database.csv") and find_with_table_above(ptb_xl)[1] is None
    assert records and all(record.facts is not None for record in records)
    for record in records:
        assert record.facts == whole[record.path] == find_record(f"{record.path}.hea").facts
    metadata = read_metadata(table, [record.name for record in records])
    assert metadata.found.all()


def test_other_tables_above_change_nothing(tmp_path, monkeypatch):
    write_ptb_xl(tmp_path / "a" / "b")
    table = tmp_path / "a" / "b" / "ptbxl_database.csv"
    own = find_records(tmp_path / "a" / "b" / "records500")
    for further in (table.read_text().replace("NORM", "SR"), "ecg_id,age\n1,50\n"):
        (tmp_path / "a" / "ptbxl_database.csv").write_text(further)
        assert find_records(tmp_path / "a" / "b" / "records500") == own  # the nearest counts
    table.unlink()
    (tmp_path / "a" / "ptbxl_database.csv").write_text("ecg_id,scp_codes\n99999,\"{'NORM': 100.0}\"\n")
    for name in ("exams.csv", "REFERENCE.csv", "Diagnostics.xlsx", "record_list.csv"):
        (tmp_path / "a" / name).write_bytes(b"\xff\xfe nothing\n")
    records, told = find_with_table_above(tmp_path / "a" / "b" / "records500")
    assert told is None and [record._replace(facts=None) for record in own] == records
    (tmp_path / "a" / "ptbxl_database.csv").write_text("not a table")
    write_record(tmp_path / "a" / "wfdb", "R1", fake_ecg(np.random.default_rng(0)))
    assert [record.name for record in find_records(tmp_path / "a" / "wfdb")] == ["R1"]
    real = os.listdir

    def listdir(folder):
        if os.fspath(folder) == str(tmp_path / "a"):
            raise PermissionError(folder)
        return real(folder)

    monkeypatch.setattr("os.listdir", listdir)
    assert find_records(tmp_path / "a" / "b" / "records500") == records


def test_training_on_a_part_of_ptb_xl_knows_its_patients(ptb_xl, tmp_path, capsys):
    flags = dict(n_total=None, seed=1, cache=tmp_path / "cache", workers=1, strict=False, records=500)
    args = Namespace(input_folder=str(ptb_xl / "records500"), metadata=None, explicit=set(), **flags)
    cache = open_recordings(args, CONFIG, RunFolder(tmp_path / "run"), ProcessGroup())
    assert args.metadata == str(ptb_xl / "ptbxl_database.csv") and args.metadata in capsys.readouterr().out
    assert read_own_metadata(args, cache).found.all() and all(cache.dx)


def test_ptb_xl_tables_with_faults(tmp_path):
    file = tmp_path / "ptbxl_database.csv"
    file.write_text("ecg_id,age\n1,50\n")
    with pytest.raises(RecordError, match="line 1: .*scp_codes"):
        ptbxl.read_table(file)
    file.write_text("ecg_id,scp_codes\n1,\"{'NORM': 100.0}\"\n2,__import__('os')\n")
    with pytest.raises(RecordError, match="line 3"):
        ptbxl.read_table(file)
    file.write_text("ecg_id,age,sex,scp_codes\n1,300.0,1,\"{'NORM': 100.0, 'NEW': 0.0}\"\n")
    facts = ptbxl.read_table(file)["00001"]
    assert np.isnan(facts.age) and facts.sex == "Female" and "NEW" in facts.warnings[0]
    assert facts.dx == ("426783006", "scp:NORM", "scp:NEW")


@pytest.mark.slow
def test_ptb_xl_protocol(ptb_xl, tmp_path, run_script):
    """Train on it with validation and test fold, then classify it: the test fold has the same probabilities."""
    folds = sorted({row["strat_fold"] for row in rows_of(ptb_xl / "ptbxl_database.csv")})
    done = run_script(
        *("train.py", "--input_folder", ptb_xl, "--classes", "ptbxl_superdiagnostic", "--folder", "run"),
        *("--valid_fold", folds[0], "--test_fold", folds[1], *TINY),
        cwd=tmp_path,
    )
    tested = rows_of(tmp_path / "run" / "test_predictions.csv")
    table = rows_of(ptb_xl / "ptbxl_database.csv")
    in_fold = {f"{int(row['ecg_id']):05d}_hr" for row in table if row["strat_fold"] == folds[1]}
    listed = {
        part: {line.rpartition("/")[2] for line in (tmp_path / "run" / f"{part}_ids.txt").read_text().split()}
        for part in ("train", "valid", "test")
    }
    assert listed["test"] <= in_fold and {row["record"].rpartition("/")[2] for row in tested} == listed["test"]
    assert not in_fold & (listed["train"] | listed["valid"])
    assert f"Test, {len(tested)} recordings:" in done.stdout and (tmp_path / "run" / "test_scores.json").exists()
    run_script("driver.py", "run", ptb_xl, "out", cwd=tmp_path)
    answers = next((tmp_path / "out").rglob(f"{tested[0]['record'].rpartition('/')[2]}.csv")).read_text().split("\n")
    assert np.allclose([float(tested[0][c]) for c in answers[1].split(",")], np.array(answers[3].split(","), float))


def test_own_table_of_statements_is_compared(tmp_path):
    columns = ["", "description", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass"]
    lines = [",".join(columns)]
    for acronym, own in statements().items():
        flags = [bool(own.superclass), own.is_form, own.is_rhythm]
        texts = ["1.0" if flag else "" for flag in flags]
        lines.append(",".join([acronym, own.name, *texts, own.superclass, own.subclass]))
    file = tmp_path / "scp_statements.csv"
    file.write_text("\n".join(lines) + "\n")
    assert ptbxl.compare_statements(str(file)) == []
    file.write_text("\n".join(lines).replace(",MI,AMI", ",MI,IMI") + "\nXYZ,odd,,,,,\n")
    assert len(ptbxl.compare_statements(str(file))) == 1 + sum(s.subclass == "AMI" for s in statements().values())
