"""Run folders that are wrong on purpose: refused at once, no code of theirs is executed, nothing large is allocated."""

import json
import os
import pickle
import zipfile

import pytest
import torch

from data.labels import load_class_set
from data.preprocess import SignalConfig
from engine.run_folder import RunError, RunFolder
from engine.trained_run import load_run, make_config
from models import DEFAULT_MODEL, ENCODERS, HEAD, build_model

pytestmark = pytest.mark.usefixtures("bounded_memory")
SIZES = {**DEFAULT_MODEL, "stem": 8, "widths": [8, 8], "depths": [1, 1]}


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path)
    members = [{"model": SIZES, "seq_length": 250}]
    run.write_json(
        "config.json",
        make_config(
            SignalConfig(), load_class_set("cinc2020"), {"rule": "thresholds"}, members, {}, {"frequency": [0.1] * 24}
        ),
    )
    run.save("model.pth", {"members": [build_model(SIZES).state_dict()]})
    load_run(run.path)
    return run


def change(run, path, value):
    config = json.loads((run / "config.json").read_text())
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    run.write_text("config.json", json.dumps(config))


MODEL = ("members", 0, "model")
ENORMOUS = [
    ((*MODEL, "stem"), 10**9),
    ((*MODEL, "widths"), [10**9, 10**9]),
    ((*MODEL, "widths"), [30000] * 8),
    ((*MODEL, "depths"), [10**6, 1]),
    ((*MODEL, "depths"), [250, 250]),
    ((*MODEL, "widths"), [8] * 10**6),
    ((*MODEL, "kernel"), 10**9 + 1),
    ((*MODEL, "n_leads"), 10**9),
    ((*MODEL, "n_classes"), 10**9),
    (("members", 0, "seq_length"), 10**9),
    (("members",), [{"model": SIZES, "seq_length": 250}] * 10**4),
    (MODEL, {"encoder": "transformer", "width": 10**6, "depth": 10}),
    (MODEL, {"encoder": "transformer", "depth": 10**6}),
]
NONSENSE = [
    ((*MODEL, "stem"), 0),
    ((*MODEL, "stem"), True),
    ((*MODEL, "stem"), "8"),
    ((*MODEL, "widths"), []),
    ((*MODEL, "dropout"), -1),
    ((*MODEL, "dropout"), 1e400),
    ((*MODEL, "kernel"), 4),
    ((*MODEL, "encoder"), ["xresnet"]),
    ((*MODEL, "surprise"), 1),
    (MODEL, None),
    ((*MODEL, "dropout"), 10**400),
    (("signal", "clip"), 10**400),
    (("signal", "sample_freq"), 10**400),
    (("training",), [1]),
    (("version",), "9" * 10**6),
    (("surprise" * 10**5,), 1),
    (("members",), {}),
    (("members", 0, "seq_length"), "250"),
    (("members", 0, "seq_length"), 2.5),
    (("members", 0, "overlap"), -1),
    (("members", 0, "overlap"), 250),
    (("members", 0, "overlap"), 1.5),
    (("members", 0, "overlap"), "0"),
    (("members", 0, "overlap"), True),
    (("members", 0, "overlap"), None),
    (("members", 0, "surprise"), 1),
    (("version",), 3),
    (("format",), "other"),
    (("signal", "clip"), float("nan")),
    (("signal", "leads"), ["I", "II"]),
    (("classes", "codes", 0), "1,2"),
    (("classes", "codes", 0), "1\n2"),
    (("classes", "codes"), []),
    (("data", "frequency"), [2.0] * 24),
]


@pytest.mark.parametrize("path, value", ENORMOUS + NONSENSE, ids=lambda value: str(value)[:60])
def test_configurations_beyond_the_limits_are_refused_at_once(path, value, run):
    change(run, path, value)
    with pytest.raises(RunError, match="config.json") as caught:
        load_run(run.path)
    assert len(str(caught.value)) < 1000


def test_no_network_is_built_that_the_file_of_weights_cannot_fill(run, monkeypatch):
    """A hundred networks of 160 MB each, announced in a few kilobytes."""
    change(run, ("members",), [{"model": {**SIZES, "widths": [8, 4000]}, "seq_length": 250}] * 100)
    monkeypatch.setattr("engine.trained_run.build_model", lambda config: pytest.fail("it was built"))
    with pytest.raises(RunError, match="model.pth is too small for the"):
        load_run(run.path)


@pytest.mark.parametrize("name", ["config.json", "model.pth"])
@pytest.mark.parametrize(
    "put",
    [os.mkfifo, os.mkdir, lambda file: os.symlink("/dev/zero", file), lambda file: os.symlink(file.name, file)],
    ids=["pipe", "folder", "endless device", "link to itself"],
)
def test_what_is_no_file_is_neither_waited_for_nor_read(name, put, run):
    (run / name).unlink()
    put(run / name)
    with pytest.raises(RunError, match=f"{name} is not a regular file"):
        load_run(run.path)


def test_deeply_nested_json_is_refused(run):
    (run / "config.json").write_text("[" * 10**6)
    with pytest.raises(RunError, match="config.json"):
        load_run(run.path)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_default_networks_are_within_the_limits(encoder, tmp_path):
    sizes = {"encoder": encoder, **ENCODERS[encoder][1], **HEAD}
    make_config(
        SignalConfig(),
        load_class_set("cinc2020"),
        {"rule": "thresholds"},
        [{"model": sizes, "seq_length": 4096}],
        {},
        {},
    )


def test_weights_that_are_no_numbers_are_refused(run):
    states = run.load("model.pth")["members"]
    states[0]["head.thresholds"][3] = float("nan")
    run.save("model.pth", {"members": states})
    with pytest.raises(RunError, match="NaN"):
        load_run(run.path)


def test_a_checkpoint_that_unpacks_to_more_than_itself_is_refused(run):
    with zipfile.ZipFile(run / "model.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**8)
    with pytest.raises(RunError, match="unpacks to 100000000 bytes"):
        load_run(run.path)


class Attack:
    def __reduce__(self):
        return print, ("code from a file was executed",)


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write_bytes(pickle.dumps(Attack())),
        lambda file: torch.save({"members": [Attack()]}, file),
        lambda file: torch.save({"members": [Attack()]}, file, _use_new_zipfile_serialization=False),
    ],
)
def test_code_in_a_checkpoint_is_refused(write, run, capsys):
    write(run / "model.pth")
    with pytest.raises(RunError, match="model.pth") as caught:
        load_run(run.path)
    assert "executed" not in capsys.readouterr().out and "weights_only" not in str(caught.value)  # no advice to run it
