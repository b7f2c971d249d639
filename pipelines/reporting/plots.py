"""The report's pictures as PNG bytes, drawn without pyplot, so that nothing global is touched.

Letters: C classes. Sizes are in inches and points as matplotlib counts them.
"""

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.evaluation.metrics import ClassMetrics
    from pipelines.evaluation.scores import Stream
    from pipelines.reporting.result import Result

NUMBERS_UP_TO = 20  # classes; with more, a number no longer fits its cell
LONGEST_LABEL = 28  # characters
MOST_PIXELS = 6000  # a side


@dataclass(frozen=True)
class Theme:
    """Colours of a picture. The streams' colours (after Okabe and Ito) are told apart in every common colour vision."""

    surface: str
    text: str
    muted: str
    grid: str
    ramp: tuple[str, ...]
    streams: "dict[Stream, str]"


LIGHT = Theme(
    surface="#ffffff",
    text="#1f2328",
    muted="#59636e",
    grid="#dfe3e8",
    ramp=("#e3effa", "#9ecae9", "#4a98c9", "#1764ab", "#08306b"),
    streams={"appearance": "#e69f00", "motion": "#009e73", "fused": "#0072b2"},
)
DARK = Theme(
    surface="#161b22",
    text="#e6edf3",
    muted="#9aa4af",
    grid="#30363d",
    ramp=("#1c3350", "#1d5a94", "#2f86cc", "#74b9ec", "#d6ecff"),
    streams={"appearance": "#e6a316", "motion": "#1fb58a", "fused": "#58b0ee"},
)


# ------------------------------------------------------------------ confusion matrix


