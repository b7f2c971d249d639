"""When the frames of a video are shown: by its file's timestamps, or where those are implausible, by its rate.

Letters: T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipelines.interface.wording import plural
from pipelines.storage.hdf5 import USUAL_FPS, even_times

if TYPE_CHECKING:
    import av

Origin = Literal["timestamps", "rate", "given", "assumed"]
"""Where times come from: the file's timestamps, its average rate, the user's rate, or 25 frames a second."""

_NO_STAMPS, _MAY_RESTART = 0x0080, 0x0200  # flags of the container's format: AVFMT_NOTIMESTAMPS, AVFMT_TS_DISCONT
# As in FFmpeg's own program: clocks of MPEG streams may restart (wrap-around, files joined end to end), and a
# gap of more than 30 hours is an error anywhere.
_RESTART_BACK, _RESTART_AHEAD, _LONGEST_GAP = 0.1, 10.0, 30 * 3600.0  # seconds


@dataclass(frozen=True)
class Timing:
    """When each frame is shown."""

    times: np.ndarray
    """Seconds from the first frame: float64 [T], non-decreasing, the first 0."""
    fps: float
    """Frames a second: T / duration."""
    origin: Origin
    """Where both come from."""
    problem: str = ""
    """Why not from the timestamps; "" if they do."""

    @property
    def duration(self) -> float:
        """Seconds until the last frame ends."""
        return len(self.times) / self.fps


class FrameClock:
    """Collects the timestamps of a stream's frames as they are decoded."""

    def __init__(self, container: "av.container.InputContainer", stream: "av.VideoStream") -> None:
        self.rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
        self.tick = float(stream.time_base or 0)
        self.has_stamps = not container.format.flags & _NO_STAMPS
        self.may_restart = bool(container.format.flags & _MAY_RESTART)
        self.stamps: list[float | None] = []
        self._last_duration = 0.0

    @property
    def rate(self) -> float:
        """The container's, frames a second; 0.0 where unknown."""
        return self.rates[0] if self.rates else 0.0

    def add(self, frame: "av.VideoFrame") -> None:
        self.stamps.append(frame.time)
        self._last_duration = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0

    def timing(self, first: int = 0, stop: int | None = None) -> Timing:
        """The timing of the frames so far; of those from `first` on and before `stop`, as of a video of their own."""
        times, problem = None, "its container has no timestamps"
        if self.has_stamps:
            times, problem = _usable(self.stamps, self.rate, self.may_restart)
        stop = len(self.stamps) if stop is None else stop
        if times is not None:
            last = float(times[stop] - times[stop - 1]) if stop < len(times) else self._last_duration
            times = times[first:stop] - times[first]
            return Timing(times, self._fps(times, last), "timestamps")
        fps = self.rate or USUAL_FPS
        return Timing(even_times(stop - first, fps), fps, "rate" if self.rate else "assumed", problem)

    def _fps(self, times: np.ndarray, last_duration: float) -> float:
        """The container's rate where the times keep to it, else T over the time until the last frame ends."""
        for rate in self.rates:
            if last_duration > 1.5 / rate:  # a last picture that is held
                continue
            # A container that counts milliseconds rounds the times of both frames; one that counts frames is exact.
            if np.abs(times - even_times(len(times), rate)).max() <= min(1.5 * self.tick, 0.25 / rate):
                return rate
        gaps = np.diff(times)
        last_gap = float(gaps[-1]) if len(gaps) else 0.0
        return len(times) / float(times[-1] + (last_duration or last_gap or 1 / (self.rate or USUAL_FPS)))


def _usable(stamps: Sequence[float | None], rate: float, may_restart: bool) -> tuple[np.ndarray | None, str]:
    """The times by these timestamps, seconds from the first; or None, and why they are implausible."""
    known = [index for index, stamp in enumerate(stamps) if stamp is not None]
    if not known:
        return None, "its frames have no timestamps"
    if known[0] != 0 or known[-1] != len(stamps) - 1:
        without, all_frames = len(stamps) - len(known), plural(len(stamps), "frame")
        return None, f"{without} of its {all_frames} {'has' if without == 1 else 'have'} no timestamp"
    times = np.interp(np.arange(len(stamps)), known, [stamp for stamp in stamps if stamp is not None])
    times -= times[0]
    gaps = np.diff(times)
    restarts = (gaps < -_RESTART_BACK) | (gaps > _RESTART_AHEAD)
    if may_restart and restarts.any():
        gaps = np.where(restarts, 1 / (rate or USUAL_FPS), gaps)  # between the last frame before and the first after
        times = np.concatenate([[0.0], np.cumsum(gaps)])
        gaps = np.diff(times)
    if (gaps < 0).any():
        return None, f"its timestamps go back at frame {int(np.argmax(gaps < 0)) + 1}"
    if len(gaps) and np.count_nonzero(gaps) < len(gaps) / 2:
        return None, "its timestamps stand still"
    if (gaps > _LONGEST_GAP).any():
        return None, f"its timestamps leap over more than 30 hours at frame {int(np.argmax(gaps)) + 1}"
    return times, ""
