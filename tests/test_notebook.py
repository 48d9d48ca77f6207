"""The model in a notebook elsewhere: torch.hub loads it from the clone, beside packages of the same names, and
Predictor.classify gives for an array what the Challenge's function gives for the file.
"""

import ast
import json
import runpy
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import wfdb
from conftest import ENVIRONMENT, LEADS, ROOT
from test_structure import PACKAGES, module_file, reachable

from data.formats.arrays import array_header
from data.headers import parse_header
from data.records import RecordError, find_records, read_header, read_record
from engine.inference import load_predictor
from run_12ECG_classifier import run_12ECG_classifier

CELLS = """
import json, sys
import data
import torch
model = torch.hub.load(sys.argv[1], "ecg_classifier", source="local")
import engine.mine, models
import numpy as np
table = model.classify(np.load("array.npy"), 500, unit="mV")
own = [data.WHOSE, models.WHOSE, engine.mine.WHOSE]
again = torch.hub.load(sys.argv[1], "ecg_classifier", source="local")
loaded = [name for name in sys.modules if name.split(".")[0] in ("data", "engine", "models")]
print(json.dumps([own, table["probability"].tolist(), loaded, sys.argv[1] in sys.path]))
"""


@pytest.fixture(scope="module")
def model():
    return load_predictor(ROOT / "mdl")


@pytest.fixture(scope="module")
def recording(sample):
    """Record, and its millivolts (12, n) as wfdb reads them."""
    record = find_records(sample / "georgia")[0]
    return record, wfdb.rdsamp(record.path)[0].T


def probabilities(model, record):
    """By the Challenge's function, from the file."""
    lines = open(record.header_path).readlines()
    return run_12ECG_classifier(read_record(record)[0], lines, model)


