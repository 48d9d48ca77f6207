"""train.py --init: what a classifier takes over from a trained run, and what is refused."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, history, interrupt_and_resume

import train
from data.labels import ClassSet, load_class_set
from data.preprocess import SignalConfig
from data.records import read_record
from engine.handover import FINE_TUNING_LR
from engine.inference import load_predictor
from engine.initial_run import read_initial
from engine.run_folder import RunError, RunFolder

OWN = (
    "code,abbreviation,equivalents\n164884008,ectopics,\n164865005,MI,\n164889003,AF,\n"  # MI is new; PVC has an alias
)
BRIEF = ("--epochs", "2", "--batch_size", "8", "--no-plots")
UNTRAINED = ("--freeze_encoder", "--lr", "1e-30", "--epochs", "1", "--valid_split", "0", "--no-plots")


@pytest.fixture(scope="module")
def initial(untrained_run):
    """A run for the classes of 2020 whose answers, thresholds, batch norms and rule are unlike a new network's."""
    run = untrained_run(load_class_set("cinc2020"))
    state = run.load("model.pth")["members"][0]
    generator = torch.Generator().manual_seed(3)
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var", "thresholds", "head.linear.bias")):
            value.copy_(0.1 + 0.8 * torch.rand(value.shape, generator=generator))
    run.save("model.pth", {"members": [state]})
    config = run.read_config()
    odds = [1.0] * 23 + [0.25]
    config["decision"] = {"rule": "reward", "year": 2020, "confidence": 0.8, "odds": odds}
    run.write_json("config.json", config)
    return run


@pytest.fixture
def copied(initial, tmp_path):
    """The same run in a folder of its own."""
    shutil.copytree(initial.path, tmp_path / "initial")
    return RunFolder(tmp_path / "initial")


@pytest.fixture
def own(tmp_path):
    """The file of an own class set."""
    (tmp_path / "own.csv").write_text(OWN)
    return tmp_path / "own.csv"


def initial_of(path, folder=None, resume=False):
    return read_initial(SimpleNamespace(init=str(path), folder=folder, resume=resume))


def probabilities(folder, sample):
    """(C,) of a shipped recording, as predict.py gives them."""
    predictor = load_predictor(folder)
    signal, covariates = predictor.read(*read_record(str(sample / "georgia" / "E00001")))
    return predictor.predict([signal], covariates[None])[0]


