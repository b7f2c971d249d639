"""The confusion matrix as a figure."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from pipelines.drawing.figures import GRID, MUTED, SURFACE, TEXT, new_figure, shortened
from pipelines.reporting.plots.drawing import RAMP, add_title, described, text_width
from pipelines.reporting.result import Result

NUMBERS_UP_TO = 20  # classes; with more, a number no longer fits its cell


def confusion_matrix(result: Result) -> Figure:
    """Row-normalised colours, the counts in the cells up to 20 classes; grows with the number of classes."""
    counts = np.array(result.confusion)
    number = len(counts)
    # Font size of the class names: as large as the field's usual data sets (9, 51, 101 classes) leave readable.
    sizes = ((12, 10.0), (20, 9.0), (60, 7.0), (120, 5.5), (number, 4.0))
    points = next(size for most, size in sizes if number <= most)
    cell = max(points * 1.35 / 72, 0.46 if number <= NUMBERS_UP_TO else 0)
    side = max(cell * number, 2.6)
    labels = [shortened(name) for name in result.classes]
    margin = text_width(labels, points) + 0.45
    bar, top = max(0.16, 0.02 * side), 0.65
    subtitle = f"{described(result)} · colour: share of the true class"
    width = margin + max(side + 0.2 + bar + 0.65, text_width([subtitle], 8.5) + 0.2)
    height = top + side + margin

    figure = new_figure(width, height)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # A power below 1 keeps single errors visible beside a strong diagonal; empty cells keep the background.
    norm = PowerNorm(0.6, vmin=0, vmax=1)
    colours = LinearSegmentedColormap.from_list("share", list(RAMP)).with_extremes(bad=SURFACE)
    image = axes.imshow(np.ma.masked_equal(shares, 0), cmap=colours, norm=norm, interpolation="nearest")
    _label_matrix(axes, labels, points)
    if number <= NUMBERS_UP_TO:
        for true, predicted in np.argwhere(counts):
            axes.text(
                *(predicted, true, str(counts[true, predicted])),
                ha="center",
                va="center",
                fontsize=10 if counts.max() < 1000 else 8,
                color=SURFACE if shares[true, predicted] > 0.35 else TEXT,
            )

    bar_axes = figure.add_axes(((margin + side + 0.2) / width, margin / height, bar / width, side / height))
    colour_bar = figure.colorbar(image, cax=bar_axes, ticks=[0, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    colour_bar.ax.set_yticklabels(["0 %", "5", "10", "25", "50", "75", "100 %"])
    colour_bar.ax.tick_params(labelsize=8, colors=MUTED, length=2)
    colour_bar.outline.set_visible(False)
    add_title(figure, margin / width, "Confusion matrix", subtitle)
    return figure


def _label_matrix(axes: Axes, labels: list[str], points: float) -> None:
    ticks = np.arange(len(labels))
    style: dict[str, Any] = {"fontsize": points, "color": TEXT, "parse_math": False}
    axes.set_xticks(ticks, labels, rotation=90, **style)
    axes.set_yticks(ticks, labels, **style)
    axes.tick_params(length=0, pad=3)
    axes.set_xlabel("predicted", color=MUTED, fontsize=max(points, 8))
    axes.set_ylabel("true", color=MUTED, fontsize=max(points, 8))
    for spine in axes.spines.values():
        spine.set_color(GRID)
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.8 if len(labels) <= NUMBERS_UP_TO else 0.25)
    axes.tick_params(which="minor", length=0)
