"""Trainings that were interrupted, changed in between or went wrong: what is resumed, and what is said."""

import errno
import fcntl
import json
import os
import shutil
import stat

import numpy as np
import pytest
import torch
from conftest import TINY_PRETRAINING, fake_ecg, history, write_record

import pretrain
import train
from data.locks import LOCK_FILE, locked
from engine.run_folder import RunFolder
from engine.script import TERMINATED, Terminated

TINY = tuple("--stem 8 --widths 8 8 --depths 1 1 --batch_size 8 --epochs 4 --no-plots".split())
DX = ("426783006", "164889003", "270492004")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """A folder of 24 recordings and the cache of them."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for i in range(24):
        write_record(folder / "in", f"R{i:02d}", fake_ecg(rng), dx=DX[i % 3])
    return folder


def arguments(recordings, run, *flags, sizes=TINY):
    folders = ("--input_folder", recordings / "in", "--cache", recordings / "cache", "--folder", run)
    return [*map(str, folders), *sizes, *flags]


def scores(run):
    return history(run / "history.csv")


@pytest.fixture(scope="module")
def stopped_once(recordings, tmp_path_factory):
    """A run folder of a training of four epochs that was stopped (SIGTERM) in its third."""
    run = RunFolder(tmp_path_factory.mktemp("stopped") / "run")
    train_one_epoch = train.Trainer.train_one_epoch

    def stop_in_the_third(self, *args):
        if (run / "history.csv").exists() and len(scores(run)) == 2:
            raise Terminated
        return train_one_epoch(self, *args)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as caught:
        patch.setattr(train.Trainer, "train_one_epoch", stop_in_the_third)
        train.main(arguments(recordings, run.path))
    assert caught.value.code == TERMINATED
    return run.path


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of the stopped run."""
    return RunFolder(shutil.copytree(stopped_once, tmp_path / "run"))


@pytest.fixture(scope="module")
def whole(recordings, tmp_path_factory):
    """The same training without interruption."""
    run = RunFolder(tmp_path_factory.mktemp("whole") / "run")
    train.main(arguments(recordings, run.path))
    return run


def test_a_nan_loss_names_its_recordings_and_keeps_the_best_model(recordings, tmp_path, monkeypatch):
    real = train.make_loss
    seen = []

    def make_loss(*args):
        loss_fn = real(*args)

        def poisoned(model, batch):
            seen.append([f"R{i:02d}" for i in batch.index])
            return loss_fn(model, batch) * (float("nan") if len(seen) == 4 else 1)  # two batches an epoch

        return poisoned

    monkeypatch.setattr(train, "make_loss", make_loss)
    with pytest.raises(SystemExit) as caught:
        train.main(arguments(recordings, tmp_path / "run"))
    text = str(caught.value)
    run = RunFolder(tmp_path / "run")
    assert "epoch 2: the loss or its gradient is NaN" in text
    assert text.endswith(f"The batch held {', '.join(seen[3])}") and len(seen) == 4
    weights = run.load("model.pth")["members"][0]
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    assert len(scores(run)) == 1 and not (run / "final_model.pth").exists()


@pytest.mark.parametrize("script, sizes", [(train, TINY), (pretrain, TINY_PRETRAINING)])
def test_two_trainings_do_not_mix_their_output(script, sizes, recordings, tmp_path):
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run").only_writer(), pytest.raises(SystemExit, match="in use"):
        script.main(arguments(recordings, tmp_path / "run", sizes=sizes))
    assert not list((tmp_path / "run").iterdir())


def another_version(run):
    run.write_json("config.json", {**json.loads((run / "config.json").read_text()), "version": 3})


def another_checkpoint(**changes):
    """A function that puts these values into a run's checkpoint."""
    return lambda run: run.save("checkpoint.pth", run.load("checkpoint.pth") | changes)


def weights_for_a_checkpoint(run):
    run.save("checkpoint.pth", run.load("model.pth"))


def torn_checkpoint(run):
    (run / "checkpoint.pth").write_bytes((run / "checkpoint.pth").read_bytes()[:-1000])


@pytest.mark.parametrize(
    "change, message",
    [
        (another_version, "has version 3; this software reads versions 1 and 2"),
        (another_checkpoint(scaler=1), "other things than a checkpoint of this version"),
        (another_checkpoint(history=[{"epoch": 1}, 5]), "not a table"),
        (another_checkpoint(best="high"), "no best score"),
        (another_checkpoint(trainer={"model": {}}), "not a checkpoint of this training"),
        (weights_for_a_checkpoint, "other things than a checkpoint of this version"),
        (torn_checkpoint, "damaged"),
        (another_checkpoint(recordings="0" * 64), "name other recordings"),
    ],
)
def test_what_cannot_be_resumed_is_refused_by_name(change, message, stopped, recordings):
    change(stopped)
    before = (stopped / "history.csv").read_text()
    with pytest.raises(SystemExit, match=message):
        train.main(arguments(recordings, stopped.path, "--resume"))
    assert (stopped / "history.csv").read_text() == before


