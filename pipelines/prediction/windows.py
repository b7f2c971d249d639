"""Which frames make which window of a timeline, settled as their times come.

A length in seconds is one of time: a window begins and ends with the frames shown nearest to its two ends, however many
lie between. A length in frames is a number of them. Letters: T frames.
"""

import math
from bisect import bisect_right

from pipelines.prediction.duration import Duration

_EXACT = 1e-6  # seconds by which sums of times are off

Span = tuple[int, int]
"""The frames first..end-1."""


class Windows:
    """Windows of `window`, one every `hop`, each of `least` frames or more; no two are the same.

    Where the hop would leave frames between two windows out, the next one begins where the last one ended. The last
    window ends with the video.
    """

    def __init__(self, window: Duration, hop: Duration, least: int) -> None:
        self.window, self.hop, self.least = window, hop, least
        self.times: list[float] = []
        self._middles: list[float] = []  # between the frames i and i + 1
        self._origin, self._number = 0.0, 0  # the next window begins `_number` hops after the origin, seconds or frames
        self._last: Span = (0, 0)

    def add(self, time: float) -> list[Span]:
        """The windows that are settled with the frame shown at `time`, seconds, not before the last one's."""
        if self.times:
            self._middles.append((self.times[-1] + time) / 2)
        self.times.append(time)
        return self._settled()

    def finish(self, end: float) -> list[Span]:
        """The remaining windows of a video that ends then."""
        count = len(self.times)
        self._middles.append((self.times[-1] + end) / 2)
        spans = self._settled(until=end + (end - self.times[-1]) / 2)
        if self._last[1] == count:
            return spans
        first = count - self._frames(self.window) if self.window.in_frames else self._nearest(end - self.window.number)
        return [*spans, (max(0, min(first, count - self.least)), count)]

    def oldest(self) -> int:
        """The first frame that a further window may hold."""
        count = len(self.times)
        if self.window.in_frames:
            last = count - self._frames(self.window)
        else:
            last = self._nearest(self.times[-1] - self.window.number)
        return max(0, min(last, count - self.least, self._first()))

    def _settled(self, until: float = math.inf) -> list[Span]:
        spans: list[Span] = []
        while (span := self._next(until)) is not None:
            if span != self._last:
                spans.append(span)
                self._last = span
            self._number += self._hops_to_another(span[0])
        return spans

    def _next(self, until: float) -> Span | None:
        """The next window; None where it is not settled yet, or would end later than `until`."""
        count, first = len(self.times), self._first()
        if first >= count or not (self.hop.in_frames or until < math.inf or self._is_settled(self._position)):
            return None
        if self.window.in_frames:
            end = first + self._frames(self.window)
        else:
            at = self._start_time(first) + self.window.number
            if at > until + _EXACT or (until == math.inf and not self._is_settled(at)):
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

    def _start_time(self, first: int) -> float:
        return self.times[first] if self.hop.in_frames else self._position

    def _hops_to_another(self, first: int) -> int:
        """How many hops further a window can differ from the next: more than one where a frame is shown for long."""
        if self.hop.in_frames:
            return 1
        ahead = self._middle(first) - self._position
        if not self.window.in_frames:
            end = self._position + self.window.number
            ahead = min(ahead, self._middle(self._nearest(end)) - end)
        return 1 if ahead == math.inf else max(1, math.ceil((ahead - _EXACT) / self.hop.number))

    def _middle(self, frame: int) -> float:
        return self._middles[frame] if frame < len(self._middles) else math.inf

    def _is_settled(self, time: float) -> bool:
        """Whether no frame to come can be nearer."""
        return bool(self._middles) and self._middles[-1] > time + _EXACT

    def _nearest(self, time: float) -> int:
        """The frame shown nearest to that time, the later of two."""
        return bisect_right(self._middles, time + _EXACT)

    def _frames(self, length: Duration) -> int:
        return int(length.number)
