"""Pictures: an ECG on its paper, and the curves of a training. Needs numpy and matplotlib only.

From a notebook:

    from engine.plots import plot_ecg
    plot_ecg(signal, 500)  # (12, n) mV at 500 Hz -> a matplotlib Figure

Nothing here uses pyplot, so no window opens and no state is shared; `save` writes a Figure to a file.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from data.files import write_atomically

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MM_PER_S, MM_PER_MV = 25.0, 10.0
MM_PER_INCH = 25.4
SECONDS = 10.0  # on a page
N_ROWS, N_COLUMNS = 3, 4  # of leads; under them the rhythm strip
PULSE = 10.0  # mm before the leads, for a calibration pulse of 5 mm
MARGIN, TITLE, FOOT = 8.0, 17.0, 11.0  # mm around the paper
ROW_LEAST, ROW_MOST = 20.0, 90.0  # mm between the zero lines of neighbouring rows
PAPER, FINE, COARSE, INK = "#fff8f6", "#f6d9d4", "#eab0a8", "#000000"
SHADES = ("#3b6fd4", "#d98a00", "#2f9e5b", "#a34ac1", "#c23b5a", "#4a4a4a")  # of explanations, told apart in grey too
FORMATS = (".png", ".pdf", ".svg")
DPI = 200

Stretches = Sequence[tuple[str, float, float]]  # (lead, from second, to second)


def plot_ecg(
    signal: np.ndarray,
    sample_freq: float,
    *,
    title: str = "",
    subtitle: str = "",
    start: float = 0.0,
    missing: Sequence[str] = (),
    shading: Sequence[tuple[str, Stretches]] = (),
    overlay: np.ndarray | None = None,
) -> Figure:
    """Draw ten seconds of a 12-lead ECG on paper, 25 mm/s and 10 mm/mV when printed at full size.

    Three rows of four leads of 2.5 s each, from left to right in time, over a rhythm strip of lead II. Each lead is
    drawn about its median. The page grows with high voltages, so that neighbours do not cross; a recording that is
    shorter leaves the rest of the page blank.

    Args:
        signal: (12, T) mV, leads in the order of LEADS.
        sample_freq: Hz.
        title: a line above the paper.
        subtitle: a smaller line under it.
        start: seconds into the recording where the page begins; the foot says what is shown of a long one.
        missing: names of leads that were not recorded: they are marked and not drawn.
        shading: for each thing that is shown as a colour its label and stretches, (lead, from second, to second).
        overlay: (12, T) mV drawn dashed over the signal, NaN where there is nothing, or None.

    Returns:
        Figure of known size in mm with one Axes, whose unit is the millimetre too; `save` writes it.

    Raises:
        ValueError: shape, rate, start or the name of a lead cannot be drawn.
    """
    signal = np.asarray(signal, np.float32)
    _check(signal, sample_freq, start, missing)
    first = round(start * sample_freq)
    part = slice(first, first + round(SECONDS * sample_freq))
    middle = np.median(signal[:, part], axis=1, keepdims=True)  # (12, 1)
    page = signal[:, part] - middle  # (12, n <= 10 s)
    offsets, height = _rows(page, sample_freq, missing)
    figure, axes = _sheet(PULSE + SECONDS * MM_PER_S, height)
    colors = [SHADES[i % len(SHADES)] for i in range(len(shading))]
    for color, (_, places) in zip(colors, shading):
        _shade(axes, places, color, start, offsets)
    for row, offset in enumerate(offsets):
        _pulse(axes, offset)
        for lead, begin, end in _cells(row):
            is_missing = LEADS[lead] in missing
            if is_missing:
                _dotted(axes, begin, end, offset)
            else:
                _line(axes, page[lead], sample_freq, begin, end, offset, color=INK, linewidth=0.7)
            if overlay is not None:
                ahead = overlay[lead, part] - middle[lead]
                dashes = {"color": SHADES[0], "linewidth": 1.1, "linestyle": (0, (2, 0.7))}
                _line(axes, ahead, sample_freq, begin, end, offset, **dashes)
            _name(axes, LEADS[lead], begin, offset, is_missing)
    _texts(axes, title, subtitle, _note(signal.shape[1] / sample_freq, start))
    _legend(axes, colors, [label for label, _ in shading])
    return figure


def on_page(values: np.ndarray, leads: Sequence[str], other: float) -> np.ndarray:
    """Rows for some leads, values (n_leads, T), as `plot_ecg` takes them: (12, T) with `other` in the rest."""
    page = np.full((len(LEADS), values.shape[1]), other, np.float32)
    page[[LEADS.index(name) for name in leads]] = values
    return page


def save(figure: Figure, file: str | os.PathLike, dpi: int = DPI) -> None:
    """Write a Figure as .png, .pdf or .svg, under a temporary name first. Raises ValueError for another ending."""
    file = Path(file)
    check_format(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "ecg"}):
        figure.savefig(buffer, format=file.suffix[1:].lower(), dpi=dpi)
    write_atomically(file, buffer.getvalue())


def check_format(file: str | os.PathLike) -> None:
    """ValueError if `save` cannot write a file of this name."""
    suffix = Path(file).suffix
    if suffix.lower() not in FORMATS:
        raise ValueError(
            f"{file}: pictures are written as {', '.join(FORMATS)}, not as {suffix or 'a file without ending'}"
        )


def _check(signal, sample_freq, start, missing):
    if signal.ndim != 2 or signal.shape[0] != len(LEADS) or not signal.shape[1]:
        raise ValueError(f"an ECG is an array of (12, samples) in mV, not {signal.shape}")
    if not np.isfinite(signal).all():
        raise ValueError("an ECG to be drawn holds numbers only: interpolate NaN first")
    if not sample_freq > 0:
        raise ValueError(f"sample_freq {sample_freq} Hz is not positive")
    seconds = signal.shape[1] / sample_freq
    if not 0 <= start < seconds:
        raise ValueError(f"start {start:g} s is not within the recording, which lasts {seconds:.1f} s")
    unknown = sorted(set(missing) - set(LEADS))
    if unknown:
        raise ValueError(f"missing leads {', '.join(unknown)} are not among {' '.join(LEADS)}")


def _cells(row):
    """(lead, first second, last second) of each lead in a row; the row after the last one is the rhythm strip."""
    if row == N_ROWS:
        return [(LEADS.index("II"), 0.0, SECONDS)]
    step = SECONDS / N_COLUMNS
    return [(column * N_ROWS + row, column * step, (column + 1) * step) for column in range(N_COLUMNS)]


def _rows(page, sample_freq, missing):
    """Heights of the rows' zero lines above the paper's lower edge in mm, and the paper's height, multiples of 5.

    Neighbours are parted by what the upper one goes down and the lower one up at the same time, within bounds: page
    (12, n) mV.
    """
    above, below = _extents(page, sample_freq, missing)  # (rows, columns) mm
    offset = _to_grid(min(below[-1].max(), ROW_MOST) + 3)
    offsets = [offset]
    for row in reversed(range(N_ROWS)):
        need = (below[row] + above[row + 1]).max() + 2
        offset += _to_grid(min(max(need, ROW_LEAST), ROW_MOST))
        offsets.insert(0, offset)
    return offsets, offset + _to_grid(min(above[0].max(), ROW_MOST) + 4)


def _extents(page, sample_freq, missing):
    """How far each row goes up and down from its zero line in each column of time, in mm: two arrays (4, 4)."""
    above = np.full((N_ROWS + 1, N_COLUMNS), 10.0)  # no less than the calibration pulse and the name
    below = np.full((N_ROWS + 1, N_COLUMNS), 2.0)
    edges = [round(column * SECONDS / N_COLUMNS * sample_freq) for column in range(N_COLUMNS + 1)]
    for row in range(N_ROWS + 1):
        for column in range(N_COLUMNS):
            lead = _cells(row)[column if row < N_ROWS else 0][0]
            part = page[lead, edges[column] : edges[column + 1] + 1] * MM_PER_MV
            if part.size and LEADS[lead] not in missing:
                above[row, column] = max(above[row, column], part.max())
                below[row, column] = max(below[row, column], -part.min())
    return above, below


def _to_grid(mm):
    return 5.0 * np.ceil(mm / 5.0)


def _sheet(width, height):
    """A Figure and its one Axes: `width` x `height` mm of squared paper, in millimetres, and margins around it."""
    page = (width + 2 * MARGIN, height + TITLE + FOOT)
    figure = Figure(figsize=(page[0] / MM_PER_INCH, page[1] / MM_PER_INCH), facecolor="white")
    FigureCanvasAgg(figure)
    place = (MARGIN / page[0], FOOT / page[1], width / page[0], height / page[1])
    axes = figure.add_axes(place, facecolor=PAPER, xlim=(0, width), ylim=(0, height), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=COARSE, linewidth=0.8)
    for step, color, weight in ((1, FINE, 0.3), (5, COARSE, 0.6)):
        x, y = np.arange(0, width + 0.1, step), np.arange(0, height + 0.1, step)
        for ends in (_upright(x, height), _upright(y, width)[::-1]):
            axes.plot(*ends, color=color, linewidth=weight, zorder=0.5)
    return figure, axes


def _upright(x, height):
    """One path of lines from 0 to `height` at every x, broken between them: a picture of one path stays small."""
    return np.repeat(x, 3), np.tile([0, height, np.nan], len(x))


def _pulse(axes, offset):
    """The calibration pulse: 1 mV for 0.2 s."""
    x = np.array([1, 2.5, 2.5, 7.5, 7.5, 9])
    y = np.array([0, 0, 1, 1, 0, 0]) * MM_PER_MV
    axes.plot(x, y + offset, color=INK, linewidth=0.7, gid=f"calibration-{offset:.0f}")


def _dotted(axes, begin, end, offset):
    x = PULSE + np.array([begin + 0.1, end - 0.1]) * MM_PER_S
    axes.plot(x, [offset, offset], color=INK, linewidth=0.6, linestyle=(0, (1, 3)))


def _line(axes, lead, sample_freq, begin, end, offset, **style):
    """What a lead (n,) mV shows between two seconds of the page, its zero line at `offset` mm."""
    first, last = round(begin * sample_freq), round(end * sample_freq) + 1
    y = lead[first:last] * MM_PER_MV + offset
    x = PULSE + (first + np.arange(len(y))) / sample_freq * MM_PER_S
    axes.plot(x, y, solid_joinstyle="round", **style)


def _name(axes, name, begin, offset, is_missing):
    x = PULSE + begin * MM_PER_S
    if begin > 0:
        axes.plot([x, x], [offset - 2.5, offset + 2.5], color=INK, linewidth=0.7)
    box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.75}
    text = f"{name} (missing)" if is_missing else name
    axes.text(x + 1.2, offset + 7, text, fontsize=8, fontweight="bold", color=INK, bbox=box, zorder=4)


def _shade(axes, places, color, start, offsets):
    """Colour the stretches (lead, from second, to second) wherever their lead is on the page that begins at `start`."""
    edges = [axes.get_ylim()[1], *((upper + lower) / 2 for upper, lower in zip(offsets, offsets[1:])), 0]
    for row in range(len(offsets)):
        for lead, begin, end in _cells(row):
            for name, left, right in places:
                left, right = max(left - start, begin), min(right - start, end)
                if name == LEADS[lead] and left < right:
                    corner = (PULSE + left * MM_PER_S, edges[row + 1])
                    size = ((right - left) * MM_PER_S, edges[row] - edges[row + 1])
                    axes.add_patch(Rectangle(corner, *size, color=color, alpha=0.25, linewidth=0, zorder=1))


def _note(seconds, start):
    """What the foot says about scale and the stretch that is shown."""
    scale = "25 mm/s   10 mm/mV"
    if start == 0 and seconds <= SECONDS + 0.05:
        return scale
    return f"shown: {start:g} to {min(start + SECONDS, seconds):.6g} s of {seconds:.6g} s   {scale}"


def _texts(axes, title, subtitle, note):
    """Title above the paper, note under it."""
    left, right = axes.get_xlim()
    top = axes.get_ylim()[1]
    axes.text(left, top + 9.5, title, fontsize=11, fontweight="bold", color=INK)
    axes.text(left, top + 3.5, subtitle, fontsize=9, color=INK)
    axes.text(right, -5, note, fontsize=8, color=INK, ha="right")


def _legend(axes, colors, labels):
    """Squares of the shadings' colours with their labels, under the paper."""
    for i, (color, label) in enumerate(zip(colors, labels)):
        x = 25 * i
        axes.add_patch(Rectangle((x, -5.2), 4, 2.8, color=color, alpha=0.4, linewidth=0, clip_on=False))
        axes.text(x + 5, -5, label, fontsize=8, color=INK)


