"""A table of patients belongs to the recordings that it names, however it spells them; what it does not say is told."""

from types import SimpleNamespace

import numpy as np
import pytest

from data.metadata import NO_FOLD, read_metadata
from data.metadata_files import find_table
from engine.recordings import read_own_metadata


@pytest.fixture
def table(tmp_path):
    """Function that writes a table, and reads what it says about recordings."""

    def read(text, names, duplicates=()):
        (tmp_path / "meta.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_metadata(tmp_path / "meta.csv", names, duplicates)

    return read


def test_metadata_is_matched_by_name_and_the_unknown_stay_alone(table):
    meta = table("ecg_id,patient_id,strat_fold,heart_axis\n7,p1,3,\n8,p1,4,LAD\n", ["x/HR00007", "HR00008", "x/E00001"])
    assert meta.patients.tolist() == ["p1", "p1", "x/E00001"] and meta.folds.tolist() == [3, 4, NO_FOLD]
    assert meta.axis_unknown.tolist() == [True, False, False] and meta.found.tolist() == [True, True, False]


def test_without_a_table_everybody_is_a_patient():
    meta = read_metadata(None, ["a/R00", "b/R00"])
    assert meta.patients.tolist() == ["a/R00", "b/R00"] and not meta.found.any() and meta.warnings == ()
    assert meta.folds.tolist() == [NO_FOLD, NO_FOLD]


def test_fold_0_is_a_fold(table):
    meta = table("record,strat_fold\nR00,0\nR01,0.0\nR02,\nR03,1\n./R00,0\n", ["R00", "R01", "R02", "R03", "R04"])
    assert meta.folds.tolist() == [0, 0, NO_FOLD, 1, NO_FOLD]


@pytest.mark.parametrize(
    "column", ["record", " Record", "RECORD", "\ufeffrecord", "record_id", "Record Name", "filename"]
)
@pytest.mark.parametrize(
    "cell", ["R00", "R00.hea", "R00.mat", "R00.DAT", "./R00", "a/b/R00", "/x/y/a/b/R00.hea", "a\\b\\R00"]
)
def test_records_are_named_in_many_ways(column, cell, table):
    meta = table(f"{column},patient_id,strat_fold\n{cell},p1,2\n a/R01 ,p1,2\n", ["a/b/R00", "a/R01"])
    assert meta.patients.tolist() == ["p1", "p1"] and meta.folds.tolist() == [2, 2] and meta.warnings == ()


@pytest.mark.parametrize(
    "column", ["patient_id", " patient_id", "Patient_ID", "patient id", "Patient-ID", "subject_id"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_columns_are_written_in_many_ways(column, delimiter, line_end, table):
    lines = [["age", "record", column], ["50", "R00", "p1"], ["51", "R01", '"p1"'], []]
    meta = table(line_end.join(delimiter.join(line) for line in lines), ["R00", "R01"])
    assert meta.patients.tolist() == ["p1", "p1"]


PTB_XL = (
    "ecg_id,patient_id,age,report,strat_fold,heart_axis,filename_lr,filename_hr\n"
    '1,15709.0,56.0,"sinusrhythmus, sonst; gut",3,,records100/00000/00001_lr,records500/00000/00001_hr\n'
    "2,13243.0,19.0,x,2,LAD,records100/00000/00002_lr,records500/00000/00002_hr\n"
    "22001,15709.0,19.0,x,9,MID,records100/22000/22001_lr,records500/22000/22001_hr\n"
)


@pytest.mark.parametrize(
    "names",
    [
        ["HR00001", "HR00002", "HR22001"],
        ["ptb-xl/g1/HR00001", "ptb-xl/g1/HR00002", "ptb-xl/g22/HR22001"],
        ["records500/00000/00001_hr", "records500/00000/00002_hr", "records500/22000/22001_hr"],
        ["records100/00000/00001_lr", "records100/00000/00002_lr", "records100/22000/22001_lr"],
        ["00000/00001_hr", "00000/00002_hr", "22000/22001_hr"],
        ["ptbxl/1.0.3/records500/00000/00001_hr", "x/00000/00002_hr", "all/22001_lr"],
        ["00001_hr", "00002_hr", "22001_hr"],
        ["1", "2", "22001"],
        ["00001", "00002", "22001"],
        ["HR00001", "00002_lr", "x/22001"],
    ],
)
def test_ptb_xls_own_table_fits_every_edition(names, table):
    meta = table(PTB_XL, names)
    assert meta.patients.tolist() == ["15709.0", "13243.0", "15709.0"] and meta.folds.tolist() == [3, 2, 9]
    assert meta.axis_unknown.tolist() == [True, False, False] and meta.warnings == ()


def test_both_rates_of_an_ecg_have_one_row(table):
    meta = table(PTB_XL, ["records100/00000/00001_lr", "records500/00000/00001_hr", "HR00001"])
    assert set(meta.patients) == {"15709.0"}


def test_the_folder_decides_between_equal_names(table):
    text = "record,patient_id\na/R00,p1\nb/R00,p2\nR00,p3\n"
    assert table(text, ["R00", "b/R00", "a/R00"]).patients.tolist() == ["p3", "p2", "p1"]


def test_an_ambiguous_name_is_an_error_but_for_copies(table):
    text = "record,patient_id\nR00,p1\n"
    with pytest.raises(ValueError, match="line 2: 'R00' may mean a/R00 or b/R00; write the name with its folder"):
        table(text, ["a/R00", "b/R00"])
    meta = table(text, ["a/R00", "b/R00"], [("a/R00", "b/R00")])
    assert meta.patients.tolist() == ["p1", "p1"]


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "None", "NA", "<NA>", " "])
def test_what_the_table_does_not_know_is_unknown(missing, table):
    meta = table(
        f"record,patient_id,strat_fold,heart_axis\nR00,{missing},{missing},{missing}\nR01,p,1,MID\n", ["R00", "R01"]
    )
    assert meta.patients.tolist() == ["R00", "p"] and meta.folds.tolist() == [NO_FOLD, 1]
    assert meta.axis_unknown.tolist() == [True, False] and meta.found.all()


@pytest.mark.parametrize(
    "second, fault",
    [
        ("./R00.hea,p2,1", "lines 2 and 3: a/R00 has patient_id 'p1' and 'p2'"),
        ("R00,p1,2", "lines 2 and 3: a/R00 has strat_fold 1 and 2"),
        ("R00,p1,1", None),
        ("R00,,1.0", None),
    ],
)
def test_two_rows_of_one_recording_must_agree(second, fault, table):
    text = f"record,patient_id,strat_fold\na/R00,p1,1\n{second}\n"
    if fault is None:
        assert table(text, ["a/R00"]).patients.tolist() == ["p1"]
        return
    with pytest.raises(ValueError, match=fault):
        table(text, ["a/R00"])


@pytest.mark.parametrize(
    "text, fault",
    [
        (
            "record,patient_id\nX1,p\nX2,q\n",
            "none of its 2 rows .* 'X1', 'X2'; the recordings are e.g. 'a/R00', .*'record'",
        ),
        ("ecg_id,patient_id\n1,p\n", "none of its 1 rows .* 'ecg_id 1'; the recordings are e.g. 'a/R00'"),
        ("record,patient_id\n", "no rows"),
        ("record,pat\nR00,p\n", "needs a column .* patient_id, strat_fold, heart_axis; its columns are: record, pat"),
        ("name,patient_id\nR00,p\n", "line 1: needs a column that names the recording .*: name, patient_id"),
        ("record\nR00\n", "one of patient_id"),
        ("", "its columns are: none"),
        ("record,patient_id" + "x" * 200_000, "line 1: field larger"),
        ("record,patient_id,Patient_ID\nR00,p,q\n", "two columns 'patient_id'"),
        ("record;patient_id;a,record,patient_id\n", "columns may be separated by commas or semicolons"),
        ("record,patient_id\nR00,p,q\n", "line 2: has 3 fields for 2 columns"),
        ("record,patient_id\n,p\n", "line 2: the row does not name a recording"),
        ("record,strat_fold\nR00,x\n", "line 2: strat_fold 'x' is not a whole number"),
        ("record,strat_fold\nR00,1.5\n", "strat_fold '1.5' is not a whole number"),
        ("record,strat_fold\nR00,-1\n", "strat_fold '-1' is not a whole number"),
        ("record,strat_fold\nR00," + "9" * 30, "strat_fold '9{30}' is not a whole number"),
        ("record,patient_id\nR00," + "x" * 200_000, "line 2: field larger"),
        (b"record,patient_id\nR00,\xfc\n", "is not a text in UTF-8"),
        ("record,patient_id\nR00,p\n".encode("utf-16"), "is not a text in UTF-8"),
    ],
)
def test_what_cannot_be_used_is_a_clear_error(text, fault, table):
    with pytest.raises(ValueError, match=f"meta.csv.*{fault}"):
        table(text, ["a/R00", "a/R01", "b/R02", "b/R03"])


def test_few_matches_are_told_with_examples_of_both_sides(table):
    names = [f"a/R{i:02d}" for i in range(20)]
    rows = "".join(f"R{i:02d},p{i}\n" for i in range(17)) + "S01,q\nS02,q\n"
    (line,) = table("record,patient_id\n" + rows, names).warnings
    assert "a row for 17 of 20 recordings only" in line and "'a/R17', 'a/R18', 'a/R19'" in line
    assert "rows that name no recording: 'S01', 'S02'" in line
    assert table("record,patient_id\n" + rows + "R17,q\n", names).warnings == ()  # nine in ten


def test_a_table_without_patients_is_told(table):
    (line,) = table("record,strat_fold\nR00,1\n", ["R00"]).warnings
    assert "no column patient_id" in line


def test_copies_join_patients_as_far_as_the_links_reach(table):
    text = "record,patient_id\nA,p\nB,q\nC,q\nD,r\nE,s\n"
    names = ["A", "B", "C", "D", "E", "F"]
    meta = table(text, names, [("A", "B"), ("C", "D")])
    assert meta.patients.tolist() == ["p", "p", "p", "p", "s", "F"]
    assert meta.patient_ids.tolist() == ["p", "q", "q", "r", "s", "F"]
    assert table(text, names).patients.tolist() == meta.patient_ids.tolist()
    alone = read_metadata(None, names, [("B", "E", "F")])
    assert alone.patients.tolist() == ["A", "B", "C", "D", "B", "B"]


def test_joining_is_the_same_as_walking_from_patient_to_patient(tmp_path):
    """Against a plain search, on random links."""
    rng = np.random.default_rng(0)
    names = [f"R{i}" for i in range(200)]
    patient_of = rng.integers(0, 90, 200)
    (tmp_path / "m.csv").write_text(
        "record,patient_id\n" + "".join(f"{name},p{patient}\n" for name, patient in zip(names, patient_of))
    )
    places = rng.permutation(200)
    duplicates = [
        tuple(names[i] for i in places[k : k + 1 + n]) for k, n in zip(range(0, 60, 3), rng.integers(1, 3, 20))
    ]
    links = [{*group} for group in duplicates] + [
        {name for name, other in zip(names, patient_of) if other == patient} for patient in set(patient_of)
    ]
    joined = read_metadata(tmp_path / "m.csv", names, duplicates).patients
    for start in range(0, 200, 7):
        reached, todo = set(), {names[start]}
        while todo:
            reached |= todo
            todo = set().union(*(link for link in links if link & todo)) - reached
        assert {name for name, patient in zip(names, joined) if patient == joined[start]} == reached


def test_a_table_of_one_hospital_among_others_needs_no_warning(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("record,patient_id\n" + "".join(f"R{i},p{i}\n" for i in range(5)))
    names = [f"one/R{i}" for i in range(5)] + [f"other/S{i}" for i in range(20)]
    assert read_metadata(file, names).warnings == ()
    file.write_text(file.read_text() + "R99,p99\n")  # a row that names nothing: perhaps it is spelt otherwise
    assert "a row for 5 of 25 recordings only" in read_metadata(file, names).warnings[0]


@pytest.mark.parametrize("text", ["file,age,sex\nR00,50,M\n", "record,patient_id\nX9,p\n"])
def test_a_table_that_was_found_by_itself_says_so_where_it_cannot_be_used(text, tmp_path):
    (tmp_path / "metadata.csv").write_text(text)
    cache = SimpleNamespace(names=["R00"], duplicates=())
    args = SimpleNamespace(input_folder=str(tmp_path), metadata=str(find_table(tmp_path)), explicit=set())
    with pytest.raises(
        ValueError, match=r"metadata.csv.*found in or near the input folder .*another name.*--metadata FILE"
    ):
        read_own_metadata(args, cache)
    args.explicit = {"metadata"}
    with pytest.raises(ValueError, match="metadata.csv") as error:
        read_own_metadata(args, cache)
    assert "found in" not in str(error.value)