def test_a_folder_whose_name_is_not_utf8_trains(recordings, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")
    shutil.copytree(recordings / "in", folder)
    train.main(["--input_folder", folder, "--cache", str(tmp_path / "cache"), "--folder", str(tmp_path / "run"), *TINY])
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training"]["input_folder"].endswith("\\udcff\\udcfe")


@pytest.mark.parametrize("main", [train.main, pretrain.main])
def test_nothing_readable_is_one_line_and_a_list(main, tmp_path):
    for i in range(5):
        write_record(tmp_path / "in", f"B{i}", fake_ecg(np.random.default_rng(i)))
        (tmp_path / "in" / f"B{i}.mat").write_bytes(b"")
    with pytest.raises(SystemExit, match="none of 5 recordings could be read: 5 times .*is empty.*skipped_records.csv"):
        main(
            ["--input_folder", str(tmp_path / "in"), "--cache", str(tmp_path / "c"), "--folder", str(tmp_path / "run")]
        )
    listed = next((tmp_path / "run").glob("*skipped_records.csv")).read_text().splitlines()
    assert len(listed) == 6


def test_resuming_takes_its_flags_from_the_run(stopped, whole):
    train.main(["--folder", f"{stopped.path}/", "--resume", "--no-plots"])
    assert scores(stopped) == scores(whole)
    assert json.loads((stopped / "config.json").read_text())["training"]["widths"] == [8, 8]


def test_a_finished_run_is_extended(whole, tmp_path, capsys):
    run = RunFolder(shutil.copytree(whole.path, tmp_path / "run"))
    first = scores(run)
    train.main(["--folder", str(run.path), "--resume", "--no-plots"])
    assert "Nothing to resume" in capsys.readouterr().out and scores(run) == first
    train.main(["--folder", str(run.path), "--resume", "--no-plots", "--epochs", "6"])
    assert len(scores(run)) == 6 and scores(run)[:4] == first
    assert json.loads((run / "config.json").read_text())["training"]["epochs"] == 6
    with pytest.raises(SystemExit, match="6 epochs already, more than --epochs 5"):
        train.main(["--folder", str(run.path), "--resume", "--no-plots", "--epochs", "5"])


def test_recordings_that_moved_are_the_same_and_changed_ones_are_not(recordings, stopped, tmp_path):
    shutil.copytree(recordings / "in", tmp_path / "elsewhere" / "hospital")
    header = tmp_path / "elsewhere" / "hospital" / "R05.hea"
    text = header.read_text()
    header.write_text(text.replace("#Dx: ", "#Dx: 427084000,"))
    moved = ["--folder", str(stopped.path), "--resume", "--no-plots", "--input_folder", str(tmp_path / "elsewhere")]
    with pytest.raises(SystemExit, match="name other recordings, or other diagnoses"):
        train.main(moved)
    header.write_text(text)
    train.main(moved)
    assert len(scores(stopped)) == 4


def test_a_checkpoint_of_the_version_before_is_resumed(stopped, whole):
    state = stopped.load("checkpoint.pth")
    ema = state["trainer"].pop("ema")
    state["trainer"]["ema_updates"] = int(ema.pop("n_averaged")) - 1
    state["trainer"]["ema"] = {name.removeprefix("module."): value for name, value in ema.items()}
    del state["version"], state["recordings"]
    state["settings"]["hide_context"] = state["settings"].pop("hide_covariates")
    stopped.save("checkpoint.pth", state)
    train.main(["--folder", str(stopped.path), "--resume", "--no-plots"])
    assert scores(stopped) == scores(whole)


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ("--encoder_lr_factor", "0.1"),
            "--encoder_lr_factor needs --init RUN, or a --folder with a pre-trained encoder",
        ),
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
def test_an_interrupted_overwriting_leaves_nothing_to_resume(number, stopped, recordings, monkeypatch):
    """Were the old run still there in part, --resume would take it for the new one."""
    stopped.write_bytes("final_model.pth", b"of the old run")
    remove_file = RunFolder.remove
    removed = []

    def remove(self, name):
        if len(removed) == number:
            raise Terminated
        removed.append(name)
        remove_file(self, name)

    monkeypatch.setattr(RunFolder, "remove", remove)
    with pytest.raises(SystemExit):
        train.main(arguments(recordings, stopped.path, "--overwrite"))
    monkeypatch.undo()
    names = {file.name for file in stopped.path.iterdir()}
    assert len(removed) == number and "config.json" in names
    assert number == 0 or "final_model.pth" not in names
    assert number < 2 or "checkpoint.pth" not in names


def test_overwriting_leaves_no_predictions_of_the_old_run(recordings, tmp_path):
    """A run without validation writes none: an ensemble or a student would take the old ones for its own."""
    run = tmp_path / "run"
    train.main(arguments(recordings, run, "--epochs", "1"))
    assert (run / "valid_predictions.csv").exists()
    train.main(arguments(recordings, run, "--epochs", "1", "--valid_split", "0", "--overwrite"))
    assert (run / "final_model.pth").exists() and not (run / "valid_predictions.csv").exists()


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
