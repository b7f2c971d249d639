"""What the report's pictures share: colours, lettering, and how they become PNG.

Sizes are in inches and points as matplotlib counts them.
"""

import io
import warnings
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.wording import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.reporting.result import Result

LONGEST_LABEL = 28  # characters
MOST_PIXELS = 6000  # a side

SURFACE = "#ffffff"
TEXT = "#1f2328"
MUTED = "#59636e"
GRID = "#dfe3e8"
RAMP = ("#e3effa", "#9ecae9", "#4a98c9", "#1764ab", "#08306b")

# After Okabe and Ito: told apart in every common colour vision. The last two are another program's streams.
STREAM_COLOURS = {"appearance": "#e69f00", "motion": "#009e73", "fused": "#0072b2"}
_FURTHER = ("#999999", "#cc79a7")


def stream_colours(streams: "Sequence[str]") -> dict[str, str]:
    """A colour for each stream."""
    further = iter(_FURTHER)
    return {stream: STREAM_COLOURS.get(stream) or next(further) for stream in streams}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    figure = Figure(figsize=(width, height), facecolor=SURFACE)
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, with a quiet frame and grid."""
    across, tall = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / tall, width / across, height / tall))
    axes.set_facecolor(SURFACE)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    return axes


def add_title(figure: Figure, left: float, title: str, subtitle: str) -> None:
    """`left` is a share of the width."""
    height = figure.get_figheight()
    style: dict[str, Any] = {"ha": "left", "va": "top", "parse_math": False}
    figure.text(left, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", color=TEXT, **style)
    figure.text(left, 1 - 0.32 / height, subtitle, fontsize=8.5, color=MUTED, **style)


def described(result: "Result") -> str:
    """Run, stream and accuracy on one line."""
    accuracy = result.streams[result.headline].top1
    return f"{shortened(result.name)}, {shortened(result.headline)}: top-1 {percent(accuracy)} %"


def shortened(name: str) -> str:
    """A name that leaves room for the rest."""
    return name if len(name) <= LONGEST_LABEL else name[: LONGEST_LABEL - 1] + "…"


def text_width(labels: list[str], points: float) -> float:
    """Room for the longest label in inches; 0.6 em is DejaVu Sans's mean advance with a little to spare."""
    return max(len(label) for label in labels) * 0.6 * points / 72


def png(figure: Figure) -> bytes:
    """The figure at 200 dots an inch, or as many as `MOST_PIXELS` allow."""
    dpi = min(200, MOST_PIXELS / max(figure.get_size_inches()))
    buffer = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"axes.unicode_minus": False}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box; the tables have the name
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=SURFACE)
    return buffer.getvalue()
