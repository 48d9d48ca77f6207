"""run_12ECG_classifier.py as programs and people call it: every form that is meant, and what is said of all others."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import run_12ECG_classifier as interface
from data.labels import load_class_set
from data.records import RecordError, read_record
from engine.inference import Predictor
from engine.run_folder import RunError

RECORD = Path(interface.__file__).parent / "data" / "sample" / "georgia" / "E00001"
HEADER = RECORD.with_suffix(".hea")
CALL = r"call run_12ECG_classifier\(data, header_data, model\), or .*readlines\(\)"


@pytest.fixture(scope="module")
def model(untrained_run):
    return interface.load_12ECG_model(untrained_run(load_class_set("cinc2020")).path)


@pytest.fixture(scope="module")
def adc():
    return read_record(str(RECORD))[0]


@pytest.fixture(scope="module")
def lines():
    return HEADER.read_text().splitlines(keepends=True)


@pytest.fixture(scope="module")
def expected(model, adc, lines):
    return interface.run_12ECG_classifier(adc, lines, model)


def same(answer, expected):
    label, score, classes = answer
    return label.tolist() == expected[0].tolist() and score.tolist() == expected[1].tolist() and classes == expected[2]


@pytest.mark.parametrize(
    "form",
    [
        lambda lines: [line.rstrip("\n") for line in lines],
        lambda lines: tuple(lines),
        lambda lines: iter(lines),
        lambda lines: np.array(lines),
        lambda lines: "".join(lines),
        lambda lines: "\r\n".join(line.rstrip("\n") for line in lines),
        lambda lines: ["\ufeff" + lines[0], *lines[1:], "\n", "\n"],
    ],
)
def test_forms_of_a_header(form, model, adc, lines, expected):
    assert same(interface.run_12ECG_classifier(adc, form(lines), model), expected)


def test_an_open_header_and_names_of_arguments(model, adc, lines, expected):
    with open(HEADER) as header:
        assert same(interface.run_12ECG_classifier(adc, header, model), expected)
    assert same(interface.run_12ECG_classifier(data=adc, header_data=lines, model=model), expected)
    label, score = interface.run_12ECG_classifier(adc, lines, classes=["AF", 426783006], model=model)
    columns = [expected[2].index("164889003"), expected[2].index("426783006")]
    assert label.tolist() == expected[0][columns].tolist() and score.tolist() == expected[1][columns].tolist()
    label, score = interface.run_12ECG_classifier(adc, lines, np.array(["AF"]), model)
    assert len(label) == len(score) == 1
    label, score = interface.run_12ECG_classifier(adc, lines, [], model)
    assert len(label) == len(score) == 0
    with pytest.warns(UserWarning, match="does not know the classes .*flu"):
        label, score = interface.run_12ECG_classifier(adc, lines, ["flu", "AF"], model)
    assert label[0] == score[0] == 0 and score[1] == expected[1][columns[0]]


@pytest.mark.parametrize(
    "form",
    [
        lambda adc: adc.tolist(),
        lambda adc: adc.astype(np.float64),
        lambda adc: adc.astype(np.float32),
        lambda adc: adc.astype(np.int64),
        lambda adc: adc.astype(">i2"),
        lambda adc: np.asfortranarray(adc),
        lambda adc: np.broadcast_to(adc, adc.shape),  # read-only
        lambda adc: torch.from_numpy(adc.copy()),
    ],
)
def test_forms_of_a_signal(form, model, adc, lines, expected):
    assert same(interface.run_12ECG_classifier(form(adc), lines, model), expected)


@pytest.mark.parametrize(
    "header, error, named",
    [
        (500, TypeError, r"header_data is 500 \(int\)"),
        (500.0, TypeError, r"header_data is 500.0 \(float\)"),
        (None, TypeError, "header_data is NoneType"),
        (HEADER, TypeError, "header_data is a PosixPath"),
        (str(HEADER), ValueError, r"header_data is '.*' \(str\), one line, maybe a path"),
        ("", ValueError, "one line, maybe a path"),
        ([], ValueError, "header_data is empty"),
        (b"E1 12 500\n", TypeError, "header_data is b'E1 12 500"),
        ([b"E1 12 500"], TypeError, r"header_data holds b'E1 12 500' \(bytes\), not lines of text"),
        ([500, 12], TypeError, r"header_data holds 500 \(int\)"),
        ({"fs": 500}, TypeError, "header_data is a dict"),
        (np.zeros((12, 5000)), TypeError, "header_data holds a ndarray"),
    ],
)
def test_what_is_not_a_header_is_said_with_the_right_call(header, error, named, model, adc):
    with pytest.raises(error, match=f"{named}.*{CALL}"):
        interface.run_12ECG_classifier(adc, header, model)


@pytest.mark.parametrize(
    "form, error, named",
    [
        (lambda adc: None, TypeError, "data is NoneType"),
        (lambda adc: str(RECORD), TypeError, r"data is '.*' \(str\)"),
        (lambda adc: adc.astype(str), TypeError, "data is a ndarray of <U"),
        (lambda adc: adc.astype(object), TypeError, "of object, not of numbers"),
        (lambda adc: adc > 0, TypeError, "of bool, not of numbers"),
        (lambda adc: adc.astype(complex), TypeError, "of complex128, not of numbers"),
        (lambda adc: adc[0], ValueError, r"data has the shape \(5000,\), not \(leads, samples\)"),
        (lambda adc: adc[None], ValueError, r"data has the shape \(1, 12, 5000\)"),
        (lambda adc: [[1, 2], [3]], ValueError, "rows differ in length"),
    ],
)
def test_what_is_not_a_signal_is_said_with_the_right_call(form, error, named, model, adc, lines):
    with pytest.raises(error, match=f"{named}.*{CALL}"):
        interface.run_12ECG_classifier(form(adc), lines, model)


@pytest.mark.parametrize(
    "form, named",
    [
        (lambda adc: adc.T, r"E00001: data has the shape \(5000, 12\), samples x leads; .* pass data.T"),
        (lambda adc: adc[:2], "2 leads x 5000 samples, the header announces 12 x 5000"),
        (lambda adc: adc[:, :100], "12 leads x 100 samples"),
        (lambda adc: adc[:, :0], "12 leads x 0 samples"),
    ],
)
def test_a_signal_that_is_not_the_headers_is_a_record_error(form, named, model, adc, lines):
    with pytest.raises(RecordError, match=named):
        interface.run_12ECG_classifier(form(adc), lines, model)


def test_a_header_of_segments_says_how_to_read_it(model, adc):
    with pytest.raises(RecordError, match="lists segments.*read_record.*model.read"):
        interface.run_12ECG_classifier(adc, ["M/2 12 500 5000", "M_1 2500", "M_2 2500"], model)


def test_what_is_not_a_model_or_not_a_list_of_classes(model, adc, lines):
    for arguments in ((), ("mdl",), (["AF"],), (model, ["AF"]), (["AF"], "mdl")):
        with pytest.raises(TypeError, match=f"model is .*{CALL}"):
            interface.run_12ECG_classifier(adc, lines, *arguments)
    for classes in ("AF", b"AF", {"AF", "PVC"}, 5):
        with pytest.raises(TypeError, match=f"classes is .*, not a list of str: {CALL}"):
            interface.run_12ECG_classifier(adc, lines, classes, model)


def test_the_model_of_a_folder(model, adc, untrained_run, monkeypatch, tmp_path):
    run = untrained_run(load_class_set("cinc2020")).path
    monkeypatch.setenv("HOME", str(run.parent))
    assert isinstance(interface.load_12ECG_model(f"~/{run.name}"), Predictor)
    for wrong in (tmp_path / "none", HEADER, tmp_path):
        with pytest.raises(RunError, match=wrong.name):
            interface.load_12ECG_model(wrong)


def test_the_example_of_the_module_gives_the_same_numbers(model, adc, expected):
    signal, covariates = model.read(*read_record(str(RECORD)))
    y_score = model.predict([signal], covariates[None])
    assert y_score[0].tolist() == expected[1].tolist()
    assert model.decide(y_score)[0].astype(int).tolist() == expected[0].tolist()


def test_what_is_suspicious_is_a_warning(model, adc, lines):
    """As in driver.py: here millivolts where the header speaks of ADC values, the most common slip."""
    with pytest.warns(UserWarning, match="E00001: amplitudes are about 1000 times too small") as caught:
        interface.run_12ECG_classifier(adc / 1000, lines, model)
    assert {warning.filename for warning in caught} == {interface.__file__}


@pytest.mark.parametrize("arguments, status", [((), 2), (("IN", "OUT"), 2), (("--help",), 0), (("-h",), 0)])
def test_as_a_script_it_says_what_it_is(arguments, status, capsys):
    assert interface.main(arguments) == status
    out, err = capsys.readouterr()
    assert "python driver.py IN OUT" in (err if status else out)
    assert ("run_12ECG_classifier(data, header_data, model)" in out) == (status == 0)


def test_help_of_the_file_itself(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [interface.__file__, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(interface.__file__, run_name="__main__")
    out, err = capsys.readouterr()
    assert caught.value.code == 0 and out == f"{interface.__doc__}\n" and err == ""