def test_shared_classes_keep_their_answers_before_the_first_step(initial, own, few, sample, tmp_path, run_script):
    """A learning rate of nearly zero with a frozen encoder leaves everything as it began."""
    flags = ("--input_folder", few, "--init", initial.path, "--classes", own, "--folder", "run", *UNTRAINED)
    done = run_script("train.py", *flags, cwd=tmp_path)
    assert f"2 of 3 classes go on from {initial.path}; new: MI" in done.stdout
    new, old = load_predictor(tmp_path / "run"), load_predictor(initial.path)
    columns = [old.class_set.column(name) for name in ("PVC", "AF")]
    was, now = probabilities(initial.path, sample), probabilities(tmp_path / "run", sample)
    np.testing.assert_allclose(now[[0, 2]], was[columns], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(new.thresholds[[0, 2]], old.thresholds[columns])
    state = RunFolder(tmp_path / "run").load("model.pth")["members"][0]
    config = RunFolder(tmp_path / "run").read_config()
    frequency = torch.tensor(config["data"]["frequency"][1]).clamp(1e-3, 1 - 1e-3)
    assert state["head.linear.bias"][1] == pytest.approx(torch.logit(frequency).item(), abs=1e-6)
    assert state["head.thresholds"][1] == 0.5
    assert config["decision"] == {"rule": "thresholds"}
    assert config["training"]["init"] == config["data"]["init"]["run"] == str(initial.path)
    assert len(config["data"]["init"]["sha256"]) == 64


def test_fifty_recordings_with_an_own_class_train(initial, own, sample, tmp_path, run_script):
    before = RunFolder(initial.path).load("model.pth")["members"][0]
    flags = ("--input_folder", sample, "--n_total", "50", "--init", initial.path, "--classes", own, *BRIEF)
    done = run_script("train.py", *flags, "--folder", "run", "--auxiliary", "5", cwd=tmp_path)
    assert f"{initial.path} does not say which recordings it was trained on" in done.stdout
    config = RunFolder(tmp_path / "run").read_config()
    assert config["training"]["lr"] == FINE_TUNING_LR and config["classes"]["codes"][1] == "164865005"
    after = RunFolder(tmp_path / "run").load("final_model.pth")["members"][0]
    moved = [not torch.equal(after[name], value) for name, value in before.items() if name.startswith("encoder.")]
    assert sum(moved) > 0.9 * len(moved)
    assert len(probabilities(tmp_path / "run", sample)) == 3


@pytest.mark.parametrize(
    "flags, expected",
    [((), 0.25), (("--decision", "thresholds"), None), (("--classes", "cinc2021"), 1.0)],
    ids=["same classes", "--decision", "other classes"],
)
def test_the_rule_is_taken_over_with_the_same_classes(flags, expected, initial, sample):
    args, start = train.parse_args(["--input_folder", str(sample), "--init", str(initial.path), *flags])
    rule = train.decision_rule(args, load_class_set(args.classes), start, None)
    assert rule.get("odds", [None])[23] == expected if expected else rule == {"rule": "thresholds"}


def class_set_of(*groups):
    empty = ("",) * len(groups)
    return ClassSet("own", tuple(group[0] for group in groups), empty, empty, groups, ((),) * len(groups))


def test_classes_are_matched_by_their_codes():
    cinc2020 = load_class_set("cinc2020")
    found = load_class_set("cpsc2018").shared_with(cinc2020)
    words = {"AF": "AF", "I-AVB": "IAVB", "LBBB": "LBBB", "Normal": "NSR", "RBBB": "RBBB", "PAC": "PAC", "PVC": "PVC"}
    names = load_class_set("cpsc2018").codes
    assert {names[new]: old for new, old in found.items()} == {
        name: cinc2020.column(word) for name, word in words.items()
    }
    assert cinc2020.shared_with(cinc2020) == {column: column for column in range(24)}
    bundle = cinc2020.column("RBBB")
    assert class_set_of(("59118001",), ("713427006",)).shared_with(cinc2020) == {1: bundle}  # once, by its first code
    assert class_set_of(("1",), ("282825002",)).shared_with(cinc2020) == {1: cinc2020.column("AF")}
    assert class_set_of(("282825002",), ("164889003",)).shared_with(cinc2020) == {1: cinc2020.column("AF")}
    assert class_set_of(("1",)).shared_with(cinc2020) == {}


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--sample_freq 250", "--sample_freq 250.0 contradicts the run in .*config.json, which has 100.0"),
        (
            "--seq_length 300",
            "--seq_length 300 contradicts .* has 250: leave the flag out, or name another --init",
        ),
        ("--encoder transformer", "--encoder transformer contradicts .* which has xresnet"),
        ("--widths 16 16", r"--widths 16 16 contradicts .* which has 8 8"),
        ("--no-covariates", "--no-covariates contradicts .* which has True"),
        ("--lead_subsets 0.4", "--lead_subsets 0.4 contradicts .* which is not told which leads are missing"),
    ],
)
def test_flags_that_contradict_the_run_are_refused(flags, message, initial, sample):
    with pytest.raises(RunError, match=message):
        train.parse_args(["--input_folder", str(sample), "--init", str(initial.path), *flags.split()])


def test_what_the_run_does_not_decide_may_be_chosen(initial, sample):
    base = ["--input_folder", str(sample), "--init", str(initial.path)]
    args = train.parse_args([*base, "--seq_length", "250"])[0]
    assert (args.stem, args.widths, args.dropout, args.head_dropout) == (8, [8, 8], 0.1, 0.3)
    assert args.lr == FINE_TUNING_LR and args.encoder_lr_factor == 0.3
    args = train.parse_args([*base, "--dropout", "0", "--lr", "0.01", "--encoder_lr_factor", "1"])[0]
    assert (args.dropout, args.lr, args.encoder_lr_factor) == (0, 0.01, 1)
    assert train.parse_args(base[:2])[0].lr == 0.01


def test_the_shipped_network_and_the_first_of_the_shipped_ensemble(sample):
    base = ["--input_folder", str(sample), "--init"]
    args, start = train.parse_args([*base, str(ROOT / "mdl" / "ensemble")])
    model = train.build_model(args.model_config(24))
    said = start.load_classes_into(model.head, load_class_set("cinc2020"))
    start.load_into(model.encoder)
    assert "holds 7 networks: the first is fine-tuned" in said
    first = RunFolder(ROOT / "mdl" / "ensemble").load("model.pth")["members"][0]
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())
    assert args.lead_subsets == 0 and len(start.trained_on) == 2376
    args, start = train.parse_args([*base, str(ROOT / "mdl")])
    assert 0 < args.lead_subsets <= 1 and args.model_config(24)["lead_flags"] and start.trained_on
    with pytest.raises(RunError, match="--lead_subsets 0.0 contradicts .* which is told which leads are missing"):
        train.parse_args([*base, str(ROOT / "mdl"), "--lead_subsets", "0"])


