"""All checks of one video: of its artifacts, of the two together, and against their source; in a worker process.

Letters: F fields, H W pixels.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.artifacts import ArtifactError, FlowFile, FrameFile, SchemaError
from pipelines.datasets.catalogue import artifact_of, contradiction
from pipelines.datasets.dataset_file import Artifact, Kind, video_id
from pipelines.verification.depth import Depth
from pipelines.verification.faults import Broken, Fault, FaultKind

_SAMPLED_FIELDS = 16


@dataclass(frozen=True)
class Listed:
    """An artifact as it stands in its folder."""

    path: Path
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class VideoTask:
    """One video to check."""

    class_name: str
    video: str
    artifacts: dict[Kind, Listed]
    depth: Depth

    @property
    def id(self) -> str:
        return video_id(self.class_name, self.video)

    def path(self, kind: Kind) -> str:
        return str(self.artifacts[kind].path)

    def check(self) -> "VideoReport":
        with contextlib.closing(_Check(self)) as check:
            return check.report()

    def died(self, reason: str) -> "VideoReport":
        """The report where the check itself did not come to an end."""
        paths = " and ".join(map(self.path, self.artifacts))
        fault = Fault("damaged", self.id, paths, f"cannot be checked: {reason}", tuple(self.artifacts))
        return VideoReport(self, [fault])


@dataclass(frozen=True)
class VideoReport:
    """What a video's checks found."""

    task: VideoTask
    faults: list[Fault] = field(default_factory=list)
    artifacts: dict[Kind, Artifact] = field(default_factory=dict)
    """What the catalogue would remember of those that are sound."""
    sources: dict[Kind, str] = field(default_factory=dict)
    """What each says it was made from, sound or not."""
    short_sides: dict[Kind, int] = field(default_factory=dict)
    """Of those whose size is not the one that is made unless asked for otherwise."""
    frames_digest: str = ""
    flow_digest: str = ""
    """Of the content; empty where it says nothing about which video it is: of flow without any motion."""
    source_absent: bool = False
    oriented: bool = False
    """Whether there was motion enough to see that the flow is the right way round."""


class _Check:
    def __init__(self, task: VideoTask) -> None:
        self.task = task
        self.faults: list[Fault] = []
        self.artifacts: dict[Kind, Artifact] = {}
        self.attributes: dict[Kind, dict[str, Any]] = {}
        self.sources: dict[Kind, str] = {}
        self._open = contextlib.ExitStack()

    def close(self) -> None:
        self._open.close()

    def report(self) -> VideoReport:
        from pipelines.verification.flow_file import check_flow
        from pipelines.verification.frames_file import check_frames

        frames, frame_content = self._artifact("frames", FrameFile, check_frames)
        flow, flow_content = self._artifact("flow", FlowFile, check_flow)
        source_absent = self._check_sources()
        together = self._check_together()
        oriented = False
        if flow is not None and self.task.depth != "quick":
            with self._noting("flow"):
                oriented = self._check_values(
                    flow, flow_content, frames if together else None, frame_content if together else None
                )
        moves = flow_content is not None and len(flow_content.small) < flow_content.fields
        return VideoReport(
            self.task,
            self.faults,
            self.artifacts,
            self.sources,
            self._short_sides(),
            str(self.attributes.get("frames", {}).get("content_sha256", "")),
            flow_content.digest if moves and flow_content is not None else "",
            source_absent,
            oriented,
        )

    def _artifact(self, kind: Kind, reader: Any, check: Any) -> tuple[Any, Any]:
        """The open artifact and its content; None twice where it is absent or at fault."""
        listed = self.task.artifacts.get(kind)
        if listed is None:
            return None, None
        with self._noting(kind):
            file = self._open.enter_context(reader(listed.path))
            self.sources[kind] = str(file.attributes.get("source", ""))
            artifact = artifact_of(kind, listed.path, file.attributes, listed.bytes, listed.mtime_ns)
            content = check(file, self.task.depth)
            self.artifacts[kind] = artifact
            self.attributes[kind] = content.attributes
            return file, content
        return None, None

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
        from pipelines.video.extraction import size_conflict

        return {
            kind: min(artifact.width, artifact.height)
            for kind, artifact in self.artifacts.items()
            if "source_width" in self.attributes[kind] and size_conflict(self.attributes[kind], None)
        }

    def _check_sources(self) -> bool:
        """Notes artifacts whose source is another now; returns whether a source is not there."""
        from pipelines.verification.sources import Sources

        sources = Sources(self.task.depth)
        for kind, attributes in self.attributes.items():
            change = sources.change(attributes)
            if change:
                self._add("source changed", change, kind)
        return sources.absent

    def _check_together(self) -> bool:
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

    def _check_values(self, flow: FlowFile, content: Any, frames: FrameFile | None, frame_content: Any) -> bool:
        """Checks what the fields mean; returns whether their orientation could be seen. Raises `Broken`."""
        import numpy as np

        from pipelines.verification.flow_values import check_constant, check_repeated, check_saturation
        from pipelines.verification.orientation import judge_orientation

        sampled = np.unique(np.linspace(0, content.fields - 1, _SAMPLED_FIELDS).astype(int)).tolist()
        fields = {index: flow.read(index, index + 1)[0] for index in sampled}
        check_saturation(fields)
        check_constant(flow, content, frames)
        check_repeated(flow, content, frame_content)
        return frames is not None and judge_orientation(frames, fields, content.step, content.bound)


def _kind_of(error: ArtifactError) -> FaultKind:
    """What HDF5 can only say in words."""
    if isinstance(error, SchemaError):
        return "wrong schema"
    text = str(error)
    if "truncated file" in text:
        return "truncated"
    return "checksum" if "Fletcher32" in text or "checksum" in text else "damaged"