@pytest.mark.slow
def test_own_packages_of_the_same_names_stay_what_they_are(model, recording, tmp_path):
    record, signal = recording
    for name in ("data", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("WHOSE = 'mine'\n")
    (tmp_path / "engine").mkdir()  # without an __init__.py: what Python calls a namespace package
    (tmp_path / "engine" / "mine.py").write_text("WHOSE = 'mine'\n")
    (tmp_path / "notebook.py").write_text(CELLS)
    np.save(tmp_path / "array.npy", signal)
    command = [sys.executable, "notebook.py", str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    own, found, loaded, on_path = json.loads(done.stdout)
    assert own == ["mine"] * 3 and sorted(loaded) == ["data", "engine", "engine.mine", "models"] and not on_path
    np.testing.assert_allclose(found, model.classify(signal, 500, unit="mV")["probability"], atol=1e-6)


def test_what_inference_needs_is_imported_at_once():
    """Nothing later: by then the packages may be somebody else's. A Predictor reads no signal files."""
    for name in reachable("engine.inference") - {"data.signal_files"}:
        tree = ast.parse(module_file(name).read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        late = [n.module for f in functions for n in ast.walk(f) if isinstance(n, ast.ImportFrom)]
        assert not [module for module in late if module.split(".")[0] in PACKAGES], name


def test_an_array_is_answered_as_its_file(model, recording):
    record, signal = recording
    label, score, classes = probabilities(model, record)
    header = read_header(record.path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = model.classify(signal, 500, unit="mV", age=header.age, sex=header.sex)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["code", "abbreviation", "name", "probability", "called"]
    assert table["code"].tolist() == classes and table["called"].tolist() == label.astype(bool).tolist()
    np.testing.assert_allclose(table["probability"], score, atol=1e-5)
    assert table.set_index("abbreviation").loc["AF", "name"] == "atrial fibrillation"


@pytest.mark.parametrize("unit, per_millivolt", [("V", 1e-3), ("uV", 1e3), ("nV", 1e6)])
def test_units_and_leads_are_what_is_stated(model, recording, unit, per_millivolt):
    _, signal = recording
    expected = model.classify(signal, 500, unit="mV")["probability"]
    order = np.random.default_rng(0).permutation(12)
    leads = [LEADS[i].lower() for i in order]
    found = model.classify(signal[order] * per_millivolt, 500, unit=unit, leads=leads)["probability"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_few_leads_and_another_rate(model, recording, tmp_path):
    """Two limb leads at 250 Hz, in an array and in a file of 16 bits."""
    _, signal = recording
    counts = np.rint(signal[:2, ::2] * 1000).astype(np.int16)
    lines = ["two 2 250 2500", *(f"two.dat 16 1000/mV 16 0 0 0 0 {name}" for name in ("I", "II"))]
    _, score, _ = run_12ECG_classifier(counts, lines, model)
    with pytest.warns(UserWarning, match="missing, set to zero: V1, V2, V3, V4, V5, V6"):
        table = model.classify(counts, 250.0, unit="uV", leads=("I", "II"))
    np.testing.assert_allclose(table["probability"], score, atol=1e-6)


def test_what_is_suspicious_is_a_warning(model, recording):
    _, signal = recording
    with pytest.warns(UserWarning, match="about 1000 times too small for an ECG .* is the gain or unit wrong"):
        model.classify(signal, 500, unit="uV")
    with pytest.warns(UserWarning, match=r"does not hold .* are leads swapped"):
        model.classify(signal[[1, 0, 2, *range(3, 12)]], 500, unit="mV")
    holes = signal.copy()
    holes[3, 100:110] = np.nan
    with pytest.warns(UserWarning, match="10 invalid samples, interpolated"):
        model.classify(holes, 500, unit="mV")


@pytest.mark.parametrize("dtype, unit", [(np.float32, "mV"), (np.int16, "uV")])
def test_the_mask_of_an_array_marks_missing_samples(model, recording, dtype, unit):
    signal = np.rint(recording[1] * 1000)
    mask = np.zeros(signal.shape, bool)
    mask[3, 100:110] = True
    scale = 1 if unit == "uV" else 1000
    holes = np.where(mask, np.nan, (signal / scale).astype(dtype))
    masked = np.ma.array(np.where(mask, 9999, signal / scale), dtype, mask=mask, fill_value=0)
    with pytest.warns(UserWarning, match="10 invalid samples, interpolated"):
        expected = model.classify(holes, 500, unit=unit)
    with pytest.warns(UserWarning, match="10 invalid samples, interpolated"):
        found = model.classify(masked, 500, unit=unit)
    pd.testing.assert_frame_equal(found, expected)
    assert masked.mask.sum() == 10 and masked.dtype == dtype  # the caller's array stays as it is


@pytest.mark.parametrize(
    "change, message",
    [
        ({"signal": np.zeros((5000, 12))}, r"shape \(5000, 12\), not \(rows, samples\) with rows = 12, for I, II"),
        ({"signal": np.zeros((8, 5000))}, "rows = 12, for I, II"),
        ({"signal": np.zeros((8, 5000)), "leads": LEADS}, "rows = 12, the number of leads"),
        ({"signal": np.zeros((12, 0))}, "empty"),
        ({"signal": np.array([["a"] * 9] * 12)}, "not leads x samples"),
        ({"leads": ["x"] * 12}, "none of its leads"),
        ({"leads": ["I"] * 12}, "stands twice"),
        ({"unit": "mm"}, "unit 'mm' is not V, mV, uV or nV"),
        ({"unit": None}, "unit None is not"),
        ({"sample_freq": 0}, "sample_freq 0 is not a rate in Hz"),
        ({"sample_freq": float("nan")}, "sample_freq nan is not"),
        ({"sample_freq": "500"}, "sample_freq '500' is not"),
        ({"age": -1}, "age -1 is not a number of years"),
        ({"age": "50"}, "age '50' is not"),
        ({"sex": "x"}, "sex 'x' is not Male, Female, M or F"),
    ],
)
def test_what_cannot_be_used_is_an_error(model, change, message):
    arguments = {"signal": np.zeros((12, 5000)), "sample_freq": 500, "unit": "mV"} | change
    with pytest.raises(RecordError, match=message):
        model.classify(**arguments)


def test_the_unit_must_be_stated(model):
    with pytest.raises(TypeError, match="unit"):
        model.classify(np.zeros((12, 5000)), 500)


def test_the_header_of_an_array_is_that_of_a_file():
    lines = ["array 2 500 1000", *(f"x.dat 16 1/mV 16 0 0 0 0 {name}" for name in ("I", "V1")), "#Age: 50", "#Sex: F"]
    written = parse_header(lines)
    made = array_header(1000, 500, ("I", "V1"), "mV", 50, "f")
    for name in ("n_leads", "sample_freq", "n_samples", "age", "sex", "lead_names", "dx", "segments"):
        assert getattr(made, name) == getattr(written, name), name
    for ours, theirs in zip(made.leads, written.leads):
        assert (ours.gain, ours.baseline, ours.unit) == (theirs.gain, theirs.baseline, theirs.unit)


def test_torch_hub_sees_one_entry():
    """Everything there that can be called and does not begin with an underscore is offered to users."""
    found = runpy.run_path(str(ROOT / "hubconf.py"))
    assert [name for name in found if callable(found[name]) and not name.startswith("_")] == ["ecg_classifier"]


def test_torch_hub_asks_for_nothing_that_an_array_does_not_need(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "wfdb", None)  # not installed
    hub = torch.hub.load(str(ROOT), "ecg_classifier", source="local")
    array = np.random.default_rng(0).normal(0, 0.3, (12, 5000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pd.testing.assert_frame_equal(hub.classify(array, 500, unit="mV"), model.classify(array, 500, unit="mV"))
