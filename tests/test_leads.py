"""train.py --leads: models of some leads alone, and what cannot be established without the others."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT, fake_ecg, history, write_record

import driver
import predict
import train
from data.cache import open_cache
from data.dataset import ResidentBatches, TrainBatches, build_dataset
from data.inputs import read_input
from data.labels import load_class_set
from data.leads import LEADS, lead_name, standard_leads
from data.metadata import read_metadata
from data.needed_leads import NEEDS, needs, needs_text
from data.preprocess import SignalConfig, preprocess, to_microvolts
from data.records import RecordError, find_records, parse_header
from engine.answers import answer_of, draw, explain
from engine.augment import drop_leads
from engine.inference import load_predictor
from engine.run_folder import RunError
from engine.torch_file import largest_difference, program_bytes
from engine.whole_recording import recording_model
from run_12ECG_classifier import run_12ECG_classifier

TINY = ("--stem", 8, "--widths", 8, 8, "--depths", 1, 1, "--workers", 1, "--cache", "cache")
CLASSES = load_class_set("cinc2020")


def header_of(names, n, units=None):
    units = units or ["mV"] * len(names)
    lines = [f"R.dat 16 1000/{unit} 16 0 0 0 0 {name}" for name, unit in zip(names, units)]
    return parse_header([f"R {len(names)} 500 {n}", *lines, "#Age: 50"])


def columns_of(abbreviations):
    return {CLASSES.column(name) for name in abbreviations.split()}


@pytest.fixture(scope="module")
def two_leads(few, tmp_path_factory, run_script):
    """A run of one epoch on leads I and II."""
    folder = tmp_path_factory.mktemp("leads")
    flags = ("--input_folder", few, "--folder", "run", "--epochs", 1, "--leads", "dii", "Lead_I", *TINY)
    done = run_script("train.py", *flags, cwd=folder)
    assert "Not to be established from I, II alone: CRBBB, IRBBB (V1 or V2); NSIVCB" in done.stdout
    return folder / "run"


# ---- names


@pytest.mark.parametrize(
    "typed, leads",
    [("V6 i", ("I", "V6")), ("MLII DI", ("I", "II")), ("avf AVR aVL", ("aVR", "aVL", "aVF")), (" ".join(LEADS), LEADS)],
)
def test_leads_have_their_order_and_spelling_however_they_are_typed(typed, leads):
    assert standard_leads(typed.split()) == leads


@pytest.mark.parametrize(
    "flags, said",
    [
        ("--leads I Q", "--leads: 'Q' is not one of the 12 leads: name some of I II III aVR"),
        ("--leads I,II", "--leads: 'I,II' is not one of the 12 leads"),
        ("--leads I II di", "--leads: lead I is named twice: name each lead once"),
        ("--leads", "--leads: expected at least one argument"),
        ("--leads I --lead_subsets 0.4", "--leads I reads no others than these: give one of the two"),
    ],
)
def test_leads_that_cannot_be_are_refused(flags, said, capsys, sample):
    with pytest.raises(SystemExit):
        train.parse_args(["--input_folder", str(sample), *flags.split()])
    assert said in capsys.readouterr().err


def test_all_twelve_leads_are_the_default_and_go_with_lead_subsets(sample):
    for flags in ([], ["--leads", *reversed(LEADS)]):
        args, _ = train.parse_args(["--input_folder", str(sample), "--lead_subsets", "0.4", *flags])
        assert args.signal_config() == SignalConfig() and args.settings()["leads"] == list(LEADS)


def test_an_encoder_of_other_leads_is_refused(few):
    flags = ["--input_folder", str(few), "--folder", str(ROOT / "mdl")]
    with pytest.raises(RunError, match="--leads I II contradicts the pre-training in .* which has I II III aVR .* V6:"):
        train.parse_args([*flags, "--leads", "II", "I"])
    args, _ = train.parse_args(flags)
    assert args.leads == list(LEADS)


# ---- what is read


def test_other_leads_are_computed_from_those_that_were_recorded():
    one, two = fake_ecg(np.random.default_rng(0)).astype(np.float64)[:2]
    x = preprocess(np.array([one, two]), header_of(("I", "II"), len(one)), SignalConfig(500.0, ("III", "aVR")))
    np.testing.assert_allclose(x, np.array([two - one, -(one + two) / 2]) / 1000, atol=1e-6)


def test_a_recording_without_any_of_the_leads_cannot_be_read():
    signal = fake_ecg(np.random.default_rng(0))
    with pytest.raises(RecordError, match=r"R: none of its leads \(I, II\) gives any that the model reads: V1 V2"):
        preprocess(signal[:2], header_of(("I", "II"), signal.shape[1]), SignalConfig(leads=("V1", "V2")))


def test_other_leads_are_not_even_looked_at(few, tmp_path):
    """What would be refused in a lead that the model reads does not matter in others."""
    signal = fake_ecg(np.random.default_rng(0))
    header = header_of(LEADS, signal.shape[1], ["mV"] * 11 + ["bar"])
    with pytest.raises(RecordError, match="lead V6 in 'bar'"):
        preprocess(signal, header, SignalConfig())
    write_record(tmp_path, "R", np.vstack([signal[:11], np.zeros_like(signal[:1])]))
    assert read_input(tmp_path / "R", SignalConfig())[3] == ["flat: V6"]
    assert read_input(tmp_path / "R", SignalConfig(leads=("I", "II")))[3] == []
    text = (tmp_path / "R.hea").read_text().replace("1000/mV 16 0 0 0 0 V6", "1000/bar 16 0 0 0 0 V6")
    (tmp_path / "R.hea").write_text(text)
    with pytest.raises(RecordError, match="lead V6 in 'bar'"):
        read_input(tmp_path / "R", SignalConfig())
    few_leads, _, _, warnings = read_input(tmp_path / "R", SignalConfig(leads=("I", "II")))
    assert warnings == []
    assert np.array_equal(few_leads, to_microvolts(preprocess(signal, header, SignalConfig(leads=("I", "II")))))


def test_a_cache_is_of_its_leads(few, tmp_path):
    records = find_records(few)
    configs = SignalConfig(), SignalConfig(leads=("I", "II")), SignalConfig(leads=("II",))
    caches = [open_cache(records, config, tmp_path / "cache", workers=1, quiet=True) for config in configs]
    assert len({cache.path for cache in caches}) == 3
    for config, cache in zip(configs, caches):
        again = open_cache(records, config, tmp_path / "cache", workers=1, quiet=True)
        assert again.path == cache.path
        for i in (0, 7):
            signal, covariates, _, _ = read_input(records[i], config)
            assert signal.shape[0] == len(config.leads) and np.array_equal(again.signal(i), signal)
            assert np.array_equal(again.covariates[i], covariates)
    assert np.array_equal(caches[0].signal(3)[1:2], caches[2].signal(3))


def test_batches_of_two_leads(few, tmp_path):
    config = SignalConfig(leads=("II", "V1"))
    cache = open_cache(find_records(few), config, tmp_path, workers=1, quiet=True)
    data = build_dataset(cache, CLASSES, read_metadata(None, cache.names, cache.duplicates))
    args = data, np.arange(len(data)), 1200, 6, 1  # longer than most recordings: there is padding
    n = 0
    for host, resident in zip(TrainBatches(*args).epoch(1), ResidentBatches(*args, device="cpu").epoch(1), strict=True):
        assert host.x.shape == (6, 2, 1200) and torch.equal(host.x, resident.x)
        for x, row, length in zip(host.x, host.index, host.lengths):
            if cache.signal(row).shape[1] == length:
                assert np.array_equal((x[:, :length].numpy() * 1000).round(), cache.signal(row))
                n += 1
    assert n


def test_lead_dropout_leaves_a_lead():
    x = torch.ones(500, 2, 4)
    left = drop_leads(x, 0.9, torch.Generator().manual_seed(0)).any(2).sum(1)
    assert left.min() == 1 and 20 < (left == 1).sum() < 80  # 0.18 of the windows that may lose one, every second
    assert drop_leads(x[:, :1], 0.9, torch.Generator().manual_seed(0)).all()


# ---- a run


def test_the_contract_names_the_leads(two_leads):
    config = json.loads((two_leads / "config.json").read_text())
    assert config["signal"]["leads"] == config["training"]["leads"] == ["I", "II"]
    assert config["members"][0]["model"]["n_leads"] == 2
    assert load_predictor(two_leads).signal_config == SignalConfig(leads=("I", "II"))


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["signal"].update(leads=["I", "II", "III"]),
        lambda config: config["members"][0]["model"].update(n_leads=12),
        lambda config: config["members"][0]["model"].pop("n_leads"),  # whose default is twelve
    ],
)
def test_a_network_of_other_leads_than_the_contract_is_refused(change, two_leads, tmp_path):
    shutil.copytree(two_leads, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    change(config)
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match="config.json: ValueError: the model must read [23] leads"):
        load_predictor(tmp_path / "run")


def test_the_driver_needs_these_leads_and_ignores_the_others(two_leads, tmp_path, capsys):
    signal = fake_ecg(np.random.default_rng(1))
    write_record(tmp_path / "in", "all", signal)
    write_record(tmp_path / "in", "two", signal[:2])
    write_record(tmp_path / "in", "odd", np.vstack([signal[:2], -signal[2:]]))
    write_record(tmp_path / "in", "one", signal[:1])
    write_record(tmp_path / "in", "none", signal[:1])
    header = tmp_path / "in" / "none.hea"
    header.write_text(header.read_text().replace(" I\n", " V3\n"))
    assert driver.main([str(two_leads), str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    text = capsys.readouterr().out
    assert "leads are missing in 1 recordings, most often II (in 1): zeros stand for them (to train for that" in text
    assert "skipped none: " in text and "none of its leads (V3) gives any that the model reads: I II" in text
    answers = {name: (tmp_path / "out" / f"{name}.csv").read_text().splitlines()[1:] for name in ("all", "two", "odd")}
    assert answers["all"] == answers["two"] == answers["odd"]
    warnings = (tmp_path / "out" / "record_warnings.txt").read_text().splitlines()
    assert [line.partition(",")[0] for line in warnings] == ["record", "one", "one"]
    assert "LAD, RAD (two limb leads)" in warnings[2] and "IRBBB" not in warnings[2]  # which it never can


def test_the_challenges_function_needs_these_leads(two_leads, tmp_path):
    model = load_predictor(two_leads)
    signal = fake_ecg(np.random.default_rng(1))
    write_record(tmp_path, "all", signal)
    write_record(tmp_path, "two", signal[:2])
    answers = []
    for name, rows in (("all", 12), ("two", 2)):
        lines = (tmp_path / f"{name}.hea").read_text().splitlines(keepends=True)
        answers.append(run_12ECG_classifier(signal[:rows].astype(float), lines, model))
    assert np.array_equal(answers[0][0], answers[1][0]) and np.array_equal(answers[0][1], answers[1][1])


def test_what_is_exported_answers_alike(two_leads, few):
    predictor = load_predictor(two_leads)
    signal, covariates, _, _ = read_input(find_records(few)[0], predictor.signal_config)
    x = torch.from_numpy(signal[None] / np.float32(1000))
    with torch.no_grad():
        exported = recording_model(predictor)(x, torch.from_numpy(covariates[None])).numpy()
    np.testing.assert_allclose(exported, predictor.predict([signal], covariates[None]), atol=1e-6)
    assert predictor.embed([signal]).shape == (1, len(predictor.feature_members))
    assert largest_difference(program_bytes(predictor), predictor) < 1e-6


def test_explanation_and_picture_are_of_these_leads(two_leads, few):
    predictor = load_predictor(two_leads)
    answer = answer_of(predictor, find_records(few)[0])
    answer.y_pred[:] = np.arange(len(CLASSES)) < 2
    for found in explain(predictor, answer).values():
        assert {"I", "II"} >= set(found["leads"]) and {name for name, _, _ in found["stretches"]} <= {"I", "II"}
    assert answer.missing == []
    drawn = [
        {text.get_text() for text in draw(answer, "", fine=fine).axes[0].texts if text.get_text().startswith("V1")}
        for fine in (True, False)
    ]
    assert drawn[0] == {"V1"} and drawn[1] != drawn[0]  # all that was recorded; what the model sees, V1 marked


def test_resume_and_config_keep_the_leads(two_leads, few, tmp_path, run_script):
    shutil.copytree(two_leads, tmp_path / "run")
    cache = ("--cache", two_leads.parent / "cache", "--workers", 1)
    other = run_script("train.py", "--folder", "run", "--resume", "--leads", "I", *cache, cwd=tmp_path, check=False)
    assert other.returncode and "--leads ['I'] (was ['I', 'II'])" in other.stderr
    run_script("train.py", "--folder", "run", "--resume", "--epochs", 2, *cache, cwd=tmp_path)
    assert len(history(tmp_path / "run" / "history.csv")) == 2
    assert load_predictor(tmp_path / "run").signal_config.leads == ("I", "II")
    run_script("train.py", "--config", two_leads / "config.json", "--folder", "again", *cache, cwd=tmp_path)
    assert history(tmp_path / "again" / "history.csv") == history(two_leads / "history.csv")


def test_pretraining_of_some_leads_hands_them_over(few, tmp_path, run_script):
    sizes = "--width 16 --depth 1 --n_heads 2 --epochs 1 --seq_length 400 --k_steps_ahead 5 20".split()
    flags = ("--input_folder", few, "--folder", "run", "--workers", 1)
    run_script("pretrain.py", *flags, "--leads", "V1", "II", *sizes, cwd=tmp_path)
    run_script("train.py", *flags, "--epochs", 1, cwd=tmp_path)
    assert load_predictor(tmp_path / "run").signal_config.leads == ("II", "V1")
    run_script("report.py", "run", "--input_folder", few, "--out", "report.html", cwd=tmp_path)
    assert "of leads II, V1 at 100 Hz" in (tmp_path / "report.html").read_text()


# ---- what cannot be established


@pytest.mark.parametrize(
    "leads, beyond",
    [
        (LEADS, ""),
        (LEADS[:6], "CRBBB IRBBB NSIVCB"),
        (("I", "II"), "CRBBB IRBBB NSIVCB"),
        (("III", "aVR", "V1"), ""),
        (("I", "V2"), "LAD RAD LAnFB LQRSV QAb"),
        (("I",), "LAD RAD LAnFB LQRSV CRBBB IRBBB NSIVCB QAb"),
        (("V1",), "LAD RAD LAnFB LQRSV NSIVCB QAb"),
        (LEADS[6:], "LAD RAD LAnFB"),
    ],
)
def test_leads_that_diagnoses_need(leads, beyond):
    assert set(needs(CLASSES.members, leads)) == columns_of(beyond)


def test_needs_are_said_by_leads():
    found = needs(CLASSES.members, ("I", "V2"))
    assert needs_text(found, CLASSES).startswith("LAnFB, LAD, RAD (two limb leads); LQRSV (two limb leads or V1 to V6)")


def test_the_table_of_needs_names_known_codes_and_leads_once():
    codes = [code for codes, _, _ in NEEDS for code in codes.split()]
    known = {code for line in (ROOT / "data" / "challenge").glob("dx_*.csv") for code in line.read_text().split(",")}
    assert len(set(codes)) == len(codes) and set(codes) <= known
    assert {name for _, _, enough in NEEDS for leads in enough for name in leads} <= set(LEADS)
    for name in ("cinc2020", "cinc2021", "cpsc2018"):
        assert needs(load_class_set(name).members, LEADS) == {}


def test_predict_says_what_lead_one_cannot_establish(tmp_path, capsys):
    signal = fake_ecg(np.random.default_rng(0))
    write_record(tmp_path, "one", signal[:1])
    write_record(tmp_path, "all", signal)
    assert predict.main([str(tmp_path / "one"), "--all"]) == 0
    text = capsys.readouterr().out
    assert "warning: cannot be established for lack of leads" in text and "LAD, RAD (two limb leads)" in text
    assert "\n  missing leads: the network is told which leads are missing\n" in text
    assert "?: cannot be established without other leads" in text
    marked = {line.split()[-4] for line in text.splitlines() if line.endswith(" ?")}
    assert marked == set("LAD RAD LAnFB LQRSV CRBBB IRBBB NSIVCB QAb".split())
    assert predict.main([str(tmp_path / "all"), "--all"]) == 0
    assert "established" not in capsys.readouterr().out
    assert predict.main([str(tmp_path / "one"), str(tmp_path / "all"), "--json"]) == 0
    one, every = json.loads(capsys.readouterr().out)["recordings"]
    assert {row["needs"] for row in one["diagnoses"] if row["abbreviation"] in ("LAD", "RAD")} == {"two limb leads"}
    assert {row["needs"] for row in every["diagnoses"]} == {None}


@pytest.mark.filterwarnings("ignore:missing, set to zero")
def test_an_array_of_lead_one_warns():
    signal = fake_ecg(np.random.default_rng(0))
    with pytest.warns(UserWarning, match="cannot be established for lack of leads.*LAD, RAD"):
        load_predictor(ROOT / "mdl").classify(signal[:1], 500, unit="uV", leads=["I"])


def test_spellings_are_those_of_headers():
    assert standard_leads(["ECG II"]) == (lead_name("ECG II"),) == ("II",)
