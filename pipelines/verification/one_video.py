"""All checks of one video: of its artifacts, of the two together, and against their source; in a worker process.

Letters: F fields, H W pixels.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.artifacts import ArtifactError, FlowFile, FrameFile, SchemaError
from pipelines.datasets.catalogue import artifact_of, contradiction
from pipelines.datasets.dataset_file import Artifact, Kind
from pipelines.verification.faults import Broken, Fault, FaultKind
from pipelines.verification.flow_file import FlowContent, check_flow
from pipelines.verification.flow_values import check_constant, check_repeated, check_saturation
from pipelines.verification.frames_file import check_frames
from pipelines.verification.orientation import judge_orientation
from pipelines.verification.sources import Sources
from pipelines.verification.video_task import VideoReport, VideoTask
from pipelines.video.identity import size_conflict

_SAMPLED_FIELDS = 16


def check_video(task: VideoTask) -> VideoReport:
    """Everything that can be found by looking at this video alone."""
    with contextlib.ExitStack() as opened:
        return _Check(task, opened).report()


class _Check:
    """One video's check: collects faults, and keeps open what is sound."""

    def __init__(self, task: VideoTask, opened: contextlib.ExitStack) -> None:
        self.task, self.opened = task, opened
        self.faults: list[Fault] = []
        self.sources: dict[Kind, str] = {}
        self.artifacts: dict[Kind, Artifact] = {}
        self.attributes: dict[Kind, dict[str, Any]] = {}

    def report(self) -> VideoReport:
        frames = self._frames()
        flow, content = self._flow()
        source_absent = self._check_sources()
        if not self._belong_together():
            frames = None
        oriented = False
        if flow is not None and content is not None and self.task.depth != "quick":
            with self._noting("flow"):
                oriented = _check_values(flow, content, frames)
        return VideoReport(
            task=self.task,
            faults=self.faults,
            artifacts=self.artifacts,
            sources=self.sources,
            short_sides=self._short_sides(),
            frames_digest=str(self.attributes.get("frames", {}).get("content_sha256", "")),
            flow_digest=content.digest if content is not None and content.has_motion else "",
            source_absent=source_absent,
            oriented=oriented,
        )

    # -------------------------------------------------------------- the artifacts, each for itself

    def _frames(self) -> FrameFile | None:
        """The open frames artifact, if there is one and it is sound."""
        if "frames" not in self.task.artifacts:
            return None
        with self._noting("frames"):
            file = self.opened.enter_context(FrameFile(Path(self.task.artifacts["frames"].path)))
            artifact = self._described("frames", file.attributes)
            check_frames(file, self.task.depth)
            _check_times(file)
            self._keep("frames", artifact, file.attributes)
            return file
        return None

    def _flow(self) -> tuple[FlowFile, FlowContent] | tuple[None, None]:
        """The open flow artifact and what it holds, if there is one and it is sound."""
        if "flow" not in self.task.artifacts:
            return None, None
        with self._noting("flow"):
            file = self.opened.enter_context(FlowFile(Path(self.task.artifacts["flow"].path)))
            artifact = self._described("flow", file.attributes)
            content = check_flow(file, self.task.depth)
            _check_times(file)
            self._keep("flow", artifact, file.attributes)
            return file, content
        return None, None

    def _described(self, kind: Kind, attributes: dict[str, Any]) -> Artifact:
        self.sources[kind] = str(attributes.get("source", ""))
        return artifact_of(self.task.artifacts[kind], attributes)

    def _keep(self, kind: Kind, artifact: Artifact, attributes: dict[str, Any]) -> None:
        self.artifacts[kind], self.attributes[kind] = artifact, attributes

    @contextlib.contextmanager
    def _noting(self, kind: Kind) -> Iterator[None]:
        """Turns what is raised about an artifact into a fault of it."""
        try:
            yield
        except Broken as broken:
            self._add(broken.kind, broken.detail, kind)
        except ArtifactError as error:
            self._add(_kind_of(error), str(error), kind)

    def _add(self, fault: FaultKind, detail: str, *kinds: Kind) -> None:
        self.faults.append(Fault(fault, self.task.id, self.task.path(kinds[-1]), detail, kinds))

    def _short_sides(self) -> dict[Kind, int]:
        return {
            kind: min(artifact.width, artifact.height)
            for kind, artifact in self.artifacts.items()
            if "source_width" in self.attributes[kind] and size_conflict(self.attributes[kind], None)
        }

    # -------------------------------------------------------------- the artifacts beside others

    def _check_sources(self) -> bool:
        """Notes artifacts whose source is another now; returns whether a source is not there."""
        sources = Sources(self.task.depth)
        changes: dict[str, list[Kind]] = {}
        for kind, attributes in self.attributes.items():
            changes.setdefault(sources.change(attributes), []).append(kind)
        for change, kinds in changes.items():
            if change:
                self._add("source changed", change, *kinds)
        return sources.absent

    def _belong_together(self) -> bool:
        """Whether there are both artifacts, of the same frames."""
        if len(self.artifacts) < 2:
            return False
        problem = contradiction(self.artifacts)
        made_from = self.attributes["flow"].get("frames_sha256")
        if problem:
            self._add("out of step", f"its frames and its flow {problem}", *self._outdated())
        elif made_from not in (None, self.attributes["frames"].get("content_sha256")):
            self._add("out of step", "its flow was made from other frames than these", "flow")
        else:
            return True
        return False

    def _outdated(self) -> tuple[Kind, ...]:
        """Which of two artifacts that contradict each other are to be made again: those whose source has changed; both
        where that does not tell them apart."""
        changed = {kind for fault in self.faults if fault.kind == "source changed" for kind in fault.remake}
        return tuple(kind for kind in self.artifacts if kind in changed) or tuple(self.artifacts)


def _check_times(file: FrameFile | FlowFile) -> None:
    """Checks when the frames are said to be shown, where the file says so. Raises `Broken`, `ArtifactError`."""
    if "times" not in file.file:  # made by stres 0.1.0
        return
    attributes = file.attributes
    frames, fps, count = attributes["source_frames"], attributes.get("fps", 0.0), len(file.file["times"])
    if count != frames:
        raise Broken("inconsistent", f"holds {count} times, but was made from {frames} frames")
    if not 0 < fps < float("inf"):
        raise Broken("inconsistent", f"its fps is {fps!r}")
    times = file.times
    if not np.isfinite(times).all() or times[0] != 0 or (np.diff(times) < 0).any():
        raise Broken("inconsistent", "its times are not seconds from 0 that never go back")
    if times[-1] > frames / fps + 0.001:
        raise Broken("inconsistent", f"its last frame comes at {times[-1]:.3f} s, after its end at {frames / fps:.3f}")


def _check_values(flow: FlowFile, content: FlowContent, frames: FrameFile | None) -> bool:
    """Checks what the fields mean; returns whether their orientation could be seen. Raises `Broken`."""
    sampled = np.unique(np.linspace(0, content.fields - 1, _SAMPLED_FIELDS).astype(int)).tolist()
    fields = {index: flow.read(index, index + 1)[0] for index in sampled}
    check_saturation(fields)
    check_constant(flow, content, frames)
    check_repeated(flow, content, frames)
    return frames is not None and judge_orientation(frames, fields, content.step, content.bound)


def _kind_of(error: ArtifactError) -> FaultKind:
    """What HDF5 can only say in words."""
    if isinstance(error, SchemaError):
        return "wrong schema"
    text = str(error)
    if "truncated file" in text:
        return "truncated"
    if "not all in the file" in text:
        return "inconsistent"
    return "checksum" if "checksum" in text or "filter returned failure" in text else "damaged"
