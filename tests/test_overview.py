"""What is told at the start of a training, and which trainings do not start at all."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from data.dataset import Dataset
from data.labels import load_class_set
from data.metadata import read_metadata
from data.overview import check_labels, outside_lines, overview, rare_class_lines, source_table
from data.rates import one_rate_only
from data.records import Record

AF, SINUS, IAVB, UNSCORED = "164889003", "426783006", "270492004", "55827005"


def dataset(names, dx, class_set=None, metadata=None, duplicates=()):
    cache = SimpleNamespace(
        names=names, dx=dx, duplicates=list(duplicates), sources=[name.rpartition("/")[0] for name in names]
    )
    cache = type("Cache", (SimpleNamespace,), {"__len__": lambda self: len(self.names)})(**vars(cache))
    class_set = class_set or load_class_set("cinc2020")
    targets = class_set.encode_all(dx, training=True)
    y_true = class_set.encode_all(dx) > 0
    metadata = metadata or read_metadata(None, names, duplicates)
    return Dataset(cache, y_true, targets, np.ones_like(targets), np.zeros((len(names), 0)), metadata)


def test_one_line_by_source_and_one_for_all(tmp_path):
    names = ["g/A", "g/B", "ptb-xl/x/C", "ptb-xl/x/D", "E"]
    (tmp_path / "m.csv").write_text("record,patient_id\nC,p\nD,p\n")
    data = dataset(names, [[AF], [], [SINUS], [UNSCORED], ["4711"]], metadata=read_metadata(tmp_path / "m.csv", names))
    assert [line.split() for line in source_table(data.cache, data.metadata, data.targets)] == [
        ["source", "recordings", "with", "a", "label", "with", "metadata", "patients"],
        [".", "1", "0", "0", "1"],
        ["g", "2", "1", "0", "2"],
        ["ptb-xl/x", "2", "1", "2", "1"],
        ["all", "5", "2", "2", "4"],
    ]
    table = source_table(data.cache, data.metadata, data.targets)
    assert len({len(line) for line in table}) == 1
    without = [line.split() for line in source_table(data.cache, data.metadata, None)]
    assert without[0] == ["source", "recordings", "with", "metadata", "patients"] and without[-1] == [
        "all",
        "5",
        "2",
        "4",
    ]


def test_many_sources_are_put_together():
    names = [f"records500/{i:05d}/R{i}_{k}" for i in range(20) for k in range(2)] + ["own/a/X"]
    data = dataset(names, [[AF]] * 41)
    rows = [line.split()[:2] for line in source_table(data.cache, data.metadata, data.targets)]
    assert rows[1:] == [["own", "1"], ["records500", "40"], ["all", "41"]]
    names = [f"h{i:02d}/R" for i in range(30)] + [f"h{i:02d}/S" for i in range(5)]
    data = dataset(names, [[AF]] * 35)
    rows = [line.split() for line in source_table(data.cache, data.metadata, data.targets)]
    assert (
        len(rows) == 1 + 12 + 1
        and ["(19", "others)", "19", "19", "0", "19"] in rows
        and ["h04", "2", "2", "0", "2"] in rows
    )
    assert rows[-1] == ["all", "35", "35", "0", "35"]


def test_rare_classes_are_named():
    class_set = load_class_set("dset", [["a", "b", "c"]])
    train, valid = np.zeros((9, 3)), np.zeros((9, 3))
    train[:5, 0] = train[:4, 1] = train[:9, 2] = 1
    valid[:5, 0] = valid[:5, 1] = 1
    assert rare_class_lines(train, valid, class_set) == [
        "not learned, for fewer than 5 training recordings have them: b (4)",
        "not measured, for fewer than 5 validation recordings have them: c (0)",
    ]
    assert rare_class_lines(np.ones((6, 3)), np.repeat([[1], [0]], [5, 1], 0) * np.ones((6, 3)), class_set) == []
    (line,) = rare_class_lines(np.ones((5, 3)), np.ones((5, 3)), class_set)
    assert line.startswith("AUROC and AUPRC cannot be computed")


def test_codes_outside_the_class_set_are_counted_and_named():
    class_set = load_class_set("cinc2020")
    dx = [[AF, UNSCORED], [UNSCORED, "4711"], [UNSCORED, UNSCORED], [SINUS, "164884008"]]  # the last is an alias
    (line,) = outside_lines(dx, class_set)
    assert line == (
        "codes outside the class set cinc2020: 2: 55827005 (left ventricular high voltage) 3, "
        "4711 (not in the Challenge's tables) 1"
    )
    assert "cinc2020: 2, 1 of them learned beside" in outside_lines(dx, class_set, [UNSCORED])[0]
    assert outside_lines([[AF], []], class_set) == []
    many = outside_lines([[str(i)] for i in range(11)], class_set)[0]
    assert many.startswith("codes outside the class set cinc2020: 11: ") and many.endswith(", ...")


def test_the_overview_has_all_of_it():
    names = [f"a/R{i}" for i in range(20)]
    data = dataset(names, [[AF], [SINUS, UNSCORED]] * 10, duplicates=[("a/R0", "a/R7")])
    data = replace(data, auxiliary=(UNSCORED,))
    lines = overview(data, load_class_set("cinc2020"), np.arange(15), np.arange(15, 20))
    assert lines[1].split() == ["a", "20", "20", "0", "19"] and "a/R0 = a/R7" in lines[2]
    assert lines[3].startswith("not learned") and "AF" not in lines[3].replace("AFL", "") and "NSR" not in lines[3]
    assert "AF (2)" in lines[4] and lines[5].startswith("codes outside") and len(lines) == 6
    one_lead = overview(data, load_class_set("cinc2020"), np.arange(15), np.arange(15, 20), ["I"])
    assert one_lead[:6] == lines and "LAD, RAD" in one_lead[6]
    unlabelled = overview(data, None, np.arange(15), np.arange(15, 20))
    assert len(unlabelled) == 3 and "label" not in unlabelled[0]


@pytest.mark.parametrize(
    "dx, class_set, part, advice",
    [
        (
            [["426783006;59118001"]] * 4,
            "cinc2020",
            "2 recordings that train",
            r"426783006;59118001 \(not .* 4.*--classes dset",
        ),
        ([[]] * 4, "cinc2020", "train", "No header of these 4 recordings has a line '#Dx: CODE,CODE'"),
        ([[UNSCORED]] * 4, "cinc2020", "train", "55827005 .left ventricular high voltage. 4. Take all codes"),
        ([[AF], [AF], [UNSCORED], []], "cinc2020", "2 recordings that validate", "Choose another split"),
        ([[], [], [AF], [AF]], "cinc2020", "2 recordings that train", "Choose another split"),
        ([["Normal"]] * 4, "cinc2020", "train", "--classes cpsc2018 would find labels in 4 recordings$"),
        ([["164884008"]] * 4, "cinc2020", "validate", "164884008 .ventricular ectopics. 4"),  # taught, but never scored
    ],
)
def test_without_labels_there_is_no_training(dx, class_set, part, advice):
    class_set = load_class_set(class_set)
    data = dataset([f"R{i}" for i in range(4)], dx, class_set)
    with pytest.raises(
        ValueError, match=f"none of the .*{part} has a label of the class set cinc2020 .24 classes: IAVB, AF.*{advice}"
    ):
        check_labels(data, class_set, np.array([0, 1]), np.array([2, 3]))


def test_with_labels_on_both_sides_there_is():
    data = dataset(["A", "B"], [[AF], [IAVB]])
    check_labels(data, load_class_set("cinc2020"), np.array([0]), np.array([1]))


def records(*names):
    return [Record(name.rpartition("/")[2], f"/in/{name}", name.rpartition("/")[0]) for name in names]


@pytest.mark.parametrize(
    "names, kept",
    [
        (["records100/00000/00001_lr", "records500/00000/00001_hr"], ["records500/00000/00001_hr"]),
        (["p/records100/00000/00001_lr", "p/records500/00000/00001_hr"], ["p/records500/00000/00001_hr"]),
        (["p/00001_lr", "p/00001_hr"], ["p/00001_hr"]),
        (["lr/00001_lr", "hr/00001_hr"], ["hr/00001_hr"]),
        (["records100/00000/00001_lr"], ["records100/00000/00001_lr"]),
        (["a/00001_lr", "b/00001_hr"], ["a/00001_lr", "b/00001_hr"]),  # of two hospitals, perhaps
        (["p/A_lr", "p/A_hr", "p/B"], ["p/A_lr", "p/A_hr", "p/B"]),
        (
            ["records100/00000/00001_lr", "records500/00000/00002_hr"],
            ["records100/00000/00001_lr", "records500/00000/00002_hr"],
        ),
    ],
)
def test_of_two_rates_one_is_kept(names, kept):
    found, line = one_rate_only(records(*names))
    assert [record.name for record in found] == kept
    assert line == ("" if len(kept) == len(names) else line) and ("1 recordings at 100 Hz" in line) == (
        len(kept) < len(names)
    )


def test_the_other_rate_can_be_asked_for():
    both = records("records100/00000/00001_lr", "records500/00000/00001_hr", "records500/00000/00002_hr")
    found, line = one_rate_only(both, 100)
    assert [record.name for record in found] == ["records100/00000/00001_lr", "records500/00000/00002_hr"]
    assert "left out: 1 recordings at 500 Hz" in line and "--records 500" in line
    with pytest.raises(ValueError, match="--records 250: .* 100 and 500 Hz"):
        one_rate_only(both, 250)
