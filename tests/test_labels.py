"""data/labels.py against the official tables, read here by other means."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from data.labels import CLASS_SETS, CLINICAL_ALIASES, TABLES, ClassSet, diagnosis_table, load_class_set

PVC_ELSEWHERE, PVC, VPB = "164884008", "427172004", "17338001"


def table_rows(name):
    with open(TABLES / name, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name, year, n_columns, n_codes", [("cinc2020", 2020, 24, 27), ("cinc2021", 2021, 26, 30)])
def test_scored_sets_follow_the_official_tables(name, year, n_columns, n_codes):
    classes = load_class_set(name)
    assert len(classes) == n_columns == len(set(classes.codes))
    rows = table_rows(f"dx_mapping_scored_{year}.csv")
    key = "SNOMED CT Code" if year == 2020 else "SNOMEDCTCode"
    assert sorted(code for group in classes.members for code in group) == sorted(row[key] for row in rows)
    assert len(rows) == n_codes
    by_code = {row[key]: row for row in rows}
    for code, abbreviation, text, members in zip(classes.codes, classes.abbreviations, classes.names, classes.members):
        assert members[0] == code and by_code[code]["Abbreviation"] == abbreviation
        assert text == " / ".join(by_code[member]["Dx"] for member in members)
        notes = {by_code[member]["Notes"].rstrip(".") for member in members}
        assert len(notes) == 1 and ("same diagnosis" in notes.pop()) == (len(members) == 2)
    header = (TABLES / f"weights_{year}.csv").read_text().split("\n")[0].split(",")[1:]
    heads = [column.split("|")[0] for column in header]
    assert [code for code in heads if code in classes.codes] == list(classes.codes)


def test_equivalent_codes_are_one_column():
    classes = load_class_set("cinc2020")
    column = classes.codes.index(PVC)
    for dx in ([PVC], [VPB], [VPB, PVC], (code for code in (VPB, "999"))):
        target = classes.encode(dx)
        assert target.dtype == np.float32 and target[column] == 1 and target.sum() == 1
    assert classes.encode([]).sum() == classes.encode(["164873001", "Unknown"]).sum() == 0
    with pytest.raises(ValueError, match="not the string '427172004'"):
        classes.encode(PVC)


@pytest.mark.parametrize("name", ["cinc2020", "cinc2021"])
def test_training_aliases_are_targets_but_not_scored(name):
    classes = load_class_set(name)
    y_scored = classes.encode_all([[PVC_ELSEWHERE], [VPB], []])
    y_taught = classes.encode_all([[PVC_ELSEWHERE], [VPB], []], training=True)
    assert y_scored.shape == y_taught.shape == (3, len(classes))
    column = classes.column(PVC)
    np.testing.assert_array_equal(y_scored[:, column], [0, 1, 0])
    np.testing.assert_array_equal(y_taught[:, column], [1, 1, 0])
    assert y_taught.sum() == 2 and classes.column(PVC_ELSEWHERE) is None
    known = diagnosis_table()
    assert all(code in known for codes in CLINICAL_ALIASES.values() for code in codes)
    assert not {c for group in classes.training_aliases for c in group} & {
        c for group in classes.members for c in group
    }


def test_columns_by_any_name():
    classes = load_class_set("cinc2020")
    for words, code in (
        (("59118001", "RBBB", "crbbb", "Complete Right Bundle Branch Block"), "713427006"),
        (("Normal", "NSR", "sinus rhythm", " 426783006 "), "426783006"),
        (("i-avb", "IAVB"), "270492004"),
        (("SVPB", "PAC", "63593006"), "284470004"),
        (("pvc", "VPB"), PVC),
    ):
        assert [classes.column(word) for word in words] == [classes.codes.index(code)] * len(words)
    assert classes.column("STD") is classes.column("") is classes.column("429622005") is None
    assert load_class_set("cinc2021").column("LBBB") == load_class_set("cinc2021").column("CLBBB") == 4


def test_first_phase_classes():
    classes = load_class_set("cpsc2018")
    assert classes.codes == ("AF", "I-AVB", "LBBB", "Normal", "RBBB", "PAC", "PVC", "STD", "STE")
    snomed = [
        "164889003",
        "270492004",
        "164909002",
        "426783006",
        "59118001",
        "284470004",
        "164884008",
        "429622005",
        "164931005",
    ]
    np.testing.assert_array_equal(classes.encode_all([[code] for code in snomed]), np.eye(9))
    np.testing.assert_array_equal(classes.encode_all([[code] for code in classes.codes]), np.eye(9))
    assert [classes.column(code.lower()) for code in classes.codes] == list(range(9))
    assert classes.column("713427006") == 4 and classes.column("63593006") == 5 and classes.column(VPB) == 6


def test_set_of_all_that_occurs():
    classes = load_class_set("dset", [["59118001", "426783006"], [], ["Unknown"], ("164873001", "59118001", "4711")])
    assert classes.codes == ("164873001", "426783006", "4711", "59118001")
    assert classes.abbreviations == ("LVH", "NSR", "", "RBBB") and classes.names[2] == ""
    np.testing.assert_array_equal(classes.encode(["4711"], training=True), [0, 0, 1, 0])
    with pytest.raises(ValueError, match="needs the diagnoses"):
        load_class_set("dset")
    with pytest.raises(ValueError, match="no recording has a diagnosis"):
        load_class_set("dset", [[], ["Unknown"]])


def test_users_own_set(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(
        "Code, Name, Abbreviation, Equivalents\n164889003,any fibrillation,, 282825002 | 426749004\n164934002,,T!,\n"
    )
    classes = load_class_set(file)
    assert classes.codes == ("164889003", "164934002") and classes.members[0] == ("164889003", "282825002", "426749004")
    assert classes.names == ("any fibrillation", "t wave abnormal") and classes.abbreviations == ("AF", "T!")
    np.testing.assert_array_equal(classes.encode(["426749004", "427084000"]), [1, 0])
    file.write_text("code\n1\n2\n")
    assert load_class_set(str(file)).codes == ("1", "2")


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "line 1: the columns"),
        ("name\nx\n", "line 1: the columns"),
        ("code,colour\n1,red\n", "colour"),
        ("code,code\n1,2\n", "line 1"),
        ("code\n", "lists no classes"),
        ("code,name\n1\n", "line 2: as many fields"),
        ("code\n1,2\n", "line 2: as many fields"),
        ("code\n1\n2\n1\n", "line 4: .*used before: '1'"),
        ("code,equivalents\n1,\n2,1\n", "line 3: .*'2|1'"),
        ("code,name\n,x\n", "line 2: the code is empty"),
    ],
)
def test_faults_of_a_users_set_are_named(tmp_path, text, fault):
    file = tmp_path / "mine.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=fault) as caught:
        load_class_set(file)
    assert str(file) in str(caught.value)


def test_unknown_sets(tmp_path):
    with pytest.raises(ValueError, match="'cinc2019'.*cinc2020, cinc2021, cpsc2018, dset"):
        load_class_set("cinc2019")
    with pytest.raises(ValueError, match="does not exist"):
        load_class_set(tmp_path / "none.csv")


@pytest.mark.parametrize("name", CLASS_SETS)
def test_stored_sets_come_back_the_same(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the tables are found from any working directory
    classes = load_class_set(name, [["426783006", "4711"]])
    again = ClassSet.from_dict(json.loads(json.dumps(classes.to_dict())))
    assert again == classes and hash(again) == hash(classes) and again.column("Normal") == classes.column("426783006")


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"codes": "AF"}, "list of strings"),
        ({"codes": ["1", 2]}, "list of strings"),
        ({"extra": 1}, "exactly the keys"),
        ({"name": None}, "name of a class set"),
        ({"members": [["1"]]}, "1 members"),
        ({"members": 3}, "members is 3"),
        ({"members": [["1"], ["3"]]}, "'2' is not among"),
        ({"members": [["1"], ["2", "1"]]}, "code '1' stands for two"),
        ({"training_aliases": [["2"], []]}, "code '2' stands for two"),
    ],
)
def test_damaged_stored_sets_are_refused(change, fault):
    stored = {
        "name": "x",
        "codes": ["1", "2"],
        "abbreviations": ["a", "b"],
        "names": ["", ""],
        "members": [["1"], ["2"]],
        "training_aliases": [[], []],
    }
    assert ClassSet.from_dict(stored).codes == ("1", "2")
    with pytest.raises(ValueError, match=fault):
        ClassSet.from_dict(stored | change)
    with pytest.raises(ValueError, match="exactly the keys"):
        ClassSet.from_dict({key: value for key, value in stored.items() if key != "names"})
    with pytest.raises(ValueError, match="no classes"):
        ClassSet.from_dict({key: [] for key in stored} | {"name": "x"})


def test_readme_stands_beside_the_tables():
    assert "BSD 2-clause" in (Path(TABLES) / "README.md").read_text()