def confusion_matrix(result: "Result", theme: Theme = LIGHT) -> bytes:
    """Row-normalised colours, the counts in the cells up to 20 classes; grows with the number of classes."""
    counts = np.array(result.confusion)
    number = len(counts)
    points = _label_points(number)
    cell = max(points * 1.35 / 72, 0.46 if number <= NUMBERS_UP_TO else 0)
    side = max(cell * number, 2.6)
    labels = [_shortened(name) for name in result.classes]
    margin = _text_width(labels, points) + 0.45
    bar, top = max(0.16, 0.02 * side), 0.65
    subtitle = f"{_described(result)} · colour: share of the true class"
    width = margin + max(side + 0.2 + bar + 0.65, _text_width([subtitle], 8.5))
    height = top + side + margin

    figure = _figure(width, height, theme)
    axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # A power below 1 keeps single errors visible beside a strong diagonal; empty cells keep the background.
    norm = PowerNorm(0.6, vmin=0, vmax=1)
    image = axes.imshow(np.ma.masked_equal(shares, 0), cmap=_colours(theme), norm=norm, interpolation="nearest")
    _label_matrix(axes, labels, points, theme)
    if number <= NUMBERS_UP_TO:
        _number_cells(axes, counts, shares, theme)

    bar_axes = figure.add_axes(((margin + side + 0.2) / width, margin / height, bar / width, side / height))
    colour_bar = figure.colorbar(image, cax=bar_axes, ticks=[0, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    colour_bar.ax.set_yticklabels(["0 %", "5", "10", "25", "50", "75", "100 %"])
    colour_bar.ax.tick_params(labelsize=8, colors=theme.muted, length=2)
    colour_bar.outline.set_visible(False)
    _title(figure, margin / width, "Confusion matrix", subtitle, theme)
    return _png(figure, theme)


def _label_points(number: int) -> float:
    """Font size of the class names: as large as the field's usual data sets (9, 51, 101 classes) leave readable."""
    for most, points in ((12, 10.0), (20, 9.0), (60, 7.0), (120, 5.5)):
        if number <= most:
            return points
    return 4.0


def _label_matrix(axes: Axes, labels: list[str], points: float, theme: Theme) -> None:
    ticks = np.arange(len(labels))
    style: dict[str, Any] = {"fontsize": points, "color": theme.text, "parse_math": False}
    axes.set_xticks(ticks, labels, rotation=90, **style)
    axes.set_yticks(ticks, labels, **style)
    axes.tick_params(length=0, pad=3)
    axes.set_xlabel("predicted", color=theme.muted, fontsize=max(points, 8))
    axes.set_ylabel("true", color=theme.muted, fontsize=max(points, 8))
    for spine in axes.spines.values():
        spine.set_color(theme.grid)
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color=theme.grid, linewidth=0.8 if len(labels) <= NUMBERS_UP_TO else 0.25)
    axes.tick_params(which="minor", length=0)


def _number_cells(axes: Axes, counts: np.ndarray, shares: np.ndarray, theme: Theme) -> None:
    points = 10 if counts.max() < 1000 else 8
    for true, predicted in np.argwhere(counts):
        strong = shares[true, predicted] > 0.35
        colour = theme.surface if strong else theme.text
        axes.text(
            predicted, true, str(counts[true, predicted]), ha="center", va="center", fontsize=points, color=colour
        )


def _colours(theme: Theme) -> Colormap:
    colours = LinearSegmentedColormap.from_list("share", list(theme.ramp))
    return colours.with_extremes(bad=theme.surface)


# ------------------------------------------------------------------ accuracy by class


def per_class(result: "Result", theme: Theme = LIGHT) -> bytes:
    """A group of bars a class, one bar a stream, the class that the headline stream knows best first.

    Many classes are spread over up to three columns, so that the picture stays about as wide as it is tall.
    """
    rows = sorted(result.per_class, key=lambda row: -(row.accuracy[result.headline] or 0))
    columns = 1 if len(rows) <= 30 else 2 if len(rows) <= 60 else 3
    in_column = -(-len(rows) // columns)
    points = 9.0 if columns == 1 else 8.0
    margin = _text_width([_shortened(row.class_name) for row in rows], points) + 0.25
    top, bottom, bars = 0.85, 0.35, 6.2 if columns == 1 else 3.2
    tall = max(in_column * (0.06 + 0.085 * len(result.streams)), 0.6)
    width, height = columns * (margin + bars + 0.35), top + tall + bottom

    figure = _figure(width, height, theme)
    for column in range(columns):
        left = column * (margin + bars + 0.35) + margin
        axes = figure.add_axes((left / width, bottom / height, bars / width, tall / height))
        _draw_bars(axes, rows[column * in_column : (column + 1) * in_column], list(result.streams), points, theme)
        axes.set_ylim(in_column - 0.5, -0.5)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, names, ncols=3, frameon=False, fontsize=9, labelcolor=theme.text, handlelength=1, handleheight=1,
        loc="upper left", bbox_to_anchor=(margin / width, 1 - 0.52 / height), borderaxespad=0, borderpad=0,
    )  # fmt: skip
    _title(figure, margin / width, "Accuracy by class", _described(result), theme)
    return _png(figure, theme)


def _draw_bars(
    axes: Axes, rows: "Sequence[ClassMetrics]", streams: "Sequence[Stream]", points: float, theme: Theme
) -> None:
    places = np.arange(len(rows))
    thickness = 0.8 / len(streams)
    for index, stream in enumerate(streams):
        middles = places + (index - (len(streams) - 1) / 2) * thickness
        values = [100 * (row.accuracy[stream] or 0) for row in rows]
        axes.barh(middles, values, height=thickness * 0.9, color=theme.streams[stream], label=stream)
    style: dict[str, Any] = {"fontsize": points, "color": theme.text, "parse_math": False}
    axes.set_yticks(places, [_shortened(row.class_name) for row in rows], **style)
    _style_bars(axes, theme)


def _style_bars(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.surface)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"], color=theme.muted, fontsize=8)
    axes.grid(axis="x", color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(theme.grid)


# ------------------------------------------------------------------ shared


def _figure(width: float, height: float, theme: Theme) -> Figure:
    figure = Figure(figsize=(width, height), facecolor=theme.surface)
    FigureCanvasAgg(figure)
    return figure


def _title(figure: Figure, left: float, title: str, subtitle: str, theme: Theme) -> None:
    height = figure.get_figheight()
    style: dict[str, Any] = {"ha": "left", "va": "top", "parse_math": False}
    figure.text(left, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", color=theme.text, **style)
    figure.text(left, 1 - 0.32 / height, subtitle, fontsize=8.5, color=theme.muted, **style)


def _described(result: "Result") -> str:
    accuracy = result.streams[result.headline].top1
    return f"{_shortened(result.name)}, {result.headline}: top-1 {100 * accuracy:.1f} %"


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def _text_width(labels: list[str], points: float) -> float:
    """Room for the longest label in inches; 0.6 em is DejaVu Sans's mean advance with a little to spare."""
    return max(len(label) for label in labels) * 0.6 * points / 72


def _png(figure: Figure, theme: Theme) -> bytes:
    dpi = min(200, MOST_PIXELS / max(figure.get_size_inches()))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"axes.unicode_minus": False}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box; the tables have the name
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=theme.surface)
    return buffer.getvalue()
