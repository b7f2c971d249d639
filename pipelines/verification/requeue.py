"""`--fix`: what is broken is set aside and becomes a row of `failures.csv`, so that its stage makes it again.

The row says why until the stage succeeds, as for every other video that failed.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.datasets.dataset_file import Kind, read_dataset_file, video_id
from pipelines.verification.faults import Fault
from pipelines.verification.video_task import VideoReport
from pipelines.video.sources import is_pictures
from pipelines.workspace import Failure, Workspace, record_outcomes, storage_errors


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
