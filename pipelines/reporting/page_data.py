"""What the page's script draws from: every clip with its five best classes a stream, and the figures' numbers.

Letters: V clips of all splits, S streams, C classes. Probabilities travel as whole ten-thousandths: they are most of
the page but for its pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipelines.analysis.class_order import confusion_order
from pipelines.evaluation.metrics import confusion_matrix, softmax
from pipelines.reporting.measuring import Material
from pipelines.reporting.result import Result
from pipelines.reporting.thumbnails import Thumbnail
from pipelines.reporting.training_log import Curves, thinned
from pipelines.storage.atomic import json_text

BEST = 5
UNIT = 10_000


def page_data(
    result: Result, material: Material, thumbnails: Mapping[int, Thumbnail], curves: Sequence[Curves]
) -> dict[str, Any]:
    """A JSON document; clips are counted through all splits, classes by their index."""
    matrices = {stream: confusion_matrix(material.tables, stream) for stream in result.streams}
    return {
        "classes": result.classes,
        "streams": list(result.streams),
        "headline": result.headline,
        "splits": [{"split": one.split, "run": one.run, "videos": one.videos} for one in result.splits],
        "clusters": {stream: confusion_order(matrix) for stream, matrix in matrices.items()},
        "perClass": [asdict(row) for row in result.per_class],
        "effects": [asdict(effect) for effect in result.motion_effects],
        "clips": _clips(material),
        "thumbnails": {str(index): [each.frame, each.flow] for index, each in thumbnails.items()},
        "fusion": [asdict(sweep) for sweep in result.fusion],
        "calibration": {stream: asdict(values) for stream, values in result.calibration.items()},
        "training": [
            {"run": each.run, "steps": {step: _columns(thinned(records)) for step, records in each.steps.items()}}
            for each in curves
        ],
    }


def _clips(material: Material) -> dict[str, Any]:
    """Ids, true classes and, for each stream, the best classes [V, 5] and their probabilities, row by row."""
    tables = material.tables
    best = min(BEST, len(tables[0].classes))
    streams = {}
    for stream in tables[0].streams:
        logits = np.concatenate([table.streams[stream] for table in tables])
        order = np.argsort(-logits, axis=1, kind="stable")[:, :best]
        probability = softmax(logits)
        labels = np.concatenate([table.labels for table in tables])
        streams[stream] = {
            "best": order.ravel().tolist(),
            "probability": _units(np.take_along_axis(probability, order, axis=1).ravel()),
            "ofTrue": _units(probability[np.arange(len(labels)), labels]),
        }
    return {
        "ids": [video for table in tables for video in table.videos],
        "labels": [int(label) for table in tables for label in table.labels],
        "best": best,
        "unit": UNIT,
        "streams": streams,
    }


def _units(probabilities: np.ndarray) -> list[int]:
    return np.rint(probabilities * UNIT).astype(int).tolist()


def _columns(records: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [_short(record.get(name)) for record in records] for name in names}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def as_script(document: Any) -> str:
    """JSON in ASCII that can stand inside a `<script>` element whatever its strings hold: none of `<`, `>`, `&`."""
    text = json_text(document, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
