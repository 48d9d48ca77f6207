"""train.py --config repeats a run with its flags; --tensorboard logs what history.csv says."""

import json
import sys

import pytest
from conftest import ROOT, TINY_PRETRAINING, history

import pretrain
import train
from data.labels import load_class_set
from engine.run_folder import RunFolder

BRIEF = tuple("--stem 8 --widths 8 8 --depths 1 1 --epochs 2 --batch_size 8 --no-plots".split())
SETTINGS = "--fold 2 --n_folds 4 --lr 0.003 --no-covariates --no-bf16 --classes cinc2021 --hide_covariates 0 --stem 8"


@pytest.fixture
def saved(untrained_run, sample):
    """A function that makes a run whose config.json has the settings of a command line, and returns that file."""

    def make(*flags, **changes):
        args, _ = train.parse_args([*flags, "--input_folder", str(sample)])
        run = untrained_run(load_class_set("cinc2020"))
        config = run.read_config()
        run.write_json("config.json", {**config, "training": args.settings() | changes})
        return run / "config.json"

    return make


def repeated(file, *flags):
    return train.parse_args(["--config", str(file), *flags])[0]


def test_all_flags_are_repeated(saved, sample):
    file = saved(*SETTINGS.split())
    args = repeated(file)
    assert args.settings() == json.loads(file.read_text())["training"]
    assert (args.fold, args.n_folds, args.lr, args.covariates, args.stem) == (2, 4, 0.003, False, 8)
    assert args.input_folder == str(sample) and args.folder is None
    assert {"fold", "lr", "covariates"} <= args.explicit and "batch_size" not in args.explicit


def test_flags_of_the_command_line_win(saved):
    args = repeated(saved(*SETTINGS.split()), "--lr", "0.01", "--covariates", "--epochs", "3", "--fold", "1")
    assert (args.lr, args.covariates, args.epochs, args.fold) == (0.01, True, 3, 1)
    assert args.classes == "cinc2021" and args.stem == 8
    assert args.n_folds == 5  # the whole way of splitting is replaced, so that no two ways meet


def test_another_split_replaces_that_of_the_run(saved):
    args = repeated(saved(*SETTINGS.split()), "--hold_out", "georgia")
    assert args.hold_out == "georgia" and args.fold is None


def test_another_encoder_brings_its_own_sizes(saved):
    args = repeated(saved(*SETTINGS.split()), "--encoder", "transformer")
    assert args.encoder == "transformer" and args.stem is None and args.lr == 0.003
    assert repeated(saved("--encoder", "transformer", "--width", "40")).width == 40


def test_metadata_found_by_themselves_belong_to_their_folder(saved, sample, tmp_path):
    file = saved()
    assert repeated(file).metadata == str(sample / "metadata.csv")
    assert repeated(file, "--input_folder", str(tmp_path)).metadata is None
    (tmp_path / "other.csv").write_text("record\n")
    assert repeated(saved("--metadata", str(tmp_path / "other.csv")), "--input_folder", str(tmp_path)).metadata


@pytest.mark.parametrize(
    "table, is_found",
    [
        ("data/ptb-xl/ptbxl_database.csv", True),
        ("data/ptb-xl/1.0.3/exams.csv", True),  # one folder below
        ("data/record_list.csv", True),  # above: a part of a data set was named
        ("data/ptb-xl/own.csv", False),
        ("data/ptb-xl/1.0.3/metadata.csv", False),  # which is looked for in the folder alone
        ("data/metadata.csv", False),
        ("data/ptb-xl/1.0.3/a/exams.csv", False),
        ("elsewhere/ptbxl_database.csv", False),
    ],
)
def test_tables_of_data_sets_belong_to_their_folder_too(saved, tmp_path, table, is_found):
    (tmp_path / table).parent.mkdir(parents=True)
    (tmp_path / table).write_text("record,patient_id\n")
    file = saved(input_folder=f"{tmp_path}/data/ptb-xl/", metadata=str(tmp_path / table))
    (tmp_path / "new").mkdir()
    kept = repeated(file, "--input_folder", str(tmp_path / "new")).metadata
    assert kept == (None if is_found else str(tmp_path / table))


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("epochs", "many", "invalid int value: 'many'"),
        ("epochs", -1, "--epochs must be positive"),
        ("lr", "nan", "--lr must be positive"),
        ("encoder", "mamba", "invalid choice: 'mamba'"),
        ("freeze_encoder", "x", "ignored explicit argument 'x'"),
        ("lr", {"a": 1}, "invalid float value"),
    ],
)
def test_settings_are_checked_as_if_typed(saved, capsys, name, value, message):
    file = saved(**{name: value})
    with pytest.raises(SystemExit):
        repeated(file)
    assert message in capsys.readouterr().err