def plot_history(rows: Sequence[Mapping], file: str | os.PathLike) -> None:
    """Write the `history_figure` of a training, replacing the last one. The file's name ends in .png, .pdf or .svg."""
    save(history_figure(rows), file, dpi=100)


def history_figure(rows: Sequence[Mapping]) -> Figure:
    """The curves of a training: losses, AUROC and Challenge metric by epoch. `rows` are those of history.csv or
    pretrain_history.csv, numbers or their texts; what a row lacks is left out, and a column `member` (an ensemble's)
    gives a line each.
    """
    panels = history_panels(rows)
    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        history_panel(axes, rows, keys)
        axes.set_title(name, fontsize=10)
    return figure


def is_number(value: object) -> bool:
    """Whether a value of a history, a number or its text, is one: nan stands where nothing was validated."""
    return value not in (None, "") and not math.isnan(float(value))


HISTORY_PANELS = (
    ("loss", ("train_loss", "valid_loss", "persistence_loss", "linear_loss")),
    ("AUROC", ("auroc",)),
    ("Challenge metric", ("challenge_metric",)),
    ("hidden samples", ("hidden_loss", "hidden_interpolation_loss", "hidden_linear_loss")),
    ("skill", ("skill_persistence", "skill_interpolation", "skill_linear", "skill_beat", "skill_rhythm")),
)
HISTORY_COLORS = ("#3b6fd4", "#d98a00", "#2f9e5b", "#a34ac1")


