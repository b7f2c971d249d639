"""What runs logged while they were trained (`runs/<name>/metrics.jsonl`), and their configurations."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import MissingError
from pipelines.storage.workspace import Workspace, is_plain_name
from pipelines.training.metrics_log import of_today
from pipelines.training.recipes import STEPS
from pipelines.training.run_config import RunConfig
from pipelines.training.runs import Run

MOST_POINTS = 300  # of a curve that is drawn; the table has them all


@dataclass(frozen=True)
class Curves:
    """What a run logged: for each step its lines in order."""

    run: str
    steps: dict[str, list[dict[str, float]]]


def read_configurations(workspace: Workspace, runs: Iterable[str]) -> dict[str, RunConfig | None]:
    """The configurations of the runs, each preceded by the one whose streams its joint step started from.

    Returns:
        By name, in that order; None where the workspace does not hold a usable one: scores are reported without it.
    """
    found: dict[str, RunConfig | None] = {}
    for name in dict.fromkeys(runs):
        config = _config(workspace, name)
        if config and config.base_run and is_plain_name(config.base_run.name):
            found.setdefault(config.base_run.name, _config(workspace, config.base_run.name))
        found[name] = config
    return found


def _config(workspace: Workspace, name: str) -> RunConfig | None:
    try:
        return Run(workspace.runs / name).config()
    except MissingError:
        return None


def read_curves(workspace: Workspace, configurations: Mapping[str, RunConfig | None]) -> list[Curves]:
    """The curves of those runs that have any; a line that is damaged or of no number is left out."""
    curves = []
    for name, config in configurations.items():
        try:
            text = (workspace.runs / name / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # How many cross-entropies a video's loss added up in each step: older logs hold their sum.
        terms = {step: of.step.terms for step, of in config.steps.items()} if config else {}
        steps: dict[str, list[dict[str, float]]] = {step: [] for step in STEPS}
        for line in text.splitlines():
            record = _record(line)
            step = record.get("step")
            if step in steps and "iteration" in record:
                values = {key: float(x) for key, x in record.items() if isinstance(x, int | float) and math.isfinite(x)}
                steps[step].append(of_today(values, terms.get(step)))
        if any(steps.values()):
            curves.append(Curves(name, {step: records for step, records in steps.items() if records}))
    return curves


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def thinned(records: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most `MOST_POINTS` records, each the mean of as many neighbours."""
    together = -(-len(records) // MOST_POINTS)
    if together <= 1:
        return records
    means = []
    for start in range(0, len(records), together):
        group = records[start : start + together]
        columns: dict[str, list[float]] = {}
        for record in group:
            for name, value in record.items():
                columns.setdefault(name, []).append(value)
        means.append({name: sum(values) / len(values) for name, values in columns.items()})
    return means
