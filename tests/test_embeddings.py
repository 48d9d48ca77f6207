"""driver.py --embeddings: features by which classes can be told apart by a line, and that are those of the models."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_docs import blocks

import driver
from data.inputs import read_input
from data.labels import load_class_set
from data.preprocess import to_millivolts
from data.records import find_records, read_header
from engine.inference import load_predictor
from engine.windows import Windows
from models import build_model
from models.folding import fold_norms


@pytest.fixture(scope="module")
def embedded(sample, tmp_path_factory):
    """The arrays of all shipped recordings, and the Predictor: one network of the shipped ensemble, and a small
    untrained one with another window.
    """
    file = tmp_path_factory.mktemp("embedded") / "sub" / "features.npz"
    predictor = load_predictor(ROOT / "mdl" / "ensemble")
    small = build_model({"stem": 8, "widths": [8, 8], "depths": [1, 1], "n_classes": len(predictor.class_set)})
    predictor.models = [predictor.models[0], fold_norms(small)]
    predictor.windows = [Windows(250, 125), Windows(400, 0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "load_predictor", lambda folder, device: predictor)
        driver.main([str(sample), str(file.parent / "out"), "--embeddings", str(file)])
    with np.load(file) as arrays:
        return dict(arrays), predictor


def test_every_recording_has_a_row(embedded, sample):
    arrays, _ = embedded
    assert sorted(arrays) == ["covariates", "features", "member", "record"]
    assert arrays["record"].tolist() == [record.name for record in find_records(sample)]
    assert arrays["features"].shape == (140, 400) and arrays["features"].dtype == np.float32
    assert arrays["member"].tolist() == [0] * 384 + [1] * 16


def test_features_and_covariates_give_the_probability_of_a_window(embedded, sample):
    """The head's linear layer on the features of a single window, against the network; and the mean of windows."""
    arrays, predictor = embedded
    i = 17
    signal, covariates, _, _ = read_input(find_records(sample)[i], predictor.signal_config)
    np.testing.assert_array_equal(arrays["covariates"][i], covariates)
    x = torch.from_numpy(to_millivolts(signal))
    n = x.shape[1]
    assert n == 1518  # 12 windows of 250 that overlap by half, 4 of 400 that need not
    for member, (model, length, n_windows) in enumerate(zip(predictor.models, (250, 400), (12, 4))):
        starts = [i * (n - length) // (n_windows - 1) for i in range(n_windows)]
        windows = [x[:, start : start + length] for start in starts]
        with torch.inference_mode():
            pooled = [torch.cat([f.mean(2), f.amax(2)], 1)[0] for f in (model.encoder(w[None]) for w in windows)]
            logits = model(windows[0][None], None, torch.from_numpy(covariates)[None])[0]
            by_hand = model.head.linear(torch.cat([pooled[0], torch.from_numpy(covariates)]))
        torch.testing.assert_close(by_hand, logits)
        found = arrays["features"][i, arrays["member"] == member]
        np.testing.assert_allclose(found, torch.stack(pooled).mean(0), atol=1e-4)


def test_a_line_tells_classes_apart(embedded, sample):
    """Ridge regression of atrial fibrillation, cross-validated; the AUROC by counting pairs."""
    arrays, _ = embedded
    classes = load_class_set("cinc2020")
    y = np.array([classes.encode(read_header(record.path).dx)[classes.column("AF")] for record in find_records(sample)])
    x = arrays["features"][:, arrays["member"] == 0]
    x = x - x.mean(0)
    x = np.c_[x / (x.std(0) + 1e-6), np.ones(len(x))]
    score = np.zeros(len(y))
    fold = np.arange(len(y)) % 5
    for k in range(5):
        a = x[fold != k]
        kernel = a @ a.T + 1000 * np.eye(len(a))
        score[fold == k] = x[fold == k] @ (a.T @ np.linalg.solve(kernel, y[fold != k]))
    pairs = score[y == 1][:, None] > score[y == 0]
    assert y.sum() >= 5 and pairs.mean() > 0.9


def test_the_documented_probe(embedded, tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    arrays, _ = embedded
    np.savez(tmp_path / "features.npz", **arrays)
    (code,) = [block for block in blocks(ROOT / "docs" / "python.md", "python") if "sklearn" in block]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IN").symlink_to(ROOT / "data" / "sample")
    exec(code, {})


@pytest.mark.parametrize(
    "name, message", [("features.csv", "ends in .npz"), ("folder.npz", "ends in .npz"), ("in.npz/x/f.npz", "cannot be")]
)
def test_a_file_that_cannot_be_written_is_refused_before(name, message, sample, tmp_path):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "in.npz").write_text("mine")
    with pytest.raises(SystemExit, match=message):
        driver.main([str(sample), str(tmp_path / "out"), "--embeddings", str(tmp_path / name)])
    assert not (tmp_path / "out").exists() and (tmp_path / "in.npz").read_text() == "mine"


def test_it_needs_all_recordings(tmp_path, sample, capsys):
    with pytest.raises(SystemExit):
        driver.main([str(sample), str(tmp_path), "--embeddings", str(tmp_path / "f.npz"), "--skip_existing"])
    assert "--embeddings needs all recordings of IN at once" in capsys.readouterr().err
