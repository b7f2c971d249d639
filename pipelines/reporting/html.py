"""The report as one HTML file that needs nothing else: style, pictures and numbers are inside it."""

import base64
from importlib.resources import files
from typing import TYPE_CHECKING

from pipelines import __version__
from pipelines.reporting import plots

if TYPE_CHECKING:
    from pipelines.evaluation.metrics import Interval
    from pipelines.reporting.result import Result

TEMPLATE = "report.html.j2"
PAIRS_SHOWN = 30


def page(result: "Result", confusion_matrix: bytes, per_class: bytes) -> str:
    """The HTML document, with the given PNGs and their dark twins. Every name that came from data is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": _percent, "interval": _interval, "plain": _plain}
    template = environment.from_string(files("pipelines.reporting").joinpath(TEMPLATE).read_text("utf-8"))
    return template.render(
        result=result,
        version=__version__,
        pairs=result.confused[:PAIRS_SHOWN],
        confusion_light=_embedded(confusion_matrix),
        confusion_dark=_embedded(plots.confusion_matrix(result, plots.DARK)),
        per_class_light=_embedded(per_class),
        per_class_dark=_embedded(plots.per_class(result, plots.DARK)),
    )


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def _interval(interval: "Interval") -> str:
    return f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"


def _plain(value: object) -> object:
    return {True: "yes", False: "no", None: "–"}[value] if value is None or isinstance(value, bool) else value


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