def history_panels(rows: Sequence[Mapping]) -> list[tuple[str, tuple[str, ...]]]:
    """Those of HISTORY_PANELS, (title, columns), for which the rows have a number; the first if there is none."""
    found = [panel for panel in HISTORY_PANELS if any(is_number(row.get(key)) for row in rows for key in panel[1])]
    return found or [HISTORY_PANELS[0]]


def history_panel(axes, rows: Sequence[Mapping], keys: Sequence[str], colors: Sequence[str] = HISTORY_COLORS) -> None:
    """Curves of the columns `keys` by epoch into an Axes; one line a member of an ensemble."""
    members = list(dict.fromkeys(row.get("member", "") for row in rows))
    keys = [key for key in keys if any(is_number(row.get(key)) for row in rows)]
    for key, color in zip(keys, colors):
        for i, member in enumerate(members):
            own = [row for row in rows if row.get("member", "") == member and is_number(row.get(key))]
            x, y = [float(row["epoch"]) for row in own], [float(row[key]) for row in own]
            label = key.replace("_", " ").removesuffix(" loss") if i == 0 else None
            axes.plot(x, y, color=color, linewidth=1.2, alpha=1 if len(members) == 1 else 0.5, label=label)
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3, linewidth=0.5)
    if len(keys) > 1:
        axes.legend(fontsize=8, frameon=False)
