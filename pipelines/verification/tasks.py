"""What travels between `verify` and its worker processes: videos to check, flow to recompute, and what came of them.

Light to import: the tasks are made before any library is loaded. Letters: F fields, W pixels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pipelines.datasets.dataset_file import Artifact, ArtifactFile, video_id
from pipelines.storage.workspace import Kind
from pipelines.verification.faults import CheckLevel, Fault

_SAMPLED_FIELDS = 3


@dataclass(frozen=True)
class VideoTask:
    """One video to check."""

    class_name: str
    video: str
    artifacts: dict[Kind, ArtifactFile]
    depth: CheckLevel

    @property
    def id(self) -> str:
        return video_id(self.class_name, self.video)

    def path(self, kind: Kind) -> str:
        return self.artifacts[kind].path

    def died(self, reason: str) -> "VideoReport":
        """The report if the worker process died under the check."""
        paths = " and ".join(map(self.path, self.artifacts))
        fault = Fault("damaged", self.id, paths, f"cannot be checked: {reason}", tuple(self.artifacts))
        return VideoReport(self, [fault])


@dataclass(frozen=True)
class FlowOrigin:
    """How a sound flow file says it was made."""

    path: str
    """The flow file."""
    source: str
    """The video file or frames artifact that it was computed from."""
    from_video: bool
    method: str
    width: int
    """W."""
    stres_version: str
    not_recomputable: str = ""
    """Why it cannot be recomputed; empty if it can."""

    @property
    def kernel_width(self) -> int:
        """The widest frames of the kernels that 0.1.0 computed flow of this width with."""
        widest = 176
        while widest < self.width:
            widest = 2 * widest + 16
        return widest


@dataclass(frozen=True)
class VideoReport:
    """What a video's checks found."""

    task: VideoTask
    faults: list[Fault] = field(default_factory=list)
    artifacts: dict[Kind, Artifact] = field(default_factory=dict)
    """The sound ones, as the catalogue would remember them."""
    sources: dict[Kind, str] = field(default_factory=dict)
    """What each says it was made from, sound or not."""
    short_sides: dict[Kind, int] = field(default_factory=dict)
    """Of the artifacts whose size is not the default."""
    frames_digest: str = ""
    flow_digest: str = ""
    """Of the content (`FlowContent.digest`)."""
    origin: FlowOrigin | None = None
    """Of its flow, if it has sound flow."""
    truncated: bool = False
    """Whether what is stored is marked as truncated (`--allow-truncated`)."""
    damaged: bool = False
    """Whether what is stored is marked as damaged (`--allow-damaged`)."""
    source_absent: bool = False
    oriented: bool = False
    """Whether there was enough motion to see that the flow's axes and signs are right."""


@dataclass(frozen=True)
class RecomputeTask:
    """Flow of one video to recompute: some fields, or all."""

    id: str
    origin: FlowOrigin
    all_fields: bool

    def fields(self, count: int) -> Sequence[int]:
        """Which of F = `count` fields to compute: if not all, one of each third, always the same ones for a video."""
        if self.all_fields:
            return range(count)
        parts = min(_SAMPLED_FIELDS, count)
        number = int.from_bytes(hashlib.sha256(self.id.encode(errors="surrogateescape")).digest()[:8])
        bounds = [part * count // parts for part in range(parts + 1)]
        return [start + number % (end - start) for start, end in pairwise(bounds)]


@dataclass(frozen=True)
class Recomputed:
    """What came of recomputing the flow of one video."""

    fields: int = 0
    """How many were compared."""
    wrong: str = ""
    """How the first field that differs does; empty if none does."""
    not_recomputable: str = ""
    """Why none could be computed after all; empty if they could."""
