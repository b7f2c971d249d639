"""Lengths of time as users give them, and the frames of each window of a timeline, settled as their times come.

A length in seconds is one of time: a window begins and ends with the frames shown nearest to its two ends, however many
lie between. A length in frames is a number of them. Letters: T frames.
"""

import math
import re
from bisect import bisect_right
from dataclasses import dataclass

from pipelines.errors import UsageError
from pipelines.interface.wording import plural

EXACT = 1e-6  # seconds by which sums of times are off
_FORM = re.compile(r"(?P<number>\d+(\.\d+)?|\.\d+)\s*(?P<unit>s|f?)")


@dataclass(frozen=True)
class Duration:
    """A length of video in seconds or in frames."""

    number: float
    in_frames: bool

    @classmethod
    def parse(cls, flag: str, text: str) -> "Duration":
        """`2`, `2s` or `0.5` seconds, `50f` frames. Raises `UsageError` naming `flag`."""
        match = _FORM.fullmatch(text.strip())
        if match is None or not float(match["number"]):
            raise UsageError(f"{flag} {text!r} cannot be read: give seconds, such as 2 or 0.5s, or frames, such as 50f")
        if match["unit"] == "f" and float(match["number"]) % 1:
            raise UsageError(f"{flag} {text!r}: a number of frames is a whole number")
        return cls(float(match["number"]), match["unit"] == "f")

    def frames(self, fps: float) -> int:
        """The number of frames at that rate, at least 1."""
        return max(1, round(self.number if self.in_frames else self.number * fps))

    def half(self) -> "Duration":
        """Half as long, at least 1 frame."""
        return Duration(max(1, self.number // 2) if self.in_frames else self.number / 2, self.in_frames)

    def __str__(self) -> str:
        return plural(int(self.number), "frame") if self.in_frames else f"{self.number:g} s"


def lengths(window: str | None, hop: str | None) -> tuple[Duration, Duration]:
    """`--window` and `--hop`: 2 seconds and 1 where neither is given, and of a window alone half of it as hop. Raises
    `UsageError` if one is not a length, or the hop is the longer."""
    length = Duration.parse("--window", window) if window is not None else Duration(2, in_frames=False)
    distance = Duration.parse("--hop", hop) if hop is not None else length.half()
    if distance.in_frames == length.in_frames and distance.number > length.number:
        raise UsageError(f"--hop {distance} is more than --window {length}: frames between windows would be skipped")
    return length, distance


Span = tuple[int, int]
"""The frames first..end-1."""


class Windows:
    """Windows of `window`, one every `hop`, each of at least `least` frames; no two are the same.

    If the hop would skip frames between two windows, the next one begins where the last one ended. The last window ends
    with the video.
    """

    def __init__(self, window: Duration, hop: Duration, least: int) -> None:
        self.window, self.hop, self.least = window, hop, least
        self.times: list[float] = []
        self._middles: list[float] = []  # between the frames i and i + 1
        self._origin, self._number = 0.0, 0  # the next window begins `_number` hops after the origin, seconds or frames
        self._last: Span = (0, 0)

    def add(self, time: float) -> list[Span]:
        """Adds the frame shown at `time`, seconds, not before the last one's; returns the windows that this settles."""
        if self.times:
            self._middles.append((self.times[-1] + time) / 2)
        self.times.append(time)
        return self._settled()

    def finish(self, end: float) -> list[Span]:
        """The remaining windows of a video that ends at `end` seconds."""
        count = len(self.times)
        self._middles.append((self.times[-1] + end) / 2)
        spans = self._settled(until=end + (end - self.times[-1]) / 2)
        if self._last[1] == count:
            return spans
        first = self._begin_of_last(end)
        return [*spans, (max(0, min(first, count - self.least)), count)]

    def oldest(self) -> int:
        """The first frame that a further window may hold."""
        return max(0, min(self._begin_of_last(self.times[-1]), len(self.times) - self.least, self._first()))

    def _begin_of_last(self, end: float) -> int:
        """Where a window begins that ends with the last frame, which ends at `end` seconds."""
        if self.window.in_frames:
            return len(self.times) - int(self.window.number)
        return self._nearest(end - self.window.number)

    def _settled(self, until: float = math.inf) -> list[Span]:
        spans: list[Span] = []
        while (span := self._next(until)) is not None:
            if span != self._last:
                spans.append(span)
                self._last = span
            self._number += self._hops_to_another(span[0])
        return spans

    def _next(self, until: float) -> Span | None:
        """The next window; None if it is not settled yet, or would end later than `until`."""
        count, first = len(self.times), self._first()
        if first >= count or not (self.hop.in_frames or until < math.inf or self._is_settled(self._position)):
            return None
        if self.window.in_frames:
            end = first + int(self.window.number)
        else:
            start = self.times[first] if self.hop.in_frames else self._position
            at = start + self.window.number
            if at > until + EXACT or (until == math.inf and not self._is_settled(at)):
                return None
            end = self._nearest(at)
        end = max(end, first + self.least)
        return (first, end) if end <= count else None

    def _first(self) -> int:
        """Where the next window begins, so that no frame is left out."""
        first = round(self._position) if self.hop.in_frames else self._nearest(self._position)
        if first > self._last[1]:
            first = self._last[1]
            self._origin, self._number = float(first) if self.hop.in_frames else self.times[first], 0
        return first

    @property
    def _position(self) -> float:
        return self._origin + self._number * self.hop.number

    def _hops_to_another(self, first: int) -> int:
        """How many hops further a window can differ from the next: more than one where a frame is shown for long."""
        if self.hop.in_frames:
            return 1
        ahead = self._middle(first) - self._position
        if not self.window.in_frames:
            end = self._position + self.window.number
            ahead = min(ahead, self._middle(self._nearest(end)) - end)
        return 1 if ahead == math.inf else max(1, math.ceil((ahead - EXACT) / self.hop.number))

    def _middle(self, frame: int) -> float:
        return self._middles[frame] if frame < len(self._middles) else math.inf

    def _is_settled(self, time: float) -> bool:
        """Whether no frame to come can be nearer."""
        return bool(self._middles) and self._middles[-1] > time + EXACT

    def _nearest(self, time: float) -> int:
        """The frame shown nearest to that time, the later of two."""
        return bisect_right(self._middles, time + EXACT)
