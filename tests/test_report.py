"""report.py: numbers against slow plain ones, and the page in a browser."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, history

import report
from data.labels import load_class_set
from engine.bootstrap import areas, counts, draw_weights, interval
from engine.inference import load_predictor
from engine.metrics import challenge_metric, compute_scores, load_weights, normal_column
from engine.report_data import (
    Predictions,
    confusion,
    curves,
    losses,
    reliability,
    score,
    threshold_for,
    validation_predictions,
)
from engine.report_plots import svg
from engine.run_folder import RunFolder
from models import build_encoder
from models.next_sample import NextSampleModel

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
BROWSER_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
).split()


CARD = (ROOT / "mdl" / "README.md").read_text(encoding="utf-8").partition("## ensemble")[2]


@pytest.fixture(scope="module")
def answers():
    """Random answers of 60 recordings of the 24 classes; scores have ties."""
    rng = np.random.default_rng(0)
    class_set = load_class_set("cinc2020")
    y_true = rng.random((60, 24)) < 0.2
    y_true[:, 3] = False
    y_score = np.round(rng.random((60, 24)) * 0.5 + 0.3 * y_true, 1)
    names = [f"{'ab'[i % 2]}/R{i}" for i in range(60)]
    return Predictions(names, [()] * 60, y_true, y_true, y_score, y_score > 0.4, "here"), class_set


def test_areas_of_a_draw_are_those_of_the_repeated_recordings(answers):
    """Against the official scores of recordings that really are repeated as often as they were drawn."""
    p, _ = answers
    weights = np.vstack([np.ones((1, 60), np.int16), draw_weights(60, 4)])
    assert (weights.sum(1) == 60).all()
    auroc, auprc = areas(p.y_true, p.y_score, weights)
    tp, fp, fn = counts(p.y_true, p.y_pred, weights)
    for i, row in enumerate(weights):
        rows = np.repeat(np.arange(60), row)
        wanted = compute_scores(p.y_true[rows], p.y_pred[rows], p.y_score[rows])
        assert auroc[i] == pytest.approx(wanted["auroc_classes"], nan_ok=True)
        assert auprc[i] == pytest.approx(wanted["auprc_classes"], nan_ok=True)
        assert tp[i].tolist() == (p.y_true & p.y_pred)[rows].sum(0).tolist()
        assert (fp + fn)[i].tolist() == (p.y_true ^ p.y_pred)[rows].sum(0).tolist()


def test_scores_and_their_intervals(answers):
    p, class_set = answers
    groups, weights = load_weights(2020)
    found = score(p, class_set)
    wanted = compute_scores(p.y_true, p.y_pred, p.y_score, weights, normal_column(groups))
    assert found.macro["auroc"][0] == pytest.approx(wanted["auroc"])
    assert found.macro["auprc"][0] == pytest.approx(wanted["auprc"])
    assert found.macro["f"][0] == pytest.approx(wanted["f_measure"])
    assert found.reward[0] == pytest.approx(wanted["challenge_metric"])
    for values in [*found.macro.values(), found.reward]:
        assert values[1] < values[0] < values[2]
    half = score(p, class_set, np.arange(0, 60, 2))
    assert half.n_records == 30 and half.positives.tolist() == p.y_true[::2].sum(0).tolist()
    wanted = challenge_metric(p.y_true[::2], p.y_pred[::2], weights, normal_column(groups))
    assert half.reward[0] == pytest.approx(wanted)
    low, high = interval(np.arange(1001.0)[:, None])
    assert (low[0], high[0]) == pytest.approx((25, 975))
    assert np.isnan(interval(np.full((10, 1), np.nan))).all()


def test_curves_confusion_thresholds_and_losses(answers):
    p, class_set = answers
    found = curves(p.y_true[:, 0], p.y_score[:, 0])
    fpr, sensitivity = found["roc"]
    official = compute_scores(p.y_true, p.y_pred, p.y_score)
    assert np.trapezoid(sensitivity, fpr) == pytest.approx(official["auroc_classes"][0])
    recall, precision = found["pr"]
    assert np.sum(np.diff(recall, prepend=0) * precision) == pytest.approx(official["auprc_classes"][0])
    assert curves(p.y_true[:, 3], p.y_score[:, 3]) is None
    counted = np.zeros((24, 24))
    for labels, outputs in zip(p.y_true, p.y_pred):
        for i in np.flatnonzero(labels):
            for j in np.flatnonzero(outputs):
                counted[i, j] += 1 / (labels | outputs).sum()
    assert confusion(p) == pytest.approx(counted)
    threshold, specificity, ppv = threshold_for(p.y_true[:, 0], p.y_score[:, 0], 0.9)
    called = p.y_score[:, 0] >= threshold
    assert called[p.y_true[:, 0]].mean() >= 0.9 and (p.y_score[:, 0] > threshold)[p.y_true[:, 0]].mean() < 0.9
    assert specificity == pytest.approx((~called[~p.y_true[:, 0]]).mean()) and ppv == p.y_true[called, 0].mean()
    log = torch.nn.functional.binary_cross_entropy(
        torch.tensor(p.y_score), torch.tensor(p.y_true, dtype=torch.float64), reduction="none"
    )
    some = (p.y_score > 0).all(1) & (p.y_score < 1).all(1)
    assert losses(p)[some] == pytest.approx(log.sum(1).numpy()[some])


def test_answers_out_of_fold_are_not_called_validation():
    """The shipped model trained on all recordings; its seven networks left some out each."""
    for folder, words in (("mdl", "made in the same way without it"), ("mdl/ensemble", "validation recordings")):
        assert words in validation_predictions(RunFolder(ROOT / folder), load_predictor(ROOT / folder)).where


def test_reliability_counts_every_answer():
    rng = np.random.default_rng(0)
    y_score = rng.random((2000, 3))
    promised, seen, n = reliability(rng.random((2000, 3)) < y_score, y_score)
    assert n.sum() == 6000 and len(n) == 10
    assert seen == pytest.approx(promised, abs=0.08) and promised == pytest.approx(np.arange(0.05, 1, 0.1), abs=0.02)


def test_svg_follows_the_theme_and_keeps_ids_apart():
    from engine.report_plots import COLORS, new_figure, style

    figure = new_figure(2, 2)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=COLORS[0])
    style(axes)
    text = svg(figure, "one")
    assert (
        "var(--c1)" in text and "var(--muted)" in text and "#000000" not in text and "http" not in text.split(">", 1)[1]
    )
    assert all(name.startswith("one-") for name in re.findall(r'id="([^"]*)"', text))
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(re.findall(r'id="([^"]*)"', text))


def test_foreseen_samples_are_the_models(tmp_path):
    """A model whose prediction is known, a ramp that goes on: what is drawn must be its values at its distances."""
    from engine.report_pretraining import foreseen, foreseen_page

    encoder = {"encoder": "transformer", "n_leads": 12, "patch": 8, "width": 16, "depth": 1, "n_heads": 2}
    model = NextSampleModel(build_encoder(encoder), [5, 20], [0.1] * 12).eval()
    torch.nn.init.normal_(model.head.out.weight)
    signal = np.random.default_rng(0).normal(size=(12, 800)).astype(np.float32)
    ahead = foreseen(model, signal, 400, 800)
    assert ahead.shape == (12, 21) and ahead[:, 0] == pytest.approx(signal[:, 399])
    with torch.inference_mode():
        prediction, future, _ = model(torch.from_numpy(signal[None]))
    frame = 400 // 8 - 1
    assert future[0, :, 0, frame].numpy() == pytest.approx(signal[:, 404])
    assert ahead[:, 5] == pytest.approx(prediction[0, :, 0, frame].numpy(), abs=1e-4)
    assert ahead[:, 20] == pytest.approx(prediction[0, :, 1, frame].numpy(), abs=1e-4)
    page = foreseen_page(model, signal, 80.0, 800)
    assert np.isnan(page[:, :90]).all() and np.isfinite(page[:, 99 : 99 + 21]).all()


@pytest.fixture(scope="module")
def page(tmp_path_factory, sample):
    """A report on the shipped ensemble with its worst recordings drawn from the sample."""
    out = tmp_path_factory.mktemp("report") / "report.html"
    report.main([str(ROOT / "mdl" / "ensemble"), "--input_folder", str(sample), "--out", str(out)])
    return out


def test_page_is_one_small_file_with_everything_in_it(page):
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 5_000_000
    for heading in ("What was trained", "Learning curves", "Scores by class", "Scores by source", "Calibration"):
        assert f">{heading}</a></h2>" in text
    for heading in ("ROC and precision-recall curves", "Reward-weighted confusion", "Thresholds", "Most wrong"):
        assert f">{heading}</a></h2>" in text
    of_card = re.search(r"\| AF \| [^|]*\|[^|]*\| (\d\.\d{3}) \(", CARD)[1]
    assert re.search(rf"atrial fibrillation \(AF\)</th>(<td[^>]*>\d+</td>)+<td[^>]*>{of_card} \(", text)
    assert not re.search(r"<script|@import|@font-face|(src|href)=.https?:|url\((?!#)", text)
    assert set(re.findall(r'<a href="#([^"]*)"', text)) <= set(re.findall(r'id="([^"]*)"', text))
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_contrast_of_both_themes():
    """WCAG AA: text at 4.5 to 1 or more, lines of curves at 3 to 1."""
    text = (ROOT / "data" / "page.html.j2").read_text(encoding="utf-8")
    themes = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in re.findall(r":root \{(.*?)\}", text, re.DOTALL)]
    assert len(themes) == 2

    def luminance(color):
        parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for theme in themes:
        for name in ("ink", "muted", "link", "c1", "c2", "c3", "c4", "c5"):
            for ground in ("page", "card"):
                light, dark = sorted((luminance(theme[name]), luminance(theme[ground])), reverse=True)
                ratio = (light + 0.05) / (dark + 0.05)
                assert ratio >= (3 if name.startswith("c") else 4.5), (name, ground, ratio)


def test_answers_of_the_driver_are_scored(tmp_path, sample, run_script):
    labels = sample / "georgia"
    run_script("driver.py", labels, tmp_path / "out", cwd=tmp_path)
    arguments = [str(ROOT / "mdl"), "--outputs", str(tmp_path / "out"), "--labels", str(labels)]
    report.main([*arguments, "--out", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "10 recordings: answers in" in text and 'class="paper"' in text
    with pytest.raises(SystemExit) as stop:
        report.main([*arguments[:3], "--labels", str(tmp_path)])
    assert stop.value.code not in (0, None)


@pytest.mark.parametrize(
    "run, headings, columns",
    [
        (
            "pretrained",
            ("What was pre-trained", "Loss and skill by distance", "The future, foreseen"),
            ("skill_persistence", "skill_linear"),
        ),
        (
            "pretrained_xresnet",
            ("What was pre-trained", "Loss and skill", "The hidden, filled in"),
            ("hidden_loss_leads", "skill_interpolation_stretches", "skill_linear", "beat_loss", "skill_rhythm"),
        ),
    ],
)
def test_own_pretraining_run_draws_what_was_predicted(run, headings, columns, few, tmp_path, request):
    folder = request.getfixturevalue(run)
    report.main([str(folder), "--input_folder", str(few), "--out", str(tmp_path / "page.html")])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    for heading in headings:
        assert f">{heading}</a></h2>" in text
    best = min(history(folder / "pretrain_history.csv"), key=lambda row: float(row["valid_loss"]))
    for column in columns:
        assert f"{float(best[column]):.3f}" in text
    assert text.count('class="paper"') == 3


@pytest.mark.parametrize("words", [["nowhere"], ["RUN", "--outputs", "x"]])
def test_wrong_command_lines(words, capsys):
    with pytest.raises(SystemExit) as stop:
        report.main(words)
    assert stop.value.code not in (0, None)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [390, 1400])
def test_page_in_a_browser(page, tmp_path, width):
    """No message in the console, no request beyond the file, and the page does not scroll sideways."""
    shown = tmp_path / "page.html"
    probe = "<script>document.title = [innerWidth, document.documentElement.scrollWidth].join(' ')</script>"
    shown.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{probe}</body>"), encoding="utf-8")
    # A window of headless Chromium is never narrower than 500 px, so that a frame of the width is measured.
    frame = f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
    report_back = "onmessage = e => document.title = e.data"
    shown.write_text(shown.read_text(encoding="utf-8").replace("document.title = [", "parent.postMessage(["), "utf-8")
    text = shown.read_text(encoding="utf-8").replace("].join(' ')</script>", "].join(' '), '*')</script>")
    shown.write_text(text, encoding="utf-8")
    outer = tmp_path / "outer.html"
    outer.write_text(f"<script>{report_back}</script><title>none</title>{frame}", encoding="utf-8")
    log = tmp_path / "net.json"
    done = subprocess.run(
        [
            BROWSER,
            *BROWSER_FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={log}",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
            outer.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    measured = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert measured, done.stderr[-2000:]
    assert int(measured[1]) == width and int(measured[2]) <= width
    assert "CONSOLE" not in done.stderr
    requests = set(re.findall(r'"url":"([^"]*)"', log.read_text(encoding="utf-8", errors="replace")))
    assert {Path(url).name for url in requests if url.startswith("file:")} <= {"outer.html", "page.html"}
    assert not {url for url in requests if url.startswith("http") and "google" not in url and "gvt1" not in url}
