"""The report as one HTML file that needs nothing else: style, script, pictures and numbers are inside it.

Letters: V clips of all splits, C classes.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from html import unescape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from pipelines import __version__
from pipelines.analysis.class_order import confusion_order
from pipelines.analysis.near_duplicates import MOST
from pipelines.evaluation.metrics import confusion_matrix, softmax
from pipelines.interface.wording import interval, p_value, percent, plural, points
from pipelines.reporting import plots
from pipelines.reporting.clip_pictures import SECONDS, Sheet
from pipelines.reporting.compute import ReportInputs
from pipelines.reporting.result import Result
from pipelines.reporting.thumbnails import Thumbnail
from pipelines.reporting.training_log import Curves
from pipelines.storage.atomic import json_text
from pipelines.training.run_config import RunConfig

FOLDER = "page"
TEMPLATE = "report.html.j2"
STYLE = "report.css"
# Each uses those before it.
SCRIPTS = ("core.js", "clips.js", "matrix.js", "pointing.js", "classes.js", "main.js")
LISTED = 100  # rows of a table of videos
BEST = 5  # classes listed for a clip
UNIT = 10_000  # probabilities travel as whole ten-thousandths: they are most of the page but for its pictures


def page(
    result: Result,
    inputs: ReportInputs,
    curves: Sequence[Curves],
    thumbnails: Mapping[int, Thumbnail],
    configurations: Mapping[str, RunConfig | None],
    files: Collection[str],
    beside: str,
    duplicates: Mapping[str, str | None],
) -> str:
    """Makes the HTML document. Every name that came from data is escaped; no script but the page's own can run.

    Args:
        inputs: The scores, for the lists of clips.
        curves: What training logged.
        thumbnails: Pictures of clips, which are counted through all splits.
        configurations: Of the runs, by name.
        files: Names of the files in the page's folder, to link to.
        beside: Which other program's file or run the report fuses in or compares with, for `beside_in`.
        duplicates: Pictures of near duplicates, by id.
    """
    script = "".join(_read(name) for name in SCRIPTS)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": percent, "points": points, "interval": interval, "p_value": p_value, "plain": _plain,
        "leaves": _leaves, "plural": plural,
    }  # fmt: skip
    return environment.from_string(_read(TEMPLATE)).render(
        result=result,
        curves={
            "fusion": plots.fusion_weight(result).panels if result.fusion else [],
            "calibration": plots.calibration(result).panels,
            "training": plots.training(result, curves).panels if curves else [],
        },
        files=files,
        beside=beside,
        duplicates=duplicates,
        held_out=any(one.held_out for one in curves),
        listed=LISTED,
        most_gray_levels=MOST,
        clips_with_pictures=len(thumbnails),
        clips_that_play=sum(each.sheet is not None for each in thumbnails.values()),
        clips_with_attention=sum(each.sheet is not None and each.sheet.attention for each in thumbnails.values()),
        seconds=SECONDS,
        class_index={name: index for index, name in enumerate(result.classes)},
        motion_adds={effect.class_name: effect.difference for effect in result.motion_effects},
        configurations={
            name: {key: value for key, value in config.to_json().items() if key != "classes"}
            for name, config in configurations.items()
            if config is not None
        },
        version=__version__,
        style=_read(STYLE),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=as_script(page_data(result, inputs, thumbnails)),
    )


def beside_in(path: Path) -> str:
    """The `beside` of the page at that path; "" where there is no page, or it names none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(2000)
    except OSError:
        return ""
    named = re.search('<meta name="beside" content="([^"]*)">', head)
    return unescape(named[1]) if named else ""


def _read(name: str) -> str:
    return resources.files("pipelines.reporting").joinpath(FOLDER, name).read_text("utf-8")


def _plain(value: object) -> object:
    return {True: "yes", False: "no", None: "–"}[value] if value is None or isinstance(value, bool) else value


def _leaves(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A nested document as its leaves: `steps.motion.lr`, `0.05`."""
    if isinstance(value, Mapping) and value:
        return [leaf for key, item in value.items() for leaf in _leaves(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list):
        value = ", ".join(str(_plain(item)) for item in value)
    return [(name, str(_plain(value)))]


def page_data(result: Result, inputs: ReportInputs, thumbnails: Mapping[int, Thumbnail]) -> dict[str, Any]:
    """What the page's script draws from: a JSON document in which classes are known by their index."""
    tables = inputs.tables
    labels = np.concatenate([table.labels for table in tables])
    best = min(BEST, len(result.classes))
    matrices = {stream: confusion_matrix(tables, stream) for stream in result.streams}
    streams = {}  # of each the best classes [V, 5] and their probabilities, clip by clip
    for stream in result.streams:
        logits = np.concatenate([table.streams[stream] for table in tables])
        order = np.argsort(-logits, axis=1, kind="stable")[:, :best]
        probabilities = np.take_along_axis(softmax(logits), order, axis=1)
        units = np.rint(probabilities * UNIT).astype(int)
        streams[stream] = {"best": order.ravel().tolist(), "probability": units.ravel().tolist()}
    others = {}
    lists = {"suspects": [one.clip for one in result.label_issues]}
    if result.comparison:
        for name, won in (("won", True), ("lost", False)):
            lists[name] = [one.clip for one in result.comparison.changed if one.won == won]
        others = {one.clip: result.classes.index(one.second) for one in result.comparison.changed}
    return {
        "classes": result.classes,
        "streams": list(result.streams),
        "headline": result.headline,
        "splits": [{"split": one.split, "run": one.run, "videos": one.videos} for one in result.splits],
        "confusion": {stream: matrix.ravel().tolist() for stream, matrix in matrices.items()},
        "clusters": {stream: confusion_order(matrix) for stream, matrix in matrices.items()},
        "accuracy": {stream: [row.accuracy[stream] for row in result.per_class] for stream in result.streams},
        "clips": {
            "ids": [video for table in tables for video in table.videos],
            "labels": labels.tolist(),
            "best": best,
            "unit": UNIT,
            "streams": streams,
        },
        "figures": {
            figure.title: [figure.with_unit(getattr(row, name)) for row in result.per_class]
            for name, figure in result.class_figures.items()
        },
        "lists": lists,
        "others": others,
        "thumbnails": {
            str(index): [each.frame, each.flow, each.sheet and _playable(each.sheet)]
            for index, each in thumbnails.items()
        },
    }


def _playable(sheet: Sheet) -> dict[str, Any]:
    return {"uri": sheet.uri, "pictures": sheet.pictures, "seconds": sheet.seconds, "ratio": round(sheet.ratio, 4)}


def as_script(document: Any) -> str:
    """JSON in ASCII that can stand inside a `<script>` element whatever its strings hold: none of `<`, `>`, `&`."""
    text = json_text(document, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