def test_recordings_that_the_run_was_trained_on_are_counted(copied, capsys):
    copied.write_text("train_ids.txt", "ptb-xl/A\nptb-xl/B\n")
    cache = SimpleNamespace(names=["ptb-xl/A", "georgia/B", "ptb-xl/C", "B"])
    rows = np.arange(4)
    train_rows, valid_rows = initial_of(copied.path).split(cache, rows, rows[:1], rows[1:])
    assert train_rows.tolist() == [0] and valid_rows.tolist() == [1, 2, 3]
    assert "1 of the 3 validation recordings have names of recordings that" in capsys.readouterr().out
    initial_of(copied.path).warn_of_test(cache, rows[:1])
    assert "1 of the 1 test recordings" in capsys.readouterr().out
    initial_of(copied.path).split(cache, rows, rows, rows[:0])
    initial_of(copied.path).warn_of_test(cache, rows[2:3])
    assert not capsys.readouterr().out


def damage(run, kind):
    content = run.load("model.pth")
    config = run.read_config()
    if kind == "garbage":
        run.write_text("model.pth", "garbage")
    elif kind == "code":  # would be executed by pickle
        run.save("model.pth", {"members": [content["members"][0], Path(".")]})
    elif kind == "not finite":
        content["members"][0]["head.linear.bias"][0] = float("nan")
        run.save("model.pth", content)
    elif kind == "missing weight":
        content["members"][0].pop("head.linear.bias")
        run.save("model.pth", content)
    elif kind == "too large":
        config["members"][0]["model"]["widths"] = [512, 512]
    run.write_json("config.json", config)


@pytest.mark.parametrize(
    "kind, message",
    [
        ("garbage", "model.pth is too small"),
        ("code", "model.pth is damaged or not a plain PyTorch checkpoint: it holds other things than tensors"),
        ("not finite", "model.pth holds weights that are NaN"),
        ("missing weight", "model.pth does not fit its config.json"),
        ("too large", "model.pth is too small for the"),
    ],
)
def test_damaged_runs_are_refused_by_name(kind, message, copied):
    damage(copied, kind)
    with pytest.raises(RunError, match=message):
        initial_of(copied.path)


def test_what_is_no_run_to_start_from_is_refused(copied, pretrained, tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in [
        (tmp_path / "none", "--init .*none: there is no such folder"),
        (tmp_path / "empty", "--init .*empty: it holds no config.json"),
        (pretrained, "--init .*: it holds a pre-trained encoder and no classifier: .* python train.py --folder RUN"),
    ]:
        with pytest.raises(RunError, match=message):
            initial_of(path)
    with pytest.raises(RunError, match="is the --folder, too"):
        initial_of(copied.path, folder=f"{copied.path}/")
    config = copied.read_config()
    config["signal"] = SignalConfig(clip=5.0).to_dict()
    copied.write_json("config.json", config)
    with pytest.raises(RunError, match="reads signals up to 5 mV, and this training up to 10 mV"):
        initial_of(copied.path)


def test_two_encoders_are_refused(initial, pretrained, sample, capsys):
    with pytest.raises(SystemExit):
        train.parse_args(["--input_folder", str(sample), "--init", str(initial.path), "--folder", str(pretrained)])
    assert "holds a pre-trained encoder: name another --folder" in capsys.readouterr().err


def test_resumed_and_repeated(copied, few, tmp_path, run_script):
    """The same bits as undisturbed, from the same weights only, wherever they lie; also at the rate of a new network,
    which is no default here.
    """
    flags = ("--input_folder", few, "--init", copied.path, "--classes", "cpsc2018", "--lr", "0.01", *BRIEF)
    run_script("train.py", *flags, "--folder", "whole", cwd=tmp_path)
    interrupt_and_resume("train.py", *flags, prefix="", cwd=tmp_path, run_script=run_script)
    assert history(tmp_path / "run" / "history.csv") == history(tmp_path / "whole" / "history.csv")
    settings = RunFolder(tmp_path / "run").read_config()["training"]
    repeated = train.parse_args(["--config", str(tmp_path / "run" / "config.json")])[0]
    assert repeated.settings() == settings and settings["lr"] == 0.01
    copied.path.rename(tmp_path / "moved")
    moved = ("--folder", "run", "--resume", "--init", "moved")
    run_script("train.py", *moved, "--epochs", "3", cwd=tmp_path)
    run = RunFolder(tmp_path / "moved")
    content = run.load("model.pth")
    content["members"][0]["head.linear.bias"] += 1
    run.save("model.pth", content)
    done = run_script("train.py", *moved, "--epochs", "4", cwd=tmp_path, check=False)
    assert done.returncode and "did not begin with the weights in moved/model.pth" in done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["init"]["n_networks"] == 1
