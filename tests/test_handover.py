"""What fine-tuning takes over from pre-training: the encoder, its settings and the split; and nothing else."""

import csv
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, SameBatch

from benchmarks.pretraining import check_settings, encoder_flags, settings_of, summarise, table
from data.preprocess import SignalConfig
from data.splits import share_of
from engine.handover import FINE_TUNING_LR, read_pretrained
from engine.loop import Trainer, make_optimizer, make_schedule
from engine.run_folder import RunError, RunFolder
from evaluate_12ECG_score import evaluate_12ECG_score
from models import build_model


def test_handover_loads_all_of_the_encoder_and_nothing_else(pretrained):
    found = read_pretrained(pretrained)
    assert found.signal == SignalConfig() and sum(map(len, found.recordings.values())) == 24
    model = build_model({**found.encoder, "bidirectional": True, "n_classes": 5})
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    found.load_into(model.encoder)
    saved = RunFolder(pretrained).load("pretrain_model.pth")["encoder"]
    assert all(torch.equal(value, saved[name]) for name, value in model.encoder.state_dict().items())
    assert all(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())


def test_a_folder_without_pretraining_hands_over_nothing(tmp_path):
    assert read_pretrained(tmp_path) is None


@pytest.mark.parametrize(
    "damage", ["missing key", "extra key", "other sizes", "other encoder", "no weights", "garbage"]
)
def test_a_damaged_pretraining_is_refused_by_name(damage, pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    content, config = run.load("pretrain_model.pth"), json.loads((run / "pretrain_config.json").read_text())
    if damage == "missing key":
        content["encoder"].pop("norm.weight")
    elif damage == "extra key":
        content["encoder"]["extra"] = torch.zeros(1)
    elif damage == "other sizes":
        config["encoder"]["width"] = 24
    elif damage == "other encoder":
        config["encoder"]["encoder"] = "xresnet"
    run.save("pretrain_model.pth", content)
    run.write_json("pretrain_config.json", config)
    if damage == "no weights":
        (run / "pretrain_model.pth").unlink()
    elif damage == "garbage":
        (run / "pretrain_model.pth").write_bytes(b"garbage")
    with pytest.raises(RunError, match="pretrain_"):
        read_pretrained(run.path)


def test_contradicting_flags_are_errors_and_others_are_filled_in(pretrained):
    found = read_pretrained(pretrained)
    args = SimpleNamespace(
        encoder="xresnet", sample_freq=250.0, width=None, patch=None, depth=None, n_heads=None, dropout=None, fold=None
    )
    args.valid_split = 0.2
    args.explicit = set()
    found.apply(args)
    assert (args.encoder, args.sample_freq, args.width, args.patch, args.lr) == (
        "transformer",
        100.0,
        16,
        8,
        FINE_TUNING_LR,
    )
    args.lr = 0.5
    args.explicit = {"lr"}
    found.apply(args)
    assert args.lr == 0.5
    for name, value in (("encoder", "xresnet"), ("sample_freq", 250.0), ("width", 99), ("fold", 1)):
        with pytest.raises(RunError, match=f"--{name} {value} contradicts"):
            found.apply(SimpleNamespace(**(vars(args) | {name: value, "explicit": {name}})))


@pytest.mark.parametrize("known", ["content", "names"])
def test_recordings_and_patients_stay_on_their_side(known, pretrained, tmp_path):
    """Also where the recordings are called otherwise, for the input folder is another level of the tree."""
    shutil.copytree(pretrained, tmp_path / "run")
    if known == "names":  # as earlier versions left it
        (tmp_path / "run" / "pretrain_recordings.csv").unlink()
    found = read_pretrained(tmp_path / "run")
    side = {name: part for part, listed in found.recordings.items() for name, _ in listed}
    hashes = {name: digest for listed in found.recordings.values() for name, digest in listed}
    old = sorted(side)
    names = [f"hospital/{name}" for name in old] + ["hospital/new_of_a_validation_patient", "hospital/new_of_nobody"]
    known = [hashes[name] or "" for name in old]
    cache = SimpleNamespace(names=names, hashes=[*known, "f" * 32, "e" * 32], constant=np.zeros(len(names), bool))
    patients = np.array([f"p{i}" for i in range(len(names))])
    valid_id = next(i for i, name in enumerate(old) if side[name] == "valid")
    train_id = next(i for i, name in enumerate(old) if side[name] == "train")
    patients[-2] = patients[valid_id]
    order = np.random.default_rng(0).permutation(len(names))
    train, valid = found.split(cache, patients, order[:-5], order[-5:])
    of_nobody = len(names) - 1
    assert {*train} - {of_nobody} == {i for i, name in enumerate(old) if side[name] == "train"}
    assert {*valid} - {of_nobody} == {i for i, name in enumerate(old) if side[name] == "valid"} | {len(names) - 2}
    assert sorted([*train, *valid]) == list(range(len(names)))
    patients[train_id] = patients[valid_id]
    with pytest.raises(RunError, match="both sides"):
        found.split(cache, patients, order[:-5], order[-5:])


def test_recordings_of_which_none_is_found_are_an_error(pretrained):
    cache = SimpleNamespace(names=["a", "b"], hashes=["0" * 32, "1" * 32], constant=np.zeros(2, bool))
    with pytest.raises(RunError, match="none of its recordings is found"):
        read_pretrained(pretrained).split(cache, np.array(["a", "b"]), np.array([0]), np.array([1]))


def test_all_recordings_may_train_after_a_pretraining_that_validated_on_some(pretrained, few, tmp_path):
    import train

    shutil.copytree(pretrained, tmp_path / "run")
    flags = ["--epochs", "1", "--batch_size", "8", "--auxiliary", "0", "--cache", str(tmp_path / "cache")]
    train.main(["--input_folder", str(few), "--folder", str(tmp_path / "run"), "--valid_split", "0", *flags])
    listed = {
        part: (tmp_path / "run" / f"{part}_ids.txt").read_text().split()
        for part in ("pretrain_train", "pretrain_valid", "train", "valid")
    }
    assert sorted(listed["train"]) == sorted(listed["pretrain_train"] + listed["pretrain_valid"])
    assert listed["pretrain_valid"] and not listed["valid"]


def test_configuration_and_weights_are_enough(pretrained, few, tmp_path, capsys):
    """As the predecessor documents it; a shell's trailing slash means the same folder."""
    import train

    (tmp_path / "run").mkdir()
    for name in ("pretrain_config.json", "pretrain_model.pth"):
        shutil.copy(pretrained / name, tmp_path / "run")
    cache = str(tmp_path / "cache")
    flags = ["--epochs", "1", "--batch_size", "8", "--auxiliary", "0", "--cache", cache]
    train.main(["--input_folder", str(few), "--folder", f"{tmp_path / 'run'}/", *flags])
    assert "does not say which recordings it was pre-trained on" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.pth").is_file()


def test_a_frozen_encoder_does_not_change_and_a_slow_one_changes_less():
    torch.manual_seed(0)
    x = torch.randn(8, 12, 64)
    moved = {}
    for factor in (1.0, 0.01):
        model = build_model(
            {"encoder": "transformer", "patch": 4, "width": 16, "depth": 2, "n_heads": 2, "n_classes": 3}
        )
        before = model.encoder.embed.weight.clone()
        optimizer = make_optimizer(model, 1e-3, 0.0, encoder_lr_factor=factor)
        Trainer(model, optimizer, make_schedule(optimizer, 5), lambda m, b: m(x).square().mean()).train_one_epoch(
            SameBatch(5), 1
        )
        moved[factor] = (model.encoder.embed.weight - before).abs().mean().item()
    assert 0 < moved[0.01] < 0.03 * moved[1.0]
    model.encoder.requires_grad_(False)
    before, head = model.encoder.embed.weight.clone(), model.head.linear.weight.clone()
    optimizer = make_optimizer(model, 1e-3, 0.0)
    Trainer(model, optimizer, make_schedule(optimizer, 5), lambda m, b: m(x).square().mean()).train_one_epoch(
        SameBatch(5), 1
    )
    assert torch.equal(model.encoder.embed.weight, before) and not torch.equal(model.head.linear.weight, head)
    assert not model.encoder.training and model.head.training


@pytest.fixture(params=[("--bidirectional",), ("--freeze_encoder",)], ids=["fine-tuned", "frozen"])
def fine_tuned(request, pretrained, few, tmp_path, run_script):
    """(flags, run folder) of two epochs of train.py in a copy of the pre-trained folder."""
    shutil.copytree(pretrained, tmp_path / "run")
    brief = ("--epochs", "2", "--batch_size", "8")
    run_script("train.py", "--input_folder", few, "--folder", "run", *brief, *request.param, cwd=tmp_path)
    return request.param, tmp_path / "run"


def test_pretrain_train_driver_evaluate(fine_tuned, pretrained, few, tmp_path, run_script):
    flags, run = fine_tuned
    config = json.loads((run / "config.json").read_text())
    model = config["members"][0]["model"]
    assert config["training"]["lr"] == FINE_TUNING_LR and (
        model["encoder"],
        model["width"],
        model["bidirectional"],
    ) == ("transformer", 16, "--bidirectional" in flags)
    for part in ("train", "valid"):
        assert sorted((run / f"{part}_ids.txt").read_text().split()) == sorted(
            (pretrained / f"pretrain_{part}_ids.txt").read_text().split()
        )

    encoder, trained = (
        RunFolder(pretrained).load("pretrain_model.pth")["encoder"],
        RunFolder(run).load("final_model.pth")["members"][0],
    )
    same = [torch.equal(value, trained[f"encoder.{name}"]) for name, value in encoder.items()]
    assert all(same) if "--freeze_encoder" in flags else not any(same)

    for file in run.glob("pretrain_*"):  # the fine-tuned run works alone
        file.unlink()
    valid = tmp_path / "valid"
    valid.mkdir()
    for name in (run / "valid_ids.txt").read_text().split():
        for ending in (".hea", ".mat"):
            shutil.copy(few / (name + ending), valid)
        header = valid / f"{name}.hea"
        if "#Dx" not in header.read_text():
            header.write_text(header.read_text() + "#Dx: \n")
    run_script("driver.py", run, valid, tmp_path / "out", cwd=tmp_path)
    with open(run / "history.csv", newline="") as lines:
        history = list(csv.DictReader(lines))
    best = max(history, key=lambda row: float(row["auroc"]))
    scores = evaluate_12ECG_score(valid, tmp_path / "out")[1]
    for name in ("auroc", "auprc", "accuracy", "f_measure", "challenge_metric"):
        assert scores[name] == pytest.approx(float(best[name]), abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--folder", "run", "--encoder", "xresnet"), "--encoder xresnet contradicts"),
        (("--folder", "run", "--width", "32"), "--width 32 contradicts"),
        (("--folder", "run", "--fold", "1"), "--fold 1 contradicts"),
        (("--folder", "other", "--freeze_encoder"), "--freeze_encoder needs"),
    ],
)
def test_train_refuses_flags_that_contradict(flags, message, pretrained, tmp_path, monkeypatch, capsys):
    import train

    shutil.copytree(pretrained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        train.main(["--input_folder", str(pretrained), *flags])
    assert message in f"{stopped.value}{capsys.readouterr().err}"


def test_a_smaller_share_is_part_of_a_larger_one():
    rows = np.arange(100, 300)
    one, ten, all_of_them = (share_of(rows, share, 3) for share in (0.01, 0.1, 1.0))
    assert len(one) == 2 and len(ten) == 20 and set(one) < set(ten) and all_of_them.tolist() == rows.tolist()
    assert share_of(rows, 0.1, 4).tolist() != ten.tolist() and len(share_of(rows, 1e-6, 3)) == 1
    for share in (0, 1.5):
        with pytest.raises(ValueError, match="share"):
            share_of(rows, share, 3)


def test_the_benchmark_trains_the_same_encoder_from_scratch(pretrained):
    import train

    found = read_pretrained(pretrained)
    args, nothing = train.parse_args(["--input_folder", str(pretrained), *map(str, encoder_flags(found))])
    assert nothing is None and args.sample_freq == found.signal.sample_freq
    assert args.encoder_config() | {"n_leads": 12} == found.encoder


def test_the_benchmark_averages_over_seeds():
    rows = [
        {"share": 0.1, "mode": mode, "auroc": auroc}
        for mode, auroc in (("scratch", 0.7), ("scratch", 0.8), ("frozen", 0.9))
    ]
    summary = summarise(rows)
    assert summary["0.1"]["scratch"] == {
        "mean": pytest.approx(0.75),
        "sd": pytest.approx(0.0707107),
        "values": [0.7, 0.8],
    }
    assert table(summary).splitlines()[-1] == "| 10% | 0.750 +- 0.071 | 0.900 |  |  |"
    rows += [{"share": 0.1, "mode": "fine-tuned", "auroc": auroc} for auroc in (0.8, 0.84)]  # by seed: +0.1 and +0.04
    assert (
        table(summarise(rows)).splitlines()[-1] == "| 10% | 0.750 +- 0.071 | 0.900 | 0.820 +- 0.028 | +0.070 +- 0.042 |"
    )


def test_the_benchmark_refuses_to_mix_settings(pretrained, tmp_path):
    args = SimpleNamespace(flags=["--n_covariates", 0], lr=0.002, epochs=8)
    settings = settings_of(args, read_pretrained(pretrained))
    RunFolder(tmp_path).write_json("pretraining.json", settings | {"auroc": {}})
    check_settings(tmp_path / "pretraining.json", settings)
    check_settings(tmp_path / "none.json", settings)
    for change in ({"epochs": 30}, {"encoder_sha256": "0"}):
        with pytest.raises(SystemExit, match=next(iter(change))):
            check_settings(tmp_path / "pretraining.json", settings | change)


def test_the_shipped_encoder_can_be_fine_tuned(sample, tmp_path, run_script):
    (tmp_path / "run").mkdir()
    for file in (ROOT / "mdl").glob("pretrain_*"):
        shutil.copy(file, tmp_path / "run")
    flags = ("--epochs", "1", "--n_total", "40", "--freeze_encoder")
    run_script("train.py", "--input_folder", sample, "--folder", "run", *flags, cwd=tmp_path)
    trained, shipped = (RunFolder(tmp_path / "run").load(name) for name in ("model.pth", "pretrain_model.pth"))
    assert all(
        torch.equal(trained["members"][0][f"encoder.{name}"].float(), weight.float())  # stored in half precision
        for name, weight in shipped["encoder"].items()
    )


def test_a_copy_of_the_whole_shipped_folder_is_finished(few, tmp_path, run_script):
    """It holds the encoder and what came of it: what to copy is said, and nothing is lost."""
    shutil.copytree(ROOT / "mdl", tmp_path / "copy", ignore=shutil.ignore_patterns("ensemble"))
    before = {file: file.read_bytes() for file in (tmp_path / "copy").iterdir()}
    done = run_script("train.py", "--input_folder", few, "--folder", "copy", cwd=tmp_path, check=False)
    said = "copy holds a run already: .*or --resume; to fine-tune its encoder anew: mkdir NEW && cp copy/pretrain_"
    assert done.returncode and re.search(said, done.stderr)
    assert all(file.read_bytes() == content for file, content in before.items())
