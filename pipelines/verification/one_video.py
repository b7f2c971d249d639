"""All checks of one video: of its artifacts, of the two together, and against their source; in a worker process.

Letters: F fields, H W pixels.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipelines.datasets.catalogue import artifact_of, contradiction
from pipelines.datasets.dataset_file import Artifact
from pipelines.jobs.resume import size_conflict
from pipelines.optical_flow.methods import METHODS
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import ArtifactError, SchemaError
from pipelines.storage.provenance import file_sha256, is_pictures
from pipelines.storage.workspace import Kind
from pipelines.verification.faults import CheckLevel, Fault, FaultFound, FaultKind
from pipelines.verification.flow_file import FlowContent, check_constant, check_flow, check_repeated, check_saturation
from pipelines.verification.frames_file import check_frames
from pipelines.verification.orientation import judge_orientation
from pipelines.verification.tasks import FlowOrigin, VideoReport, VideoTask

_SAMPLED_FIELDS = 16
File = TypeVar("File", FrameFile, FlowFile)
Content = TypeVar("Content")


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
        # Of the sound artifacts:
        self.artifacts: dict[Kind, Artifact] = {}
        self.attributes: dict[Kind, dict[str, Any]] = {}
        self.changed: set[Kind] = set()  # whose source has changed

    def report(self) -> VideoReport:
        frames, _ = self._sound("frames", FrameFile, check_frames)
        flow, content = self._sound("flow", FlowFile, check_flow)
        source_absent = self._check_sources()
        if not self._belong_together():
            frames = None
        oriented = False
        if flow is not None and content is not None and self.task.depth != "quick":
            with self._noting("flow"):
                sampled = np.unique(np.linspace(0, content.fields - 1, _SAMPLED_FIELDS).astype(int)).tolist()
                fields = {index: flow.read(index, index + 1)[0] for index in sampled}
                check_saturation(fields)
                check_constant(flow, content, frames)
                check_repeated(flow, content, frames)
                settings = content.settings
                oriented = frames is not None and judge_orientation(frames, fields, settings.step, settings.bound)
        return VideoReport(
            task=self.task,
            faults=self.faults,
            artifacts=self.artifacts,
            sources=self.sources,
            short_sides={
                kind: min(artifact.width, artifact.height)
                for kind, artifact in self.artifacts.items()
                if "source_width" in self.attributes[kind] and size_conflict(self.attributes[kind], None)
            },
            frames_digest=str(self.attributes.get("frames", {}).get("content_sha256", "")),
            flow_digest=content.digest if content is not None else "",
            origin=self._origin(content, frames) if content is not None else None,
            truncated=any(attributes.get("truncated") for attributes in self.attributes.values()),
            damaged=any(attributes.get("damaged") for attributes in self.attributes.values()),
            source_absent=source_absent,
            oriented=oriented,
        )

    # -------------------------------------------------------------- each artifact by itself

    def _sound(
        self, kind: Kind, open_file: Callable[[Path], File], check: Callable[[File, CheckLevel], Content]
    ) -> tuple[File, Content] | tuple[None, None]:
        """The open artifact and what `check` says of it; None of both if it is absent or faulty."""
        if kind not in self.task.artifacts:
            return None, None
        with self._noting(kind):
            file = self.opened.enter_context(open_file(Path(self.task.path(kind))))
            attributes = file.attributes
            self.sources[kind] = str(attributes.get("source", ""))
            artifact = artifact_of(self.task.artifacts[kind], attributes)
            _check_marks(attributes)
            content = check(file, self.task.depth)
            _check_times(file)
            self.artifacts[kind], self.attributes[kind] = artifact, attributes
            return file, content
        return None, None

    @contextlib.contextmanager
    def _noting(self, kind: Kind) -> Iterator[None]:
        """Turns an exception about an artifact into a fault of it."""
        try:
            yield
        except FaultFound as fault:
            self._add(fault.kind, fault.detail, kind)
        except ArtifactError as error:
            self._add(_kind_of(error), str(error), kind)

    def _add(self, fault: FaultKind, detail: str, *kinds: Kind) -> None:
        self.faults.append(Fault(fault, self.task.id, self.task.path(kinds[-1]), detail, kinds))

    # -------------------------------------------------------------- the artifacts beside their source and each other

    def _check_sources(self) -> bool:
        """Notes artifacts whose source has changed; returns whether a source is absent, and could not be compared."""
        absent = False
        changes: dict[str, list[Kind]] = {}
        for kind, attributes in self.attributes.items():
            path = Path(str(attributes.get("source", "")))
            if not path.is_file():
                absent |= not is_pictures(str(path))
            elif change := self._source_change(path, attributes):
                changes.setdefault(change, []).append(kind)
        for change, kinds in changes.items():
            self.changed.update(kinds)
            self._add("source changed", change, *kinds)
        return absent

    def _source_change(self, path: Path, attributes: Mapping[str, Any]) -> str:
        """How the source differs from what the artifact with these attributes was made from; "" if it does not."""
        try:
            status = path.stat()
            if status.st_size != attributes.get("source_bytes", status.st_size):
                return f"{path} has {status.st_size} bytes; it had {attributes['source_bytes']}"
            sha256 = attributes.get("source_sha256")
            if self.task.depth != "quick" and file_sha256(path, status.st_size, status.st_mtime_ns) != sha256:
                return f"the content of {path} has changed (its SHA-256 differs)"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"
        return ""

    def _belong_together(self) -> bool:
        """Whether there are both artifacts, of the same frames."""
        if len(self.artifacts) < 2:
            return False
        made_from = self.attributes["flow"].get("frames_sha256")
        if problem := contradiction(self.artifacts):
            # Those whose source has changed are made again; both if neither's has.
            outdated = [kind for kind in self.artifacts if kind in self.changed] or self.artifacts
            self._add("out of step", f"its frames and its flow {problem}", *outdated)
            return False
        if made_from not in (None, self.attributes["frames"].get("content_sha256")):
            self._add("out of step", "its flow was made from other frames than these", "flow")
            return False
        return True

    # -------------------------------------------------------------- what recomputes the flow

    def _origin(self, content: FlowContent, frames: FrameFile | None) -> FlowOrigin:
        """`frames`: those of the flow, if they are there and sound."""
        made, settings = self.attributes["flow"], content.settings
        from_video, not_recomputable = settings.flow_input == "video", ""
        if settings.flow_input not in ("video", "jpeg"):
            not_recomputable = "it was imported"
        elif settings.method not in METHODS:
            not_recomputable = "its method is not one of stres"
        elif from_video and not os.path.isfile(self.sources["flow"]):
            not_recomputable = "its source is gone"
        elif from_video and "flow" in self.changed:
            not_recomputable = "its source has changed"
        elif not from_video and (
            frames is None or frames.attributes.get("content_sha256") != made.get("frames_sha256")
        ):
            not_recomputable = "the frames it was made from are not there"
        return FlowOrigin(
            path=self.task.path("flow"),
            source=self.sources["flow"] if from_video else self.task.path("frames") if frames else "",
            from_video=from_video,
            method=settings.method,
            width=content.width,
            stres_version=str(made.get("stres_version", "")),
            not_recomputable=not_recomputable,
        )


def _check_times(file: FrameFile | FlowFile) -> None:
    """Checks when the frames are said to be shown, if the file says so. Raises `FaultFound`, `ArtifactError`."""
    if "times" not in file.file:  # made by stres 0.1.0
        return
    attributes = file.attributes
    frames, fps, times = attributes["source_frames"], attributes.get("fps", 0.0), file.times
    if not 0 < fps < float("inf"):
        raise FaultFound("inconsistent", f"its fps is {fps!r}")
    if times[-1] > frames / fps + 0.001:
        detail = f"its last frame comes at {times[-1]:.3f} s, after its end at {frames / fps:.3f}"
        raise FaultFound("inconsistent", detail)


def _check_marks(attributes: Mapping[str, Any]) -> None:
    """Raises `FaultFound` if the mark of a truncated or damaged video contradicts its frames."""
    frames = attributes.get("source_frames")
    if attributes.get("truncated") and attributes.get("decoded_frames") != frames:
        decoded = attributes.get("decoded_frames")
        raise FaultFound("inconsistent", f"it is marked as truncated after {decoded} frames, but has {frames}")
    if attributes.get("damaged"):
        count = attributes.get("damaged_frames")
        if not isinstance(count, int) or not isinstance(frames, int) or not 1 <= count <= frames:
            raise FaultFound("inconsistent", f"it is marked as damaged in {count!r} of {frames!r} frames")


def _kind_of(error: ArtifactError) -> FaultKind:
    """Which kind of fault it is, which HDF5 only says in words."""
    text = str(error)
    if isinstance(error, SchemaError):
        return "wrong schema"
    if "truncated file" in text:
        return "truncated"
    if "not all in the file" in text:
        return "inconsistent"
    return "checksum" if "checksum" in text or "filter returned failure" in text else "damaged"
