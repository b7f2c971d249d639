"""The commands that make again what `--fix` queued, as their user would type them."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipelines.datasets.dataset_file import FlowSettings, Kind
from pipelines.errors import StresError
from pipelines.verification.requeue import Requeued
from pipelines.verification.video_task import VideoReport
from pipelines.workspace import Workspace

_DEFAULT_METHOD, _DEFAULT_BOUND, _DEFAULT_STEP = "tvl1", 20.0, 1  # of `extract-flow`


def commands(
    workspace: Workspace, requeued: Iterable[Requeued], reports: Sequence[VideoReport], usual: FlowSettings | None
) -> list[str]:
    """One command a stage, frames first. `usual`: the settings of the workspace's flow."""
    by_stage: dict[str, list[Requeued]] = {}
    for one in sorted(requeued, key=lambda one: one.kind == "flow"):
        by_stage.setdefault(one.stage, []).append(one)
    return [_command(workspace, stage, ones, reports, usual) for stage, ones in by_stage.items()]


def _command(
    workspace: Workspace,
    stage: str,
    requeued: Sequence[Requeued],
    reports: Sequence[VideoReport],
    usual: FlowSettings | None,
) -> str:
    kind = requeued[0].kind
    words = ["stres", stage]
    if stage.startswith("import-"):
        words.append("DIR")
    elif not (kind == "flow" and usual is not None and usual.flow_input == "jpeg"):
        words.append(_videos(requeued))
        words += _short_side(kind, reports)
    if kind == "flow" and usual is not None:
        words += _flow_options(usual)
    return " ".join([*words, "-w", shlex.quote(str(workspace.root))])


def _videos(requeued: Sequence[Requeued]) -> str:
    """The folder of class folders that all come from; VIDEOS where it is not the same for all."""
    roots = {_root(one) for one in requeued}
    root = roots.pop()
    return "VIDEOS" if root is None or roots else shlex.quote(str(root))


def _root(one: Requeued) -> Path | None:
    parents = Path(one.source).parents
    return next((folder.parent for folder in parents if folder.name == one.class_name), None)


def _short_side(kind: Kind, reports: Iterable[VideoReport]) -> list[str]:
    """--short-side where most are of another than the usual size."""
    most = Counter(report.short_sides.get(kind) for report in reports if kind in report.artifacts).most_common(1)
    return ["--short-side", str(most[0][0])] if most and most[0][0] is not None else []


def _flow_options(settings: FlowSettings) -> list[str]:
    """The options that make flow with these settings; those that are the default are left away."""
    options = []
    if settings.method != _DEFAULT_METHOD:
        options += ["--method", shlex.quote(settings.method)]
    for name, value in _other_parameters(settings).items():
        options += ["--method-option", shlex.quote(f"{name}={value}")]
    if settings.bound != _DEFAULT_BOUND:
        options += ["--bound", f"{settings.bound:g}"]
    if settings.step != _DEFAULT_STEP:
        options += ["--step", str(settings.step)]
    return options


def _other_parameters(settings: FlowSettings) -> dict[str, object]:
    """The method's parameters that are not its defaults; all where its defaults cannot be told."""
    from pipelines.optical_flow.methods import make_method

    parameters = json.loads(settings.method_parameters)
    try:
        defaults = make_method(settings.method).parameters
    except StresError:  # a method of others, or one whose weights are not here
        defaults = {}
    return {name: value for name, value in parameters.items() if name not in defaults or defaults[name] != value}
