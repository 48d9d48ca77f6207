"""Trainings that were interrupted, changed in between or went wrong: what is gone on with, and what is said."""

import csv
import errno
import fcntl
import json
import os
import shutil
import stat

import numpy as np
import pytest
import torch
from conftest import TINY_PRETRAINING, fake_ecg, write_record

import pretrain
import train
from data.locks import LOCK_FILE, locked
from data.metadata import read_metadata
from engine.run_folder import RunFolder
from engine.script import TERMINATED, Terminated

TINY = ("--stem", "8", "--widths", "8", "8", "--depths", "1", "1", "--batch_size", "8", "--epochs", "4")
DX = ("426783006", "164889003", "270492004")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder of 24 recordings and the cache of them."""
    folder, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for i in range(24):
        write_record(folder / "in", f"R{i:02d}", fake_ecg(rng), dx=DX[i % 3])
    return folder


def arguments(recordings, run, *flags, sizes=TINY):
    return [
        "--input_folder",
        str(recordings / "in"),
        "--cache",
        str(recordings / "cache"),
        "--folder",
        str(run),
        *sizes,
        *flags,
    ]


def scores(run):
    """Rows of a run's history.csv without its timing."""
    with open(run / "history.csv", newline="") as lines:
        return [
            {name: value for name, value in row.items() if name not in ("seconds", "records_per_second")}
            for row in csv.DictReader(lines)
        ]


def stop_before_epoch(monkeypatch, epoch, error):
    """Let a training end with `error` before it trains this epoch (from 1)."""
    real, left = train.Trainer.train_one_epoch, [epoch]

    def train_one_epoch(self, *args):
        left[0] -= 1
        if left[0] == 0:
            raise error
        return real(self, *args)

    monkeypatch.setattr("engine.loop.Trainer.train_one_epoch", train_one_epoch)


@pytest.fixture
def stopped(recordings, tmp_path, monkeypatch):
    """A run that was stopped in its third epoch."""
    stop_before_epoch(monkeypatch, 3, Terminated())
    with pytest.raises(SystemExit) as caught:
        train.main(arguments(recordings, tmp_path / "run"))
    monkeypatch.undo()
    assert caught.value.code == TERMINATED
    return RunFolder(tmp_path / "run")


def test_a_nan_loss_names_its_recordings_and_keeps_the_best_model(recordings, tmp_path, monkeypatch):
    real, seen = train.make_loss, []

    def make_loss(*args):
        loss_fn = real(*args)

        def poisoned(model, batch):
            seen.append([f"R{i:02d}" for i in batch.index])
            return loss_fn(model, batch) * (float("nan") if len(seen) == 4 else 1)  # two batches an epoch

        return poisoned

    monkeypatch.setattr(train, "make_loss", make_loss)
    with pytest.raises(SystemExit) as caught:
        train.main(arguments(recordings, tmp_path / "run"))
    text, run = str(caught.value), RunFolder(tmp_path / "run")
    assert (
        "epoch 2: the loss or its gradient is NaN" in text
        and text.endswith(f"The batch held {', '.join(seen[3])}")
        and len(seen) == 4
    )
    weights = run.load("model.pth")["members"][0]
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert len((run / "history.csv").read_text().splitlines()) == 2 and not (run / "final_model.pth").exists()


