"""What runs logged while they were trained (`runs/<name>/metrics.jsonl`), and their configurations."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

from pipelines.errors import MissingError
from pipelines.storage.workspace import Workspace, is_plain_name
from pipelines.training.findings import finding
from pipelines.training.metrics_log import read_records
from pipelines.training.run_config import RunConfig
from pipelines.training.runs import Run

MOST_POINTS = 300  # of a curve that is drawn; the table has them all


@dataclass(frozen=True)
class Curves:
    """What a run logged: for each step its lines in order."""

    run: str
    steps: dict[str, list[dict[str, float]]]

    @property
    def held_out(self) -> bool:
        """Whether some of it was measured on held-out videos."""
        return any("validation_loss" in record for records in self.steps.values() for record in records)


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
    """The curves of those runs that have any."""
    found = [Curves(name, read_records(workspace.runs / name, config)) for name, config in configurations.items()]
    return [curves for curves in found if curves.steps]


def findings(
    workspace: Workspace, configurations: Mapping[str, RunConfig | None], curves: Iterable[Curves]
) -> list[str]:
    """The steps of those runs that did not learn, or overfit, each in a sentence."""
    told = []
    for one in curves:
        try:
            split = Run(workspace.runs / one.run).split()
        except MissingError:
            continue
        videos = Counter(id_.partition("/")[0] for id_ in split.train)
        config = configurations[one.run]
        for step, records in one.steps.items():
            if text := finding(step, records, videos, config.balance if config else "none"):
                told.append(f"run {one.run}: {text}")
    return told


def thinned(records: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most `MOST_POINTS` records, each the mean of as many neighbours."""
    together = -(-len(records) // MOST_POINTS)
    if together <= 1:
        return records
    means = []
    for start in range(0, len(records), together):
        group = records[start : start + together]
        names = dict.fromkeys(name for record in group for name in record)
        means.append({name: fmean(record[name] for record in group if name in record) for name in names})
    return means
