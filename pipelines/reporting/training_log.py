"""The curves of training, from `runs/<name>/metrics.jsonl`."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.errors import MissingError
from pipelines.storage.atomic import read_json
from pipelines.training.metrics_log import of_today
from pipelines.training.recipes import STEPS, StepName
from pipelines.training.runs import Run
from pipelines.workspace import Workspace, is_plain_name

MOST_POINTS = 300  # of a curve that is drawn; the table has them all


@dataclass(frozen=True)
class Curves:
    """What a run logged while it was trained: for each step its lines in order."""

    run: str
    steps: dict[str, list[dict[str, float]]]


def read_curves(workspace: Workspace, runs: Iterable[str]) -> list[Curves]:
    """The curves of those runs that have any; a line that is damaged or of no number is left out."""
    found = [Curves(name, _steps(Run(workspace.runs / name))) for name in dict.fromkeys(runs)]
    return [curves for curves in found if curves.steps]


def with_base_runs(workspace: Workspace, runs: Iterable[str]) -> list[str]:
    """The runs, each preceded by the one whose streams its joint step started from, where that is another."""
    found: dict[str, None] = {}
    names = list(runs)
    configurations = read_configurations(workspace, names)
    for name in names:
        base = configurations.get(name, {}).get("base_run")
        if isinstance(base, dict) and isinstance(base.get("name"), str) and is_plain_name(base["name"]):
            found[base["name"]] = None
        found[name] = None
    return list(found)


def read_configurations(workspace: Workspace, runs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`config.json` of those runs that are there, without the classes."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(runs):
        try:
            document = read_json(Run(workspace.runs / name).config_file)
        except MissingError:  # scores are reported without their run, too
            continue
        if isinstance(document, dict):
            found[name] = {key: value for key, value in document.items() if key != "classes"}
    return found


def _steps(run: Run) -> dict[str, list[dict[str, float]]]:
    try:
        lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    steps: dict[str, list[dict[str, float]]] = {step: [] for step in STEPS}
    terms = {step: _terms(run, step) for step in STEPS}
    for line in lines:
        record = _record(line)
        step = record.get("step")
        if step in steps and "iteration" in record:
            values = {name: float(value) for name, value in record.items() if _is_finite(value)}
            steps[step].append(of_today(values, terms[step]))
    return {step: records for step, records in steps.items() if records}


def _terms(run: Run, step: StepName) -> int | None:
    """How many cross-entropies a video's loss added up in that step; None where the run's configuration is gone."""
    try:
        config = run.config().steps.get(step)
    except MissingError:
        return None
    return config.step.terms if config else None


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def thinned(records: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most `MOST_POINTS` records, each the mean of as many neighbours."""
    together = -(-len(records) // MOST_POINTS)
    groups = [records[start : start + together] for start in range(0, len(records), together)]
    return [_mean(group) for group in groups] if together > 1 else records


def _mean(group: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for record in group for name in record)
    values = {name: [record[name] for record in group if name in record] for name in names}
    return {name: sum(each) / len(each) for name, each in values.items()}
