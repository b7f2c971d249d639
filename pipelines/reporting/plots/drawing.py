"""What the report's figures share: colours, axes, titles, and how they become SVG."""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from pipelines.drawing.figures import GRID, MUTED, TEXT, new_figure, saved, shortened
from pipelines.interface.wording import percent
from pipelines.reporting.result import Result

HURT = "#d55e00"
RAMP = ("#e3effa", "#9ecae9", "#4a98c9", "#1764ab", "#08306b")

# After Okabe and Ito: told apart in every common colour vision. The last two are another program's streams.
STREAM_COLOURS = {"appearance": "#e69f00", "motion": "#009e73", "fused": "#0072b2"}
_FURTHER = ("#999999", "#cc79a7")

# The page's colours (report.css), which follow its light or dark theme.
_VARIABLES = {TEXT: "text", MUTED: "muted", GRID: "line", HURT: "hurt"} | {
    colour: stream for stream, colour in STREAM_COLOURS.items()
}
_SVG = "{http://www.w3.org/2000/svg}"


def stream_colours(streams: Sequence[str]) -> dict[str, str]:
    """A colour for each stream."""
    further = iter(_FURTHER)
    return {stream: STREAM_COLOURS.get(stream) or next(further) for stream in streams}


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, with a quiet frame and grid."""
    across, tall = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / tall, width / across, height / tall))
    axes.set_facecolor("none")
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    return axes


def add_title(figure: Figure, left: float, title: str, subtitle: str) -> None:
    """Puts two lines at the top; `left` is a share of the width."""
    height = figure.get_figheight()
    style: dict[str, Any] = {"ha": "left", "va": "top", "parse_math": False}
    figure.text(left, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", color=TEXT, **style)
    figure.text(left, 1 - 0.32 / height, subtitle, fontsize=8.5, color=MUTED, **style)


def described(result: Result) -> str:
    """Run, stream and accuracy on one line."""
    name, title = next(iter(result.accuracies.items()))
    accuracy = getattr(result.streams[result.headline], name)
    return f"{shortened(result.name)}, {shortened(result.headline)}: {title} {percent(accuracy)} %"


def text_width(labels: list[str], points: float) -> float:
    """Room for the longest label in inches."""
    font = FontProperties(size=points)
    with warnings.catch_warnings(action="ignore"):  # of letters that the font lacks, as in `saved`
        return max(text_to_path.get_text_width_height_descent(label, font, False)[0] for label in labels) / 72


# ------------------------------------------------------------------ curves: in a picture and on the page


@dataclass(frozen=True)
class Panel:
    """One pair of axes with curves."""

    title: str
    """What stands above it, on the page too."""
    width: float
    height: float
    draw: Callable[[Axes], None]

    def svg(self) -> str:
        """The panel for the page: an `<svg>` element without its title, in the page's colours and letters.

        It has no ids, links or styles of its own, so that any number of them can stand in one document.
        """
        left, bottom, edge = 0.55, 0.45, 0.12
        figure = new_figure(left + self.width + edge, bottom + self.height + edge)
        self.draw(add_axes(figure, left, bottom, self.width, self.height))
        for artist in figure.findobj():
            artist.set_clip_on(False)  # clipping would need ids
        drawing = saved(figure, "svg", {"svg.fonttype": "none"}, facecolor="none")
        return _for_page(ElementTree.fromstring(drawing), self.title)


def _for_page(drawing: ElementTree.Element, title: str) -> str:
    """Matplotlib's SVG without what concerns a whole document: ids, metadata, styles of every element."""
    svg = ElementTree.Element(f"{_SVG}svg", {"viewBox": drawing.attrib["viewBox"], "role": "img", "aria-label": title})
    svg.extend(drawing.findall(f"{_SVG}g"))
    symbols = {path.get("id"): path.attrib["d"] for path in drawing.iter(f"{_SVG}path")}
    for element in list(svg.iter()):
        if element.tag == f"{_SVG}use":  # a marker: a path of its own instead of a link to one
            link = element.attrib.pop("{http://www.w3.org/1999/xlink}href")
            element.tag = f"{_SVG}path"
            element.set("d", symbols[link.removeprefix("#")])
            element.set("transform", f"translate({element.attrib.pop('x')} {element.attrib.pop('y')})")
        for definitions in element.findall(f"{_SVG}defs"):
            element.remove(definitions)
    for element in svg.iter():
        element.attrib.pop("id", None)
        if style := element.get("style"):
            for colour, variable in _VARIABLES.items():
                style = style.replace(colour, f"var(--{variable})")
            style = re.sub(r"font: (\S+) [^;]*", r"font-size: \1", style)  # as older releases of matplotlib have it
            element.set("style", re.sub("font-family: [^;]*; *", "", style))
    ElementTree.register_namespace("", _SVG.strip("{}"))
    return ElementTree.tostring(svg, encoding="unicode")


@dataclass(frozen=True)
class PanelGrid:
    """Panels of one figure in rows."""

    title: str
    subtitle: str
    rows: Sequence[Sequence[Panel]]

    @property
    def panels(self) -> list[Panel]:
        """All of them, row by row."""
        return [panel for row in self.rows for panel in row]

    def figure(self) -> Figure:
        """All panels in one figure."""
        left, top, below, beside = 0.65, 0.7, 0.8, 0.6
        width = max(sum(panel.width + beside for panel in row) for row in self.rows)
        figure = new_figure(left + width, top + sum(max(panel.height for panel in row) + below for row in self.rows))
        bottom = figure.get_figheight() - top
        for row in self.rows:
            bottom -= max(panel.height for panel in row) + below
            across = left
            for panel in row:
                axes = add_axes(figure, across, bottom + 0.5, panel.width, panel.height)
                panel.draw(axes)
                axes.set_title(panel.title, loc="left", fontsize=9, color=TEXT, parse_math=False)
                across += panel.width + beside
        add_title(figure, left / figure.get_figwidth(), self.title, self.subtitle)
        return figure
