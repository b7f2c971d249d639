"""All checks of one video: of its artifacts, of the two together, and against their source; in a worker process.

Letters: F fields, H W pixels.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.datasets.catalogue import artifact_of, contradiction
from pipelines.datasets.dataset_file import Artifact, Kind
from pipelines.jobs.resume import size_conflict
from pipelines.optical_flow.methods import METHODS
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import ArtifactError, SchemaError
from pipelines.storage.provenance import is_pictures
from pipelines.verification.faults import Broken, Depth, Fault, FaultKind
from pipelines.verification.flow_file import FlowContent, check_constant, check_flow, check_repeated, check_saturation
from pipelines.verification.flow_task import FlowOrigin
from pipelines.verification.frames_file import check_frames
from pipelines.verification.orientation import judge_orientation
from pipelines.verification.video_task import VideoReport, VideoTask


class Sources:
    """Looks at the sources of one video's artifacts, at each file once."""

    def __init__(self, depth: Depth) -> None:
        self.depth = depth
        self.absent = False
        """Whether a source is no longer there, and could not be compared."""
        self._sha256: dict[Path, str] = {}

    def change(self, attributes: Mapping[str, Any]) -> str:
        """How the source differs from what the artifact with these attributes was made from; "" where it does not, is
        not there, or is a series of pictures that was imported."""
        path = Path(str(attributes.get("source", "")))
        if not path.is_file():
            self.absent |= not is_pictures(str(path))
            return ""
        try:
            size = path.stat().st_size
            if size != attributes.get("source_bytes", size):
                return f"{path} has {size} bytes, where it had {attributes['source_bytes']}"
            if self.depth != "quick" and self._hash(path) != attributes.get("source_sha256"):
                return f"{path} has other content than it had (its SHA-256 differs)"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        return ""

    def _hash(self, path: Path) -> str:
        if path not in self._sha256:
            with path.open("rb") as file:
                self._sha256[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._sha256[path]


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
        self.changed: set[Kind] = set()  # whose source is another now

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
            origin=self._origin(content, frames) if content is not None else None,
            truncated=any(attributes.get("truncated") for attributes in self.attributes.values()),
            damaged=any(attributes.get("damaged") for attributes in self.attributes.values()),
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
            _check_marks(file.attributes)
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
            _check_marks(file.attributes)
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
                self.changed.update(kinds)
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
        return tuple(kind for kind in self.artifacts if kind in self.changed) or tuple(self.artifacts)

    # -------------------------------------------------------------- what computes the flow again

    def _origin(self, content: FlowContent, frames: FrameFile | None) -> FlowOrigin:
        """`frames`: those of the flow, if they are there and sound."""
        made, settings = self.attributes["flow"], content.settings
        from_video = settings.flow_input == "video"
        return FlowOrigin(
            path=self.task.path("flow"),
            source=str(made.get("source", "")) if from_video else self.task.path("frames") if frames else "",
            from_video=from_video,
            method=settings.method,
            width=content.width,
            stres_version=str(made.get("stres_version", "")),
            lost=self._why_lost(made, settings, frames),
        )

    def _why_lost(self, made: Mapping[str, Any], settings: FlowSettings, frames: FrameFile | None) -> str:
        """Why flow with these attributes cannot be computed again; empty where it can."""
        if settings.flow_input not in ("video", "jpeg"):
            return "it was imported"
        if settings.method not in METHODS:
            return "its method is not one of stres"
        if settings.flow_input == "video":
            if not Path(str(made.get("source", ""))).is_file():
                return "its source is gone"
            return "its source has changed" if "flow" in self.changed else ""
        if frames is None or frames.attributes.get("content_sha256") != made.get("frames_sha256"):
            return "the frames it was made from are not there"
        return ""


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
    return frames is not None and judge_orientation(frames, fields, content.settings.step, content.settings.bound)


def _check_marks(attributes: Mapping[str, Any]) -> None:
    """Raises `Broken` where the mark of a video that was stored in part contradicts its frames."""
    frames = attributes.get("source_frames")
    if attributes.get("truncated") and attributes.get("decoded_frames") != frames:
        decoded = attributes.get("decoded_frames")
        raise Broken("inconsistent", f"it is marked as truncated after {decoded} frames, but has {frames}")
    if attributes.get("damaged"):
        count = attributes.get("damaged_frames")
        if not isinstance(count, int) or not isinstance(frames, int) or not 1 <= count <= frames:
            raise Broken("inconsistent", f"it is marked as damaged in {count!r} of {frames!r} frames")


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
