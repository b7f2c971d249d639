"""One video to process, as VIDEOS names it."""

import os
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import VideoError
from pipelines.sources.segments import Segment


@dataclass(frozen=True)
class VideoSource:
    """One video, or segment of one. What is refused before it is opened becomes a row of `failures.csv`."""

    class_name: str
    video: str
    """Its file's name without the last suffix; for a segment of it, followed by where that begins and ends."""
    path: Path
    """Absolute."""
    split: str = ""
    """`train`, `validation` or `test`, where VIDEOS says it."""
    problem: str = ""
    """Why it cannot be processed, where that is known before it is opened: of a list's video that does not exist, where
    it was looked for and the likely reason."""
    segment: Segment | None = None
    """The part of the file that it is; None for all of it."""

    @classmethod
    def of(
        cls, class_name: str, path: Path, split: str = "", problem: str = "", segment: Segment | None = None
    ) -> "VideoSource":
        """The file at `path`, or a segment of it, under the name that is stored."""
        absolute = Path(os.path.abspath(path))
        name = segment.name(absolute.stem) if segment else absolute.stem
        return cls(class_name, name, absolute, split, problem, segment)

    @property
    def id(self) -> str:
        return f"{self.class_name}/{self.video}"

    @property
    def file(self) -> Path:
        """The path of a file to open. Raises `VideoError` where there is a problem."""
        if self.problem:
            raise VideoError(self.problem)
        return self.path
