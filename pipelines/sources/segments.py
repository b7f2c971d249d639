"""Segments: parts of an untrimmed video that are videos of a class by themselves, and how they are named."""

import math
import re
from dataclasses import dataclass

_CLOCK = re.compile(r"(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+(?:[.,]\d+)?)")
_NAME = re.compile(r"(?P<video>.+)_(?:\d+\.\d{3}-\d+\.\d{3}|f\d+-\d+)", re.DOTALL)


@dataclass(frozen=True, order=True)
class Segment:
    """The part of a video from `start` on and before `end`: in milliseconds from the first frame, or in frames counted
    from 0. A frame belongs to it by the millisecond nearest to the time at which it is shown, which is what lists say
    of a time that has more digits."""

    start: int
    end: int
    in_frames: bool = False

    @classmethod
    def of(cls, start: str, end: str, *, in_frames: bool) -> "Segment":
        """Reads seconds (`12.5`, `1:02.5`, `00:01:02.50`) or frames. Raises `ValueError`, saying what is wrong."""
        read = _frame if in_frames else _milliseconds
        segment = cls(read(start), read(end), in_frames)
        if segment.end <= segment.start:
            raise ValueError(f"the segment ends at {end!r}, which is not after its start, {start!r}")
        return segment

    def __str__(self) -> str:
        """`12.500-15.000`, or of frames `f300-375`."""
        if self.in_frames:
            return f"f{self.start}-{self.end}"
        return f"{self.start / 1000:.3f}-{self.end / 1000:.3f}"

    @property
    def too_late(self) -> str:
        """What is wrong where the video has no frame of it."""
        return f"the segment {self} starts behind the end of the video"

    def name(self, video: str) -> str:
        """The name under which the segment of a video is stored."""
        return f"{video}_{self}"


def video_of(name: str) -> str:
    """The name of the video that a segment of this name is a part of; "" for a name that is no segment's."""
    found = _NAME.fullmatch(name)
    return found["video"] if found else ""


def _milliseconds(text: str) -> int:
    clock = _CLOCK.fullmatch(text)
    if clock:
        minutes = 60 * int(clock["hours"] or 0) + int(clock["minutes"])
        seconds = 60 * minutes + float(clock["seconds"].replace(",", "."))
    else:
        try:
            seconds = float(text.replace(",", "."))
        except ValueError:
            raise ValueError(f"{text!r} is no time: give seconds, or hours:minutes:seconds") from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{text!r} is no time from 0 on")
    return round(1000 * seconds)


def _frame(text: str) -> int:
    if not re.fullmatch(r"\d+(\.0*)?", text):
        raise ValueError(f"{text!r} is no number of a frame, which are counted from 0")
    return int(float(text))
