"""Figures of matplotlib: colours and lettering that all of them have, and how they become PNG, SVG and PDF.

Drawn without pyplot, so that nothing global is touched. Sizes are in inches and points as matplotlib counts them.
"""

import io
import warnings
from typing import Any, Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelines.interface.wording import printable

LONGEST_LABEL = 28  # characters
MOST_PIXELS = 6000  # a side

SURFACE = "#ffffff"
TEXT = "#1f2328"
MUTED = "#59636e"
GRID = "#dfe3e8"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches."""
    figure = Figure(figsize=(width, height), facecolor=SURFACE)
    FigureCanvasAgg(figure)
    return figure


def shortened(name: str) -> str:
    """A name that leaves room for the rest, and that an SVG file can hold."""
    plain = printable(name)
    return plain if len(plain) <= LONGEST_LABEL else plain[: LONGEST_LABEL - 1] + "…"


def png(figure: Figure, dots_per_inch: float = 200, about: str = "") -> bytes:
    """The figure at so many dots per inch, or as many as `MOST_PIXELS` allow; `about` is its metadata's description."""
    dpi = min(dots_per_inch, MOST_PIXELS / max(figure.get_size_inches()))
    return saved(figure, "png", {}, dpi=dpi, facecolor=SURFACE, metadata={"Description": about})


def for_print(figure: Figure, kind: Literal["svg", "pdf"], about: str = "") -> bytes:
    """The figure for a paper: cropped, without its title, which the caption takes the place of; `about` is its
    metadata's description. Letters are TrueType in PDF, since publishers refuse Type 3, and outlines in SVG. One
    content always gives the same bytes."""
    metadata = {"svg": {"Date": None, "Description": about}, "pdf": {"CreationDate": None, "Subject": about}}
    for text in figure.texts:
        text.set_visible(False)
    settings: dict[Any, Any] = {"pdf.fonttype": 42, "svg.hashsalt": "stres"}
    layout: dict[str, Any] = {"dpi": 300, "bbox_inches": "tight", "pad_inches": 0.02, "facecolor": SURFACE}
    return saved(figure, kind, settings, metadata=metadata[kind], **layout)


def saved(figure: Figure, kind: str, settings: dict[Any, Any], **options: Any) -> bytes:
    """The figure as a file of that kind, made with these settings of matplotlib and options of `savefig`."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"axes.unicode_minus": False, **settings}):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # drawn as a box; the tables have the name
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()
