"""`--fix`: what is broken is set aside and becomes a row of `failures.csv`, so that its stage makes it again.

The row says why until the stage succeeds, as for every other video that failed.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.dataset_file import read_dataset_file, video_id
from pipelines.errors import StresError
from pipelines.storage.atomic import storage_errors
from pipelines.storage.failures import Failure, record_outcomes
from pipelines.storage.flow_settings import DEFAULT_BOUND, DEFAULT_METHOD, DEFAULT_STEP, FlowSettings
from pipelines.storage.provenance import is_pictures
from pipelines.storage.workspace import KINDS, Kind, Workspace
from pipelines.verification.faults import Fault
from pipelines.verification.tasks import VideoReport


@dataclass(frozen=True)
class Requeued:
    """An artifact that is to be made again."""

    kind: Kind
    stage: str
    """The command that makes it."""
    class_name: str
    video: str
    source: str
    """What it was made from; empty if nothing says so any more."""


def requeue(workspace: Workspace, reports: Iterable[VideoReport], faults: Iterable[Fault]) -> list[Requeued]:
    """Sets aside every artifact that a fault names to be made again, and records why. Raises `StorageError`."""
    reasons: dict[tuple[str, Kind], list[str]] = {}
    for fault in faults:
        for kind in fault.remake:
            reasons.setdefault((fault.subject, kind), []).append(f"{fault.kind}: {fault.detail}")
    reports = [report for report in reports if any((report.task.id, kind) in reasons for kind in KINDS)]
    sources = _sources(workspace, reports)
    requeued, rows = [], []
    for task in (report.task for report in reports):
        for kind in KINDS:
            if (task.id, kind) not in reasons:
                continue
            path = workspace.artifact_file(kind, task.class_name, task.video)
            aside = workspace.set_aside / kind / task.class_name / path.name
            if path.exists():
                with storage_errors(aside):
                    aside.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, aside)
            source = sources.get((task.id, kind), "")
            stage = f"import-{kind}" if is_pictures(source) else f"extract-{kind}"
            requeued.append(Requeued(kind, stage, task.class_name, task.video, source))
            # A row whose path is gone would be dropped, as that of a video that is no longer wanted.
            kept = source if os.path.isfile(source) else str(aside)
            reason = "verify found " + "; ".join(reasons[task.id, kind])
            rows.append(Failure(stage, task.class_name, task.video, kept, reason))
    record_outcomes(workspace, failed=rows)
    return requeued


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
        for kind, other in zip(KINDS, reversed(KINDS), strict=True):
            if source := known.get((report.task.id, other)):
                known.setdefault((report.task.id, kind), source)
    return known


def commands(
    workspace: Workspace, requeued: Iterable[Requeued], reports: Sequence[VideoReport], usual: FlowSettings | None
) -> list[str]:
    """The commands that make the requeued artifacts again: one for each stage, frames first.

    Args:
        reports: Of all videos of the workspace, which show the usual size.
        usual: The settings of the workspace's flow.
    """
    by_stage: dict[str, list[Requeued]] = {}
    for each in sorted(requeued, key=lambda each: each.kind == "flow"):
        by_stage.setdefault(each.stage, []).append(each)
    lines = []
    for stage, group in by_stage.items():
        kind = group[0].kind
        words = ["stres", stage]
        if stage.startswith("import-"):
            words.append("DIR")
        elif not (kind == "flow" and usual is not None and usual.flow_input == "jpeg"):
            words.append(_videos(group))
            sides = Counter(report.short_sides.get(kind) for report in reports if kind in report.artifacts)
            (side, _), *_ = sides.most_common(1) or [(None, 0)]
            words += [] if side is None else ["--short-side", str(side)]
        if kind == "flow" and usual is not None:
            words += _flow_options(usual)
        lines.append(" ".join([*words, "-w", shlex.quote(str(workspace.root))]))
    return lines


def _videos(requeued: Sequence[Requeued]) -> str:
    """The folder of class folders that all come from; VIDEOS if it is not the same for all."""
    roots = {
        next((folder.parent for folder in Path(each.source).parents if folder.name == each.class_name), None)
        for each in requeued
    }
    root = roots.pop()
    return "VIDEOS" if root is None or roots else shlex.quote(str(root))


def _flow_options(settings: FlowSettings) -> list[str]:
    """The options that make flow with these settings, without those that are the default."""
    from pipelines.optical_flow.methods import make_method

    try:
        defaults = make_method(settings.method).parameters
    except StresError:  # a method of others, or one whose weights are not here: its defaults are not known
        defaults = {}
    options = [] if settings.method == DEFAULT_METHOD else ["--method", shlex.quote(settings.method)]
    for name, value in settings.parameters.items():
        if name not in defaults or defaults[name] != value:
            options += ["--method-option", shlex.quote(f"{name}={value}")]
    if settings.bound != DEFAULT_BOUND:
        options += ["--bound", f"{settings.bound:g}"]
    if settings.step != DEFAULT_STEP:
        options += ["--step", str(settings.step)]
    return options
