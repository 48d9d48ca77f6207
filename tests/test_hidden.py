"""pretrain.py with an encoder that looks both ways, and what follows it."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY_HIDDEN, fake_ecg, history, interrupt_and_resume, write_record

import pretrain
import train
from engine.handover import FINE_TUNING
from engine.run_folder import RunFolder


def test_the_history_compares_with_baselines(pretrained_xresnet):
    rows = history(pretrained_xresnet / "pretrain_history.csv")
    assert len(rows) == 2
    for row in rows:
        row = {name: float(value) for name, value in row.items()}
        assert all(map(math.isfinite, row.values()))
        for end in ("", "_stretches", "_leads"):
            for baseline in ("interpolation", "linear"):
                saved = 1 - row[f"hidden_loss{end}"] / row[f"hidden_{baseline}_loss{end}"]
                assert row[f"skill_{baseline}{end}"] == pytest.approx(saved)
        for name in ("beat", "variation", "rhythm"):
            assert row[f"skill_{name}"] == pytest.approx(1 - row[f"{name}_loss"] / row[f"{name}_constant_loss"])
        parts = row["hidden_loss"] + row["beat_loss"] + 0.3 * row["variation_loss"] + 0.3 * row["rhythm_loss"]
        assert row["valid_loss"] == pytest.approx(parts)
        assert row["hidden_linear_loss_leads"] < row["hidden_interpolation_loss_leads"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    config = json.loads((pretrained_xresnet / "pretrain_config.json").read_text())
    flags = config["training"]
    assert (flags["lr"], flags["weight_decay"], flags["ema_decay"], flags["seq_length"]) == (0.005, 0.01, 0.995, 250)
    assert len(config["head"]["scale"]) == 8


def test_a_resumed_run_ends_like_an_uninterrupted_one(pretrained_xresnet, few, tmp_path, run_script):
    args = ("--input_folder", few, *TINY_HIDDEN)
    interrupt_and_resume("pretrain.py", *args, prefix="pretrain_", cwd=tmp_path, run_script=run_script)
    first, again = (RunFolder(run).load("pretrain_final_model.pth") for run in (pretrained_xresnet, tmp_path / "run"))
    for part in ("encoder", "head"):
        assert first[part].keys() == again[part].keys()
        assert all(torch.equal(first[part][name], again[part][name]) for name in first[part])
    both = (history(run / "pretrain_history.csv") for run in (pretrained_xresnet, tmp_path / "run"))
    assert next(both) == next(both)


@pytest.mark.parametrize("sample_freq, seconds", [(50, 2), (400, 4)])
def test_other_rates_and_short_recordings(sample_freq, seconds, tmp_path, run_script):
    rng = np.random.default_rng(0)
    for i in range(10):
        signal = fake_ecg(rng, seconds) if i else np.zeros((12, 500 * seconds), np.int16)
        write_record(tmp_path / "in", f"R{i}", signal)
    flags = ("--input_folder", "in", "--folder", "run", "--sample_freq", sample_freq, *TINY_HIDDEN, "--batch_size", 4)
    run_script("pretrain.py", *flags, "--epochs", 1, "--no-plots", cwd=tmp_path)
    (row,) = history(tmp_path / "run" / "pretrain_history.csv")
    assert math.isfinite(float(row["train_loss"])) and math.isfinite(float(row["valid_loss"]))
    assert math.isfinite(float(row["hidden_loss"])) and math.isfinite(float(row["beat_loss"])) == (seconds > 2)


def test_fine_tuning_starts_from_the_weights(pretrained_xresnet, few, tmp_path, run_script):
    shutil.copytree(pretrained_xresnet, tmp_path / "run")
    brief = ("--epochs", "1", "--batch_size", "8", "--no-plots", "--freeze_encoder")
    run_script("train.py", "--input_folder", few, "--folder", "run", *brief, cwd=tmp_path)
    trained = RunFolder(tmp_path / "run").load("model.pth")["members"][0]
    saved = RunFolder(pretrained_xresnet).load("pretrain_model.pth")["encoder"]
    assert all(torch.equal(trained[f"encoder.{name}"], value) for name, value in saved.items())


def test_fine_tuning_has_its_own_defaults(pretrained_xresnet, pretrained, few, tmp_path):
    base = ["--input_folder", str(few)]
    args, start = train.parse_args([*base, "--folder", str(pretrained_xresnet)])
    assert start.encoder["encoder"] == "xresnet"
    assert {name: getattr(args, name) for name in FINE_TUNING["xresnet"]} == FINE_TUNING["xresnet"]
    assert args.model_config(3)["head_dropout"] == 0.5 and args.encoder_config()["dropout"] == 0.3
    # What is typed holds, also where it is what training from scratch would do.
    typed = ["--lr", "0.002", "--epochs", "60", "--encoder_lr_factor", "0.3", "--dropout", "0.1", "--head_dropout", "0"]
    args, _ = train.parse_args([*base, "--folder", str(pretrained_xresnet), *typed])
    assert (args.lr, args.epochs, args.encoder_lr_factor, args.dropout, args.head_dropout) == (0.002, 60, 0.3, 0.1, 0)
    args, _ = train.parse_args([*base, "--folder", str(pretrained)])
    assert (args.lr, args.epochs, args.encoder_lr_factor, args.dropout) == (0.002, 60, 0.3, 0.1)
    args, _ = train.parse_args(base)
    assert (args.lr, args.epochs, args.encoder_lr_factor) == (0.01, 60, 0.3)


def test_a_fine_tuning_as_long_as_one_from_scratch_is_resumed(pretrained_xresnet, few, tmp_path):
    """Flags that were typed as what is usual from scratch are not taken for unset ones."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(pretrained_xresnet, run.path)
    typed = ["--epochs", "60", "--encoder_lr_factor", "0.3"]
    args, _ = train.parse_args(["--input_folder", str(few), "--folder", str(run.path), *typed])
    config = json.loads((run / "pretrain_config.json").read_text())
    kept = {name: config[name] for name in ("signal", "data", "versions", "git_commit")}
    added = {"format": "12ecg-run", "version": 2, "classes": {}, "decision": {}, "members": []}
    run.write_json("config.json", {**kept, **added, "training": args.settings()})
    resumed, _ = train.parse_args(["--folder", str(run.path), "--resume"])
    assert resumed.settings() == args.settings() and (resumed.epochs, resumed.encoder_lr_factor) == (60, 0.3)


def test_defaults_follow_the_encoder(pretrained, few):
    base = ["--input_folder", str(few)]
    args = pretrain.parse_args(base)
    assert (args.encoder, args.lr, args.epochs, args.seq_length, args.gain) == ("transformer", 0.002, 50, 800, 0.2)
    assert args.k_steps_ahead[-1] == 100
    args = pretrain.parse_args([*base, "--encoder", "resnet", "--lr", "0.1"])
    assert (args.lr, args.epochs, args.seq_length, args.ema_decay, args.gain) == (0.1, 100, 250, 0.995, 0.25)
    assert args.k_steps_ahead is None and args.dropout is None
    # --config with another encoder takes over what was chosen, not what was usual for the first one.
    repeat = ["--config", str(pretrained / "pretrain_config.json"), "--encoder", "causal_resnet"]
    args = pretrain.parse_args(repeat)
    assert (args.k_steps_ahead, args.seq_length, args.epochs, args.lr) == ([5, 20], 400, 2, 0.002)
    with pytest.raises(SystemExit):
        pretrain.parse_args([*repeat[:-1], "xresnet"])
    args = pretrain.parse_args([*repeat[:2]])
    assert args.k_steps_ahead == [5, 20] and args.width == 16
