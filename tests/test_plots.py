"""Pictures: an ECG true to scale, what it marks, and the curves of a training."""

import math
import re
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, fake_ecg

from engine.plots import LEADS, SHADES, history_figure, plot_ecg, plot_history, save

MM_PER_INCH = 25.4
FREQ = 500


def flat(seconds=10.0):
    return np.zeros((12, round(seconds * FREQ)), np.float32)


def millimetres(figure, axes, points):
    """Where data points (n, 2) come to lie on the printed page, mm from its lower left corner."""
    return axes.transData.transform(points) / figure.dpi * MM_PER_INCH


def traces(axes):
    """Lines of signal: x and y of every line of more than a hundred points, grid aside."""
    return [line for line in axes.lines if len(line.get_xdata()) > 100 and line.get_color() == "#000000"]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_pulse_has_its_size_on_paper():
    """1 mV for 0.4 s in lead II must be 10 mm high and 10 mm wide, measured through the axes and the page size."""
    signal = flat()
    signal[1, 500:700] = 1.0
    figure = plot_ecg(signal, FREQ)
    axes = figure.axes[0]
    strip = traces(axes)[-1]  # the rhythm strip
    page = millimetres(figure, axes, strip.get_xydata())  # (n, 2)
    assert np.ptp(page[:, 1]) == pytest.approx(10, abs=0.01)
    high = page[page[:, 1] > page[:, 1].min() + 5]
    assert np.ptp(high[:, 0]) == pytest.approx(25 * 199 / FREQ, abs=0.01)
    assert np.ptp(page[:, 0]) == pytest.approx(250, abs=0.1)
    pulse = next(line for line in axes.lines if str(line.get_gid()).startswith("calibration"))
    corners = millimetres(figure, axes, pulse.get_xydata())
    assert np.ptp(corners[:, 1]) == pytest.approx(10, abs=0.01)
    assert corners[3, 0] - corners[2, 0] == pytest.approx(5, abs=0.01)


def test_the_pdf_has_the_page_size_of_the_figure(tmp_path):
    """The same pulse in the file that is printed: its coordinates in points of 1/72 inch."""
    signal = flat()
    signal[1, 500:700] = 1.0
    figure = plot_ecg(signal, FREQ)
    save(figure, tmp_path / "ecg.pdf")
    content = (tmp_path / "ecg.pdf").read_bytes()
    box = [float(value) for value in re.search(rb"/MediaBox \[ ([\d. ]+) \]", content)[1].split()]
    size = figure.get_size_inches()
    assert box[2:] == pytest.approx([72 * size[0], 72 * size[1]], abs=0.1)
    assert box[2] / 72 * MM_PER_INCH == pytest.approx(10 + 250 + 2 * 8, abs=0.1)  # pulse, ten seconds, margins
    drawn = b"".join(
        zlib.decompress(part) for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)[:1]
    )
    points = np.array(re.findall(rb"([\d.]+) ([\d.]+) [ml]\b", drawn), float) / 72 * MM_PER_INCH
    jumps = np.abs(np.diff(points, axis=0))
    upright = jumps[(jumps[:, 0] < 0.06) & (jumps[:, 1] > 9) & (jumps[:, 1] < 11), 1]  # edges of 1 mV
    assert len(upright) >= 4 and upright == pytest.approx(np.full(len(upright), 10.0), abs=0.05)


def test_every_lead_is_named_and_drawn_in_its_place():
    """Each lead carries a pulse at a height of its own: the traces in reading order must show them."""
    signal = flat()
    heights = 0.1 * np.arange(1, 13, dtype=np.float32)
    signal[:, 200::500] = heights[:, None]  # a spike each second
    figure = plot_ecg(signal, FREQ)
    lines = traces(figure.axes[0])
    assert len(lines) == 13
    found = [np.ptp(line.get_ydata()) / 10 for line in lines]
    by_row = [row + 3 * column for row in range(3) for column in range(4)] + [1]
    assert found == pytest.approx(heights[by_row].tolist(), abs=1e-4)
    assert [text for text in texts(figure) if text in LEADS] == [LEADS[lead] for lead in by_row]
    starts = [line.get_xdata()[0] for line in lines[:4]]
    assert np.diff(starts) == pytest.approx([62.5] * 3)  # 2.5 s


def test_neighbours_do_not_cross_where_voltages_are_high():
    rng = np.random.default_rng(0)
    signal = 4 * fake_ecg(rng).astype(np.float32) / 1000  # up to 3.6 mV
    lines = traces(plot_ecg(signal, FREQ).axes[0])
    for column in range(4):
        rows = [lines[4 * row + column] for row in range(3)]
        for upper, lower in zip(rows, rows[1:]):
            assert upper.get_ydata().min() > lower.get_ydata().max()


def test_missing_leads_are_marked_and_not_drawn():
    figure = plot_ecg(flat(), FREQ, missing=("V1", "V6"))
    assert len(traces(figure.axes[0])) == 11
    assert {"V1 (missing)", "V6 (missing)"} <= set(texts(figure)) and "V1" not in texts(figure)


