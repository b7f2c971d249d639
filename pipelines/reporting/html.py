"""The report as one HTML file that needs nothing else: style, script, pictures and numbers are inside it."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pipelines import __version__
from pipelines.reporting.page_data import as_script
from pipelines.wording import percent, points

if TYPE_CHECKING:
    from jinja2 import Template

    from pipelines.evaluation.intervals import Interval
    from pipelines.reporting.result import Result

FOLDER = "page"
TEMPLATE = "report.html.j2"
STYLE = "report.css"
# Each uses those before it.
SCRIPTS = ("core.js", "clips.js", "matrix.js", "pointing.js", "classes.js", "charts.js", "main.js")


@dataclass(frozen=True)
class PageNotes:
    """What the page says beside the numbers.

    `thumbnails`: how many clips have pictures; `clips`: how many there are; `configurations`: `config.json` by run.
    """

    thumbnails: int
    clips: int
    configurations: Mapping[str, Mapping[str, Any]]


def page(result: "Result", data: Mapping[str, Any], notes: PageNotes) -> str:
    """The HTML document. Every name that came from data is escaped; no script but the page's own can run."""
    script = "".join(_read(name) for name in SCRIPTS)
    return _template().render(
        result=result,
        notes=notes,
        version=__version__,
        style=_read(STYLE),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=as_script(data),
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": percent, "interval": _interval, "points": points, "interval_of_points": _interval_of_points,
        "plain": _plain, "p_value": _p_value,
        "flat": _flat,
    }  # fmt: skip
    return environment.from_string(_read(TEMPLATE))


def _read(name: str) -> str:
    return files("pipelines.reporting").joinpath(FOLDER, name).read_text("utf-8")


def _interval(interval: "Interval") -> str:
    return " – ".join(percent(end) for end in interval)


def _interval_of_points(interval: "Interval") -> str:
    return " to ".join(points(end) for end in interval)


def _p_value(value: float) -> str:
    """A p-value with what digits it is worth."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def _plain(value: object) -> object:
    return {True: "yes", False: "no", None: "–"}[value] if value is None or isinstance(value, bool) else value


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A nested document as its leaves: `steps.motion.lr`, `0.05`."""
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _flat(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list):
        value = ", ".join(str(_plain(item)) for item in value)
    return [(name, str(_plain(value)))]
