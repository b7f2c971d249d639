"""A timeline as a picture: which class when, and how probable the classes were.

Sizes are in inches and points as matplotlib counts them. Letters: W windows, C classes shown.
"""

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes

from pipelines.drawing.figures import GRID, MUTED, TEXT, new_figure, png, shortened
from pipelines.interface.wording import printable
from pipelines.prediction.timeline import Timeline

ROWS = 12  # classes shown
_ROW, _STRIP, _TOP, _BOTTOM, _WIDTH, _BAR = 0.26, 0.34, 0.62, 0.5, 7.2, 0.9
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)  # seconds
_MOST_TICKS = 10
_COLUMNS = 2160  # two a pixel
# After Okabe and Ito: distinguishable in every common colour vision. Further classes are grey, with their row below.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
_OTHER = "#9aa4af"


def draw_timeline(timeline: Timeline, title: str, details: str) -> bytes:
    """A PNG: above the winning class of each moment, below the probability of up to `ROWS` classes, those that win
    longest first, then those that come nearest to winning."""
    shown = shown_classes(timeline)
    labels = [shortened(timeline.classes[index]) for index in shown]
    margin = max(0.62 * max(map(len, labels)) * 9 / 72 + 0.4, 0.9)
    tall = _ROW * len(shown)
    width, height = margin + _WIDTH + _BAR, _TOP + _STRIP + 0.12 + tall + _BOTTOM
    figure = new_figure(width, height)

    strip = figure.add_axes((margin / width, (_BOTTOM + tall + 0.12) / height, _WIDTH / width, _STRIP / height))
    _draw_strip(strip, timeline, shown)
    axes = figure.add_axes((margin / width, _BOTTOM / height, _WIDTH / width, tall / height))
    image = _draw_rows(axes, timeline, shown, labels)
    bar = figure.add_axes(((margin + _WIDTH + 0.12) / width, _BOTTOM / height, 0.12 / width, tall / height))
    scale = figure.colorbar(image, cax=bar, ticks=[0, 0.5, 1])
    scale.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    scale.ax.tick_params(labelsize=8, colors=MUTED, length=2)
    scale.outline.set_visible(False)
    figure.text(margin / width, 1 - 0.27 / height, printable(title), fontsize=11, fontweight="bold", color=TEXT,
                parse_math=False)  # fmt: skip
    text = f"{printable(details)} · windows of {timeline.window} every {timeline.hop}"
    figure.text(margin / width, 1 - 0.47 / height, text, fontsize=8.5, color=MUTED, parse_math=False)
    return png(figure, 150)


def shown_classes(timeline: Timeline) -> list[int]:
    """The rows of the picture: at most `ROWS` classes."""
    probabilities = _probabilities(timeline)
    wins = np.bincount([window.winner for window in timeline.windows], minlength=len(timeline.classes))
    order = np.lexsort((-probabilities.max(axis=0), -wins))
    return [int(index) for index in order[: min(ROWS, len(timeline.classes))]]


def _probabilities(timeline: Timeline) -> np.ndarray:
    """float [W, classes]."""
    return np.array([window.headline for window in timeline.windows])


def _columns(timeline: Timeline) -> np.ndarray:
    """Which window each column of the picture shows: int [columns]. An hour is drawn as quickly as a second."""
    edges = np.array(timeline.edges())
    times = (np.arange(_COLUMNS) + 0.5) / _COLUMNS * edges[-1]
    return np.searchsorted(edges[1:-1], times, side="right")


def _draw_strip(axes: Axes, timeline: Timeline, shown: list[int]) -> None:
    """A colour for the winner of each moment, and the name of its class if there is room."""
    colours = dict(zip(shown, _COLOURS, strict=False))
    total = timeline.duration
    winners = np.array([window.winner for window in timeline.windows])[_columns(timeline)]
    table = np.array([matplotlib.colors.to_rgb(colours.get(i, _OTHER)) for i in range(len(timeline.classes))])
    axes.imshow(table[winners][None], extent=(0, total, -0.5, 0.5), aspect="auto", interpolation="nearest")
    for segment in timeline.segments():
        length = segment.end - segment.start
        name = shortened(segment.class_name)
        if length / total * _WIDTH > 0.62 * len(name) * 8 / 72 + 0.1:
            colour = table[timeline.classes.index(segment.class_name)]
            dark = np.dot(colour, (0.299, 0.587, 0.114)) < 0.55
            axes.text(segment.start + length / 2, 0, name, ha="center", va="center", fontsize=8, parse_math=False,
                      color="white" if dark else TEXT)  # fmt: skip
            axes.axvline(segment.start, color="white", linewidth=0.8)
    axes.set_xlim(0, total)
    axes.axis("off")


def _draw_rows(axes: Axes, timeline: Timeline, shown: list[int], labels: list[str]) -> matplotlib.cm.ScalarMappable:
    probabilities = _probabilities(timeline)[:, shown].T[:, _columns(timeline)]
    total = timeline.duration
    image = axes.imshow(
        probabilities, extent=(0, total, len(shown) - 0.5, -0.5), aspect="auto", interpolation="nearest", cmap="Blues",
        vmin=0, vmax=1,
    )  # fmt: skip
    axes.set_xlim(0, total)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(np.arange(len(shown)), labels, fontsize=9, color=TEXT, parse_math=False)
    for index, tick in enumerate(axes.get_yticklabels()[: len(_COLOURS)]):
        if any(window.winner == shown[index] for window in timeline.windows):
            tick.set_fontweight("bold")
    axes.set_yticks(np.arange(1, len(shown)) - 0.5, minor=True)
    axes.grid(axis="y", which="minor", color=GRID, linewidth=0.6)
    colours = [_COLOURS[row] if row < len(_COLOURS) else _OTHER for row in range(len(shown))]
    axes.scatter(np.full(len(shown), -0.012), np.arange(len(shown)), c=colours, marker="s", s=30, clip_on=False,
                 transform=axes.get_yaxis_transform())  # fmt: skip  # the key of the strip
    axes.tick_params(which="both", length=0, pad=16)
    axes.tick_params(axis="x", labelsize=9, colors=MUTED, length=3, pad=3)
    step = next((step for step in _TICKS if total / step <= _MOST_TICKS), total / _MOST_TICKS)
    axes.xaxis.set_major_locator(matplotlib.ticker.MultipleLocator(step))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: clock(value, total)))
    axes.set_xlabel("time" + (" (h:min:s)" if total >= 3600 else " (min:s)" if total >= 60 else " (s)"),
                    fontsize=8.5, color=MUTED)  # fmt: skip
    for spine in axes.spines.values():
        spine.set_color(GRID)
    return image


def clock(seconds: float, total: float) -> str:
    """`seconds` as hours, minutes and seconds, as far as `total` has them."""
    if total < 60:
        return f"{seconds:g}"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if total >= 3600 else f"{minutes}:{rest:02d}"
