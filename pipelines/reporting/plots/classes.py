"""Figures with a bar for each class: the accuracy of each stream, and what motion changes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.drawing.figures import GRID, MUTED, TEXT, new_figure, shortened
from pipelines.reporting.plots.drawing import (
    HURT,
    STREAM_COLOURS,
    add_axes,
    add_title,
    described,
    stream_colours,
    text_width,
)
from pipelines.reporting.result import Result

MOST_EFFECTS = 20  # classes of each kind


def per_class(result: Result) -> Figure:
    """A group of bars for each class, a bar for each stream, the class that the headline stream knows best first.

    Many classes are spread over up to three columns, so that the picture stays about as wide as it is tall.
    """
    rows = sorted(result.per_class, key=lambda row: -(row.accuracy[result.headline] or 0))
    streams = stream_colours(list(result.streams))
    columns = 1 if len(rows) <= 30 else 2 if len(rows) <= 60 else 3
    in_column = -(-len(rows) // columns)
    points = 9.0 if columns == 1 else 8.0
    margin = text_width([shortened(row.class_name) for row in rows], points) + 0.25
    top, bottom, bars = 0.85, 0.35, 6.2 if columns == 1 else 3.2
    tall = max(in_column * (0.06 + 0.085 * len(streams)), 0.6)
    width, height = columns * (margin + bars + 0.35), top + tall + bottom

    figure = new_figure(width, height)
    for column in range(columns):
        axes = add_axes(figure, column * (margin + bars + 0.35) + margin, bottom, bars, tall)
        shown = rows[column * in_column : (column + 1) * in_column]
        thickness = 0.8 / len(streams)
        for index, (stream, colour) in enumerate(streams.items()):
            middles = np.arange(len(shown)) + (index - (len(streams) - 1) / 2) * thickness
            values = [100 * (row.accuracy[stream] or 0) for row in shown]
            axes.barh(middles, values, height=thickness * 0.9, color=colour, label=shortened(stream))
        _name_classes(axes, [row.class_name for row in shown], points)
        axes.set_xlim(0, 100)
        axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"], color=MUTED, fontsize=8)
        axes.set_ylim(in_column - 0.5, -0.5)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, ncols=len(streams), frameon=False, fontsize=9, labelcolor=TEXT, handlelength=1, handleheight=1,
        loc="upper left", bbox_to_anchor=(margin / width, 1 - 0.52 / height), borderaxespad=0, borderpad=0,
    )  # fmt: skip
    add_title(figure, margin / width, "Accuracy by class", described(result))
    return figure


def _name_classes(axes: Axes, names: Sequence[str], points: float) -> None:
    style: dict[str, Any] = {"fontsize": points, "color": TEXT, "parse_math": False}
    axes.set_yticks(np.arange(len(names)), [shortened(name) for name in names], **style)
    axes.grid(visible=False, axis="y")
    axes.spines["bottom"].set_visible(False)


def motion_effect(result: Result) -> Figure:
    """The classes that motion changes, the most helped above, the most hurt below, at most `MOST_EFFECTS` of each."""
    rows = result.motion(1)[:MOST_EFFECTS] + result.motion(-1)[:MOST_EFFECTS][::-1]
    points = 9.0
    margin = text_width([shortened(row.class_name) for row in rows] or [""], points) + 0.25
    top, bottom, bars, tall = 0.65, 0.5, 6.2, max(len(rows) * 0.22, 0.6)
    figure = new_figure(margin + bars + 0.35, top + tall + bottom)
    axes = add_axes(figure, margin, bottom, bars, tall)
    values = [100 * row.difference for row in rows]
    colours = [STREAM_COLOURS["motion"] if value > 0 else HURT for value in values]
    axes.barh(np.arange(len(rows)), values, height=0.7, color=colours)
    _name_classes(axes, [row.class_name for row in rows], points)
    axes.set_xlim(1.05 * min([-5.0, *values]), 1.05 * max([5.0, *values]))
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
    axes.axvline(0, color=GRID, linewidth=1.2)
    axes.set_xlabel("accuracy of fused less that of appearance, percentage points", color=MUTED, fontsize=8)
    subtitle = described(result) if rows else "no class changes"
    add_title(figure, margin / figure.get_figwidth(), "Where motion helps and where it hurts", subtitle)
    return figure