def test_what_cannot_be_repeated_is_refused(saved, tmp_path, capsys):
    for file, message in [
        (tmp_path / "none.json", "is missing"),
        (tmp_path, "is not a regular file"),
        (ROOT / "mdl" / "ensemble" / "config.json", "is of an ensemble: repeat its members one by one"),
        (ROOT / "mdl" / "pretrain_config.json", "does not describe a run"),
    ]:
        with pytest.raises(SystemExit, match=message):
            train.main(["--config", str(file)])
    file = saved()
    with pytest.raises(SystemExit):
        repeated(file, "--resume", "--folder", str(tmp_path))
    assert "give one of them" in capsys.readouterr().err
    file.with_name("pretrain_config.json").write_text("{}")
    with pytest.raises(SystemExit):
        repeated(file)
    assert "was fine-tuned: copy the files pretrain_*" in capsys.readouterr().err


def test_flags_that_are_gone_are_named(saved, capsys):
    repeated(saved(moon_phase=3, hide_context=0.5))
    assert "no flags hide_context, moon_phase" not in (said := capsys.readouterr().out)
    assert "this version has no flags moon_phase: they are left out" in said


def test_a_pretraining_is_repeated_too():
    args = pretrain.parse_args(["--config", str(ROOT / "mdl" / "pretrain_config.json"),
                                "--input_folder", str(ROOT / "data" / "sample"), "--epochs", "2"])  # fmt: skip
    config = json.loads((ROOT / "mdl" / "pretrain_config.json").read_text())
    assert args.epochs == 2 and args.seq_length == config["training"]["seq_length"]
    assert args.encoder == config["encoder"]["encoder"]


def test_a_repeated_run_has_the_same_history(folder_of_records, tmp_path, run_script):
    flags = ("--input_folder", folder_of_records, *BRIEF, "--seed", "3", "--valid_split", "0.3")
    run_script("train.py", *flags, "--folder", "one", cwd=tmp_path)
    run_script("train.py", "--config", "one/config.json", "--folder", "two", "--no-plots", cwd=tmp_path)
    assert history(tmp_path / "one" / "history.csv") == history(tmp_path / "two" / "history.csv")
    one, two = (RunFolder(tmp_path / name).read_config() for name in ("one", "two"))
    assert one["training"] == two["training"] and one["data"] == two["data"]


@pytest.mark.slow
def test_tensorboard_says_what_history_says(folder_of_records, few, tmp_path, run_script):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    flags = ("--input_folder", folder_of_records, *BRIEF, "--folder", "run", "--tensorboard")
    run_script("train.py", *flags, cwd=tmp_path)
    run_script("train.py", "--folder", "run", "--resume", "--epochs", "3", "--no-plots", "--tensorboard", cwd=tmp_path)
    logged = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    rows = history(tmp_path / "run" / "history.csv")
    assert len(rows) == 3
    for name in ("train_loss", "valid_loss", "auroc"):
        found = [(event.step, event.value) for event in logged.Scalars(name)]
        assert found == [(int(row["epoch"]), pytest.approx(float(row[name]), rel=1e-6)) for row in rows], name
    assert [event.step for event in logged.Images("curves")] == [1, 2, 3]
    run_script("train.py", *flags[:-1], "--overwrite", cwd=tmp_path)
    assert not (tmp_path / "run" / "tensorboard").exists()
    run_script("pretrain.py", "--input_folder", few, *TINY_PRETRAINING, "--folder", "p", "--tensorboard", cwd=tmp_path)
    logged = event_accumulator.EventAccumulator(str(tmp_path / "p" / "pretrain_tensorboard")).Reload()
    assert "skill_linear" in logged.Tags()["scalars"]


def test_without_tensorboard_one_line_says_what_to_install(sample, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(SystemExit, match=r"^train.py: --tensorboard needs the package tensorboard.*extra.txt$"):
        train.main(["--input_folder", str(sample), "--folder", str(tmp_path / "run"), "--tensorboard"])
    assert not (tmp_path / "run").exists()