@pytest.mark.parametrize("script, sizes", [(train, TINY), (pretrain, TINY_PRETRAINING)])
def test_two_trainings_do_not_mix_their_output(script, sizes, recordings, tmp_path):
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run").only_writer(), pytest.raises(SystemExit, match="in use"):
        script.main(arguments(recordings, tmp_path / "run", sizes=sizes))
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda run: run.write_json("config.json", {**json.loads((run / "config.json").read_text()), "version": 3}),
            "has version 3; this software reads versions 1 and 2",
        ),
        (
            lambda run: run.save("checkpoint.pth", run.load("checkpoint.pth") | {"scaler": 1}),
            "other things than a checkpoint of this version",
        ),
        (
            lambda run: run.save("checkpoint.pth", run.load("checkpoint.pth") | {"history": [{"epoch": 1}, 5]}),
            "not a table",
        ),
        (lambda run: run.save("checkpoint.pth", run.load("checkpoint.pth") | {"best": "high"}), "no best score"),
        (
            lambda run: run.save("checkpoint.pth", run.load("checkpoint.pth") | {"trainer": {"model": {}}}),
            "not a checkpoint of this training",
        ),
        (
            lambda run: run.save("checkpoint.pth", run.load("model.pth")),
            "other things than a checkpoint of this version",
        ),
        (lambda run: (run / "checkpoint.pth").write_bytes((run / "checkpoint.pth").read_bytes()[:-1000]), "damaged"),
        (
            lambda run: run.save("checkpoint.pth", run.load("checkpoint.pth") | {"recordings": "0" * 64}),
            "name other recordings",
        ),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused_by_name(change, message, stopped, recordings):
    change(stopped)
    before = (stopped / "history.csv").read_text()
    with pytest.raises(SystemExit, match=message):
        train.main(arguments(recordings, stopped.path, "--resume"))
    assert (stopped / "history.csv").read_text() == before


def test_resuming_takes_its_flags_from_the_run(recordings, stopped, tmp_path):
    train.main(arguments(recordings, tmp_path / "whole"))
    train.main(["--folder", f"{stopped.path}/", "--resume"])
    assert scores(stopped) == scores(RunFolder(tmp_path / "whole"))
    assert json.loads((stopped / "config.json").read_text())["training"]["widths"] == [8, 8]


