"""`--fix`: what is broken is set aside and becomes a row of `failures.csv`, so that its stage makes it again.

The row says why until the stage succeeds, as for every other video that failed.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.dataset_file import Kind, read_dataset_file, video_id
from pipelines.errors import StresError
from pipelines.storage.atomic import storage_errors
from pipelines.storage.failures import Failure, record_outcomes
from pipelines.storage.flow_settings import DEFAULT_BOUND, DEFAULT_METHOD, DEFAULT_STEP, FlowSettings
from pipelines.storage.provenance import is_pictures
from pipelines.verification.faults import Fault
from pipelines.verification.video_task import VideoReport
from pipelines.workspace import Workspace


@dataclass(frozen=True)
class Requeued:
    """An artifact that is to be made again: by which stage, and from what (empty where nothing says so any more)."""

    kind: Kind
    stage: str
    class_name: str
    video: str
    source: str


def requeue(workspace: Workspace, reports: Iterable[VideoReport], faults: Iterable[Fault]) -> list[Requeued]:
    """Sets aside every artifact that a fault names to be made again, and records why. Raises `StorageError`."""
    reasons: dict[tuple[str, Kind], list[str]] = {}
    for fault in faults:
        for kind in fault.remake:
            reasons.setdefault((fault.subject, kind), []).append(f"{fault.kind}: {fault.detail}")
    reports = [report for report in reports if any((report.task.id, kind) in reasons for kind in ("frames", "flow"))]
    sources = _sources(workspace, reports)
    requeued, rows = [], []
    for report in reports:
        task = report.task
        for kind in ("frames", "flow"):
            if (task.id, kind) not in reasons:
                continue
            place = _set_aside(workspace, kind, task.class_name, task.video)
            source = sources.get((task.id, kind), "")
            again = Requeued(kind, _stage(kind, source), task.class_name, task.video, source)
            requeued.append(again)
            # A row whose path is gone would be dropped, as that of a video that is no longer wanted.
            path = source if Path(source).is_file() else str(place)
            reason = "verify found " + "; ".join(reasons[task.id, kind])
            rows.append(Failure(again.stage, task.class_name, task.video, path, reason))
    record_outcomes(workspace, failed=rows)
    return requeued


def _stage(kind: Kind, source: str) -> str:
    return f"import-{kind}" if is_pictures(source) else f"extract-{kind}"


def _sources(workspace: Workspace, reports: Iterable[VideoReport]) -> dict[tuple[str, Kind], str]:
    """What each artifact of these videos was made from: as it says itself, else as `dataset.json` remembers, else what
    the video's other artifact says."""
    known = {
        (video_id(class_name, video), kind): artifact.source
        for (kind, class_name, video), artifact in read_dataset_file(workspace.dataset_file).items()
    }
    for report in reports:
        known |= {(report.task.id, kind): source for kind, source in report.sources.items() if source}
    for report in reports:
        others: tuple[tuple[Kind, Kind], ...] = (("frames", "flow"), ("flow", "frames"))
        for kind, other in others:
            if source := known.get((report.task.id, other)):
                known.setdefault((report.task.id, kind), source)
    return known


def _set_aside(workspace: Workspace, kind: Kind, class_name: str, video: str) -> Path:
    """Moves an artifact, if it is there, to where nothing reads it, in the place of what was moved there before; says
    where."""
    paths = workspace.artifact_file(kind, class_name, video), workspace.set_aside / kind / class_name / f"{video}.h5"
    if paths[0].exists():
        with storage_errors(paths[1]):
            paths[1].parent.mkdir(parents=True, exist_ok=True)
            os.replace(*paths)
    return paths[1]


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
    if settings.method != DEFAULT_METHOD:
        options += ["--method", shlex.quote(settings.method)]
    for name, value in _other_parameters(settings).items():
        options += ["--method-option", shlex.quote(f"{name}={value}")]
    if settings.bound != DEFAULT_BOUND:
        options += ["--bound", f"{settings.bound:g}"]
    if settings.step != DEFAULT_STEP:
        options += ["--step", str(settings.step)]
    return options


def _other_parameters(settings: FlowSettings) -> dict[str, object]:
    """The method's parameters that are not its defaults; all where its defaults cannot be told."""
    from pipelines.optical_flow.methods import make_method

    try:
        defaults = make_method(settings.method).parameters
    except StresError:  # a method of others, or one whose weights are not here
        defaults = {}
    return {
        name: value for name, value in settings.parameters.items() if name not in defaults or defaults[name] != value
    }