@pytest.mark.parametrize("seconds", [0.01, 1, 2.6, 9.99])
def test_short_recordings(seconds):
    lines = [line for line in plot_ecg(flat(seconds), FREQ).axes[0].lines if line.get_linewidth() == 0.7]
    longest = max(np.nanmax(line.get_xdata()) for line in lines if line.get_gid() is None and len(line.get_xdata()) > 2)
    assert longest == pytest.approx(10 + 25 * (round(seconds * FREQ) - 1) / FREQ, abs=0.1)


def test_long_recordings_are_cut_with_a_note():
    signal = flat(1800)
    signal[1, 1000 * FREQ + 250 :] = 2.0
    figure = plot_ecg(signal, FREQ, start=1000)
    assert any("shown: 1000 to 1010 s of 1800 s" in text for text in texts(figure))
    strip = traces(figure.axes[0])[-1]
    step = strip.get_xdata()[np.argmax(np.diff(strip.get_ydata()))]
    assert step == pytest.approx(10 + 25 * 0.5, abs=0.1)
    assert not any("shown" in text for text in texts(plot_ecg(flat(), FREQ)))


def test_shading_lies_where_it_was_asked_for():
    figure = plot_ecg(flat(), FREQ, start=0, shading=[("AF", [("V1", 5.0, 5.2), ("V1", 1.0, 2.0), ("II", 3.0, 3.1)])])
    shaded = [patch for patch in figure.axes[0].patches if patch.get_alpha() == 0.25]
    spans = sorted((patch.get_x(), patch.get_width()) for patch in shaded)
    # V1 is on the page from 5 to 7.5 s only, II in its column to 2.5 s and all along the rhythm strip
    assert spans == [pytest.approx((10 + 75, 2.5)), pytest.approx((10 + 125, 5))]
    assert "AF" in texts(figure) and shaded[0].get_facecolor()[:3] == pytest.approx(
        tuple(int(SHADES[0][i : i + 2], 16) / 255 for i in (1, 3, 5))
    )


@pytest.mark.parametrize(
    "arguments, fault",
    [
        ((np.zeros((3, 100)), FREQ), "12, samples"),
        ((np.zeros((12, 0)), FREQ), "12, samples"),
        ((np.full((12, 100), np.nan), FREQ), "NaN"),
        ((np.zeros((12, 100)), 0), "positive"),
    ],
)
def test_what_cannot_be_drawn_says_why(arguments, fault):
    with pytest.raises(ValueError, match=fault):
        plot_ecg(*arguments)
    with pytest.raises(ValueError, match="within the recording"):
        plot_ecg(flat(), FREQ, start=10)
    with pytest.raises(ValueError, match="V9"):
        plot_ecg(flat(), FREQ, missing=["V9"])


@pytest.mark.parametrize("name, start", [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.SVG", b"<?xml")])
def test_formats(tmp_path, name, start):
    save(plot_ecg(flat(1), FREQ), tmp_path / name, dpi=50)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [file.name for file in tmp_path.iterdir()] == [name]  # no temporary file is left
    with pytest.raises(ValueError, match=".png, .pdf, .svg"):
        save(plot_ecg(flat(1), FREQ), tmp_path / "a.doc")


def test_history_is_drawn_from_numbers_and_from_texts(tmp_path):
    rows = [
        {"epoch": i, "train_loss": 1 / i, "valid_loss": 2 / i, "auroc": float("nan"), "challenge_metric": 0.1 * i}
        for i in (1, 2, 3)
    ]
    plot_history(rows[:1], tmp_path / "history.png")
    first = (tmp_path / "history.png").read_bytes()
    plot_history(rows, tmp_path / "history.png")
    second = (tmp_path / "history.png").read_bytes()
    assert first.startswith(b"\x89PNG") and first != second
    plot_history([{key: str(value) for key, value in row.items()} for row in rows], tmp_path / "texts.png")
    assert (tmp_path / "texts.png").read_bytes() == second
    plot_history([{"epoch": 1, "seconds": 2.0}], tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").exists()


def test_inference_does_not_import_what_it_does_not_need():
    """The driver and the organisers' entry point must start without what draws or reads tables, and without SciPy:
    scipy.signal takes longer than a recording.
    """
    code = "import sys, driver, predict, run_12ECG_classifier; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "data.rhythm" in loaded, done.stderr
    assert not loaded & {"matplotlib", "jinja2", "pandas", "wfdb", "scipy"}


def test_what_was_not_validated_has_no_panel():
    rows = [{"epoch": i, "train_loss": 1 / i, "valid_loss": "nan", "auroc": math.nan} for i in (1, 2, 3)]
    figure = history_figure(rows)
    assert [axes.get_title() for axes in figure.axes] == ["loss"]
    assert len(figure.axes[0].lines) == 1