def test_a_finished_run_is_extended(recordings, tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    train.main(arguments(recordings, run.path))
    first = scores(run)
    train.main(["--folder", str(run.path), "--resume"])
    assert "Nothing to resume" in capsys.readouterr().out and scores(run) == first
    train.main(["--folder", str(run.path), "--resume", "--epochs", "6"])
    assert len(scores(run)) == 6 and scores(run)[:4] == first
    assert json.loads((run / "config.json").read_text())["training"]["epochs"] == 6
    with pytest.raises(SystemExit, match="6 epochs already, more than --epochs 5"):
        train.main(["--folder", str(run.path), "--resume", "--epochs", "5"])


def test_recordings_that_moved_are_the_same_and_changed_ones_are_not(recordings, stopped, tmp_path):
    shutil.copytree(recordings / "in", tmp_path / "elsewhere" / "hospital")
    header = tmp_path / "elsewhere" / "hospital" / "R05.hea"
    text = header.read_text()
    header.write_text(text.replace("#Dx: ", "#Dx: 427084000,"))
    moved = ["--folder", str(stopped.path), "--resume", "--input_folder", str(tmp_path / "elsewhere")]
    with pytest.raises(SystemExit, match="name other recordings, or other diagnoses"):
        train.main(moved)
    header.write_text(text)
    train.main(moved)
    assert len(scores(stopped)) == 4


def test_a_checkpoint_of_the_version_before_is_gone_on_with(recordings, stopped, tmp_path):
    train.main(arguments(recordings, tmp_path / "whole"))
    state = stopped.load("checkpoint.pth")
    ema = state["trainer"].pop("ema")
    state["trainer"]["ema_updates"] = int(ema.pop("n_averaged")) - 1
    state["trainer"]["ema"] = {name.removeprefix("module."): value for name, value in ema.items()}
    del state["version"], state["recordings"]
    state["settings"]["hide_context"] = state["settings"].pop("hide_covariates")
    stopped.save("checkpoint.pth", state)
    train.main(["--folder", str(stopped.path), "--resume"])
    assert scores(stopped) == scores(RunFolder(tmp_path / "whole"))


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--encoder_lr_factor", "0.1"), "--encoder_lr_factor needs a --folder with a pre-trained encoder"),
        (("--n_folds", "4"), "--n_folds 4 needs --fold"),
        (("--fold", "1", "--hold_out", "a"), "--fold 1 and --hold_out a are different ways"),
        (("--lead_dropout", "7"), "--lead_dropout 7.0 is not between 0 and 1"),
        (("--batch_size", "1"), "--batch_size 1"),
        (("--seq_length", "1"), "--seq_length 1"),
        (("--kernel", "5", "--width", "8"), "--width is not a size of --encoder xresnet"),
        (("--resume", "--overwrite"), "--overwrite begins anew"),
        (("--resume",), "--resume needs --folder"),
    ],
)
def test_flags_that_are_ignored_or_contradict_are_refused(flags, message, recordings, capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(["--input_folder", str(recordings / "in"), *flags])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_a_checkpoint_of_another_architecture_says_so(stopped, recordings):
    with pytest.raises(SystemExit, match=r"started with other settings: --widths \[8, 16\] \(was \[8, 8\]\)"):
        train.main(arguments(recordings, stopped.path, "--resume", "--widths", "8", "16"))


@pytest.mark.parametrize("number", range(5))
def test_an_interrupted_overwriting_leaves_nothing_to_go_on_with(number, stopped, recordings, monkeypatch):
    """Were the old run still there in part, --resume would take it for the new one."""
    stopped.write_bytes("final_model.pth", b"of the old run")
    real, left = RunFolder.remove, [number]

    def remove(self, name):
        if left[0] == 0:
            raise Terminated
        left[0] -= 1
        real(self, name)

    monkeypatch.setattr(RunFolder, "remove", remove)
    with pytest.raises(SystemExit):
        train.main(arguments(recordings, stopped.path, "--overwrite"))
    monkeypatch.undo()
    names = {file.name for file in stopped.path.iterdir()}
    assert (
        "config.json" in names
        and (number == 0 or "final_model.pth" not in names)
        and (number < 2 or "checkpoint.pth" not in names)
    )


def test_strict_training_stops_and_lists_what_is_wrong(recordings, tmp_path, capsys):
    signal = fake_ecg(np.random.default_rng(1))
    signal[8] = 0
    write_record(tmp_path / "in", "flat", signal)
    write_record(tmp_path / "in", "good", fake_ecg(np.random.default_rng(2)))
    (tmp_path / "in" / "bad.hea").write_text("nonsense")
    with pytest.raises(SystemExit, match="--strict: 1 recordings skipped, 1 warnings"):
        train.main(arguments(tmp_path, tmp_path / "run", "--strict"))
    said = capsys.readouterr().out
    assert "flat: flat: V3" in said and "bad.hea, line 1" in said and not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("refused, left", [((), []), (("folder",), [LOCK_FILE]), (("folder", "file"), [LOCK_FILE])])
def test_where_folders_cannot_be_locked_a_file_is(refused, left, tmp_path, monkeypatch):
    """NFS locks only what is open for writing; some file systems lock nothing, and then two writers cannot notice
    each other.
    """
    real = fcntl.flock

    def flock(descriptor, how):
        if ("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file") in refused:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor, how)

    monkeypatch.setattr("fcntl.flock", flock)
    for _ in range(2):  # it is free again afterwards
        with locked(tmp_path) as first, locked(tmp_path) as second:
            assert first and second == (len(refused) == 2)
    assert [file.name for file in tmp_path.iterdir()] == left


@pytest.mark.parametrize(
    "text, message",
    [
        ("record,patient_id\nR00," + "x" * 200_000, "field larger"),
        ("ecg_id,patient_id\nR00,5\n", "line 2"),
        ("name,patient_id\nR00,5\n", "needs a column that names the recording"),
        ("", "needs a column that names the recording"),
        (b"record\n\xff\n", "utf-8"),
        ("record,strat_fold\nR00," + "9" * 30, "is not a whole number"),
    ],
)
def test_metadata_that_cannot_be_read_are_a_clear_error(text, message, tmp_path):
    (tmp_path / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"metadata.csv.*{message}"):
        read_metadata(tmp_path / "metadata.csv", ["R00"])
