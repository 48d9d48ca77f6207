"""Pictures of a report, as inline SVG whose colours follow the page's light or dark theme."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from engine.plots import history_panel, history_panels

INK, GRID, MUTED = "#1b1f24", "#e3e7eb", "#57606a"
COLORS = ("#1f5fbf", "#b45309", "#1a7f4b", "#8a3fb0", "#b02a4c")
VARIABLES = {INK: "--ink", GRID: "--grid", MUTED: "--muted"} | {c: f"--c{i}" for i, c in enumerate(COLORS, 1)}
SMALL = 8  # points
N_ACROSS = 6  # small multiples in a row


def new_figure(width: float, height: float) -> Figure:
    """A transparent Figure of so many inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def style(axes) -> None:
    """Theme colours for an Axes."""
    axes.patch.set_alpha(0)
    axes.tick_params(labelsize=SMALL, colors=MUTED, labelcolor=MUTED)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(MUTED)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set(color=INK, fontsize=SMALL + 1)
    legend = axes.get_legend()
    if legend:
        for text in legend.get_texts():
            text.set_color(INK)


def svg(figure: Figure, prefix: str, themed: bool = True) -> str:
    """A Figure as an inline SVG element. Ids get `prefix`, so that several on a page do not mix; `themed` colours are
    those of the page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"'DejaVu Sans'[^;\"]*sans-serif", "system-ui, sans-serif", text)
    if themed:
        for color, variable in VARIABLES.items():
            text = text.replace(color, f"var({variable})")
        text = re.sub(r"(fill|stroke): ?#000000", r"\1: var(--ink)", text)
    return text


def learning_curves(rows: Sequence[Mapping]) -> str:
    """Losses and scores by epoch."""
    panels = history_panels(rows)
    figure = new_figure(12.6, 3.0)
    for axes, (name, keys) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        history_panel(axes, rows, keys, COLORS)
        axes.set_title(name)
        style(axes)
    return svg(figure, "learning")


def small_multiples(panels: Sequence[tuple[str, dict]], key: str, labels: tuple[str, str]) -> str:
    """One small curve a class: (its title, what `report_data.curves` gives); key is 'roc' or 'pr'."""
    n_down = -(-len(panels) // N_ACROSS)
    figure = new_figure(12.6, 1.85 * n_down + 0.3)
    grid = figure.subplots(n_down, N_ACROSS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, found) in zip(grid, panels):
        if key == "roc":
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.6, linestyle=(0, (2, 2)))
        steps = (
            "steps-pre" if key == "pr" else "default"
        )  # precision is that of the threshold reached, as AUPRC counts it
        axes.plot(*found[key], color=COLORS[0], linewidth=1.3, drawstyle=steps)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], title=name)
        style(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.supxlabel(labels[0], fontsize=SMALL + 1, color=INK)
    figure.supylabel(labels[1], fontsize=SMALL + 1, color=INK)
    return svg(figure, key)


def reliability_diagram(promised: np.ndarray, seen: np.ndarray, n: np.ndarray) -> str:
    """Frequency against probability, with the number of answers in each bin under it."""
    figure = new_figure(4.6, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    upper.plot(promised, seen, color=COLORS[0], marker="o", markersize=4, linewidth=1.3)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of recordings with it")
    lower.bar(promised, n, width=0.05, color=COLORS[0])
    lower.set(yscale="log", xlabel="probability", ylabel="answers")
    style(upper)
    style(lower)
    return svg(figure, "reliability")


def confusion_matrix(shares: np.ndarray, names: Sequence[str], short: Sequence[str]) -> str:
    """Shares (C, C) of each label's row by answer: squares of growing darkness with the number in per cent."""
    n = len(names)
    figure = new_figure(2.9 + 0.36 * n, 0.9 + 0.3 * n)
    axes = figure.subplots()
    for row in range(n):
        for column in np.flatnonzero(shares[row] >= 0.01):
            share = float(shares[row, column])
            color = COLORS[2] if row == column else COLORS[1]
            axes.add_patch(
                Rectangle((column - 0.5, row - 0.5), 1, 1, color=color, alpha=0.12 + 0.55 * share, linewidth=0)
            )
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=SMALL - 1, color=INK)
    axes.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), xlabel="answer", ylabel="label")
    axes.set_xticks(range(n), short, rotation=90)
    axes.set_yticks(range(n), names)
    style(axes)
    return svg(figure, "confusion")


def by_distance(seconds: Sequence[float], losses: Mapping[str, Sequence[float]], skills: Mapping) -> str:
    """Pre-training: loss and skill against the distance that is predicted, lines by name."""
    figure = new_figure(9, 3.2)
    left, right = figure.subplots(1, 2)
    for axes, lines, title in ((left, losses, "loss"), (right, skills, "skill: share of a baseline's loss saved")):
        for color, (name, values) in zip(COLORS, lines.items()):
            axes.plot(seconds, values, color=color, marker="o", markersize=3, linewidth=1.3, label=name)
        axes.set(xlabel="seconds ahead", title=title)
        axes.legend(fontsize=SMALL, frameon=False)
        style(axes)
    right.axhline(0, color=MUTED, linewidth=0.8)
    return svg(figure, "distance")
