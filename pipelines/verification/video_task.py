"""One video to verify, and what was found of it; light, since `verify` is made of them before any library is loaded."""

from dataclasses import dataclass, field

from pipelines.datasets.dataset_file import Artifact, ArtifactFile, Kind, video_id
from pipelines.verification.faults import Depth, Fault
from pipelines.verification.flow_task import FlowOrigin


@dataclass(frozen=True)
class VideoTask:
    """One video to check."""

    class_name: str
    video: str
    artifacts: dict[Kind, ArtifactFile]
    depth: Depth

    @property
    def id(self) -> str:
        return video_id(self.class_name, self.video)

    def path(self, kind: Kind) -> str:
        return self.artifacts[kind].path

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
    origin: FlowOrigin | None = None
    """Of its flow, if there is some and it is sound."""
    truncated: bool = False
    """Whether what is stored is marked as such, since `--allow-truncated` had it stored."""
    damaged: bool = False
    """The same of `--allow-damaged`."""
    source_absent: bool = False
    oriented: bool = False
    """Whether there was motion enough to see that the flow is the right way round."""
