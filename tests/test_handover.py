"""What fine-tuning takes over from pre-training: the encoder, its settings and the split; and nothing else."""
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data.preprocess import SignalConfig
from engine.handover import read_pretrained
from engine.loop import EMA, Trainer, make_optimizer, make_schedule
from engine.run_folder import RunError, RunFolder
from models import build_model


def test_handover_loads_all_of_the_encoder_and_nothing_else(pretrained):
    found = read_pretrained(pretrained)
    assert found.signal == SignalConfig() and len(found.train_ids) + len(found.valid_ids) == 24
    model = build_model({**found.encoder, "bidirectional": True, "n_classes": 5})
    head = {name: value.clone() for name, value in model.head.state_dict().items()}
    found.load_into(model.encoder)
    saved = RunFolder(pretrained).load("pretrain_model.pth")["encoder"]
    assert all(torch.equal(value, saved[name]) for name, value in model.encoder.state_dict().items())
    assert all(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())


def test_a_folder_without_pretraining_hands_over_nothing(tmp_path):
    assert read_pretrained(tmp_path) is None


@pytest.mark.parametrize("damage", ["missing key", "extra key", "other sizes", "other encoder", "no weights", "garbage"])
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
    args = SimpleNamespace(encoder="xresnet", sample_freq=250.0, width=None, patch=None, depth=None, n_heads=None, dropout=None, fold=None)
    found.apply(args, given=set())
    assert (args.encoder, args.sample_freq, args.width, args.patch) == ("transformer", 100.0, 16, 8)
    for name, value in (("encoder", "xresnet"), ("sample_freq", 250.0), ("width", 99), ("fold", 1)):
        with pytest.raises(RunError, match=f"--{name} {value} contradicts"):
            found.apply(SimpleNamespace(**(vars(args) | {name: value})), given={name})


def test_recordings_and_patients_stay_on_their_side(pretrained):
    found = read_pretrained(pretrained)
    names = sorted(found.train_ids + found.valid_ids) + ["new/of_a_validation_patient", "new/of_nobody"]
    patients = np.array([f"p{i}" for i in range(len(names))])
    patients[-2] = patients[names.index(found.valid_ids[0])]
    order = np.random.default_rng(0).permutation(len(names))
    train, valid = found.split(names, patients, order[:-5], order[-5:])
    assert {names[i] for i in train} - {"new/of_nobody"} == set(found.train_ids)
    assert {names[i] for i in valid} - {"new/of_nobody"} == {*found.valid_ids, "new/of_a_validation_patient"}
    assert sorted([*train, *valid]) == list(range(len(names)))
    patients[names.index(found.train_ids[0])] = patients[names.index(found.valid_ids[0])]
    with pytest.raises(RunError, match="both sides"):
        found.split(names, patients, order[:-5], order[-5:])


def test_a_frozen_encoder_does_not_change_and_a_slow_one_changes_less():
    torch.manual_seed(0)
    x = torch.randn(8, 12, 64)
    moved = {}
    for factor in (1.0, 0.01):
        model = build_model({"encoder": "transformer", "patch": 4, "width": 16, "depth": 2, "n_heads": 2, "n_classes": 3})
        before = model.encoder.embed.weight.clone()
        optimizer = make_optimizer(model, 1e-3, 0.0, encoder_lr_factor=factor)
        Trainer(model, optimizer, make_schedule(optimizer, 5), EMA(model, 0.9), lambda m, b: m(x).square().mean(), "cpu").train_one_epoch([SimpleNamespace(index=[])] * 5)
        moved[factor] = (model.encoder.embed.weight - before).abs().mean().item()
    assert 0 < moved[0.01] < 0.03 * moved[1.0]
    model.encoder.requires_grad_(False)
    before, head = model.encoder.embed.weight.clone(), model.head.linear.weight.clone()
    optimizer = make_optimizer(model, 1e-3, 0.0)
    Trainer(model, optimizer, make_schedule(optimizer, 5), EMA(model, 0.9), lambda m, b: m(x).square().mean(), "cpu").train_one_epoch([SimpleNamespace(index=[])] * 5)
    assert torch.equal(model.encoder.embed.weight, before) and not torch.equal(model.head.linear.weight, head)
    assert not model.encoder.training and model.head.training
