"""The video once more, with the classes of each moment written below its frames.

Letters: H W pixels.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.drawing.text import draw_text, shortened
from pipelines.errors import UsageError
from pipelines.interface.wording import percent
from pipelines.prediction.attention import Attention, draw_attention, strongest
from pipelines.prediction.predictor import OnFrames, Predictor, Reader
from pipelines.prediction.timeline import Timeline
from pipelines.prediction.timeline_picture import clock
from pipelines.video.encoding import encode
from pipelines.video.resize import resize

BEST = 3
_SIDE = 480  # the longer side of the picture at least, so that there is room for letters
_MOST = 1280
_SURFACE, _TEXT, _MUTED, _TRACK, _BAR = (20, 24, 29), (240, 243, 246), (154, 164, 175), (48, 54, 61), (88, 176, 238)
_REPORTED = 32


def write_overlay(place: Path, timeline: Timeline, video: Path, predictor: Predictor, on_frames: OnFrames) -> Path:
    """Decodes `video` again and writes it with a panel below: time, and the `BEST` classes with their probabilities.

    Returns:
        Its path, which is `place` with .mp4 added.

    Raises:
        VideoError: The video cannot be decoded.
        StorageError: The overlay cannot be written.
        UsageError: The overlay would replace the video itself.
    """
    path = place.with_name(f"{place.name}.mp4")
    if path.exists() and path.samefile(video):
        raise UsageError(f"--output {place.parent} holds {video}, which its overlay would replace: name another folder")
    with predictor.open_video(video, keep_size=True, allow_truncated=predictor.allow_truncated) as reader:
        encode(path, _pictures(reader, timeline, on_frames), timeline.timing)
    return path


def _pictures(reader: Reader, timeline: Timeline, on_frames: OnFrames) -> Iterator[np.ndarray]:
    seen = [window.attention for window in timeline.windows if window.attention is not None]
    scales = strongest(seen) if seen else {}  # of each stream, beside one another
    width, height = shown_size(reader.width * max(1, len(scales)), reader.height)
    edges = np.array(timeline.edges())
    drawn, below = (-1, -1), np.empty(0)
    for index, frame in enumerate(reader):
        time = timeline.time(index)
        place = int(np.searchsorted(edges[1:-1], time, side="right"))
        if (place, int(time)) != drawn:  # letters take longer than all the rest of a frame
            drawn = place, int(time)
            below = panel(timeline, place, drawn[1], width)
        shown = (
            resize(frame, width, height)
            if not seen
            else _with_attention(frame, index, seen[place], scales, width, height)
        )
        yield np.concatenate([shown, below])
        if index % _REPORTED == 0:
            on_frames(index, timeline.frames)


def _with_attention(
    frame: np.ndarray, index: int, attention: Attention, scales: dict[str, float], width: int, height: int
) -> np.ndarray:
    """The frame once for each stream, beside one another: RGB uint8 [height, width, 3]."""
    picture = resize(frame, width // len(scales), height)
    parts = []
    for stream, scale in scales.items():
        part = draw_attention(picture, attention, stream, index, scale)
        draw_text(part, 8, 20, stream, 14, _TEXT, bold=True)
        parts.append(part)
    return np.concatenate(parts, axis=1)


def shown_size(width: int, height: int) -> tuple[int, int]:
    """The (width, height) of the frames in the overlay: even, large enough for letters, and no larger than 1280."""
    longest = max(width, height)
    scale = max(_SIDE / longest, 1.0) if longest < _SIDE else min(_MOST / longest, 1.0)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def panel(timeline: Timeline, place: int, second: int, width: int) -> np.ndarray:
    """The panel below the frames of a second while window `place` is the nearest: RGB uint8 [H, width, 3]."""
    unit = max(0.8, width / 560)  # how much larger letters and gaps are than usual
    canvas = np.empty((round((30 + 24 * BEST) * unit / 2) * 2, width, 3), np.uint8)
    canvas[:] = _SURFACE
    window = timeline.windows[place]
    span = f"window {moment(window.start, timeline)} - {moment(window.end, timeline)}"
    draw_text(canvas, 12 * unit, 20 * unit, span, 11 * unit, _MUTED)
    now = clock(second, timeline.duration) + (" s" if timeline.duration < 60 else "")
    draw_text(canvas, width - 12 * unit, 20 * unit, now, 13 * unit, _MUTED, "right")
    best = np.argsort(-np.array(window.headline), kind="stable")[:BEST]
    left, right = round(0.42 * width), round(width - 70 * unit)
    for row, index in enumerate(best):
        baseline = (44 + 24 * row) * unit
        name = shortened(timeline.classes[index], left - 24 * unit, 14 * unit, bold=row == 0)
        draw_text(canvas, 12 * unit, baseline, name, 14 * unit, _TEXT if row == 0 else _MUTED, bold=row == 0)
        rows = slice(round(baseline - 10 * unit), round(baseline + 1 * unit))
        canvas[rows, left:right] = _TRACK
        canvas[rows, left : left + round((right - left) * window.headline[index])] = _BAR
        text = f"{percent(window.headline[index])} %"
        draw_text(canvas, width - 12 * unit, baseline, text, 13 * unit, _TEXT if row == 0 else _MUTED, "right")
    return canvas


def moment(frame: int, timeline: Timeline) -> str:
    """When a frame is shown: in tenths of seconds in a video of less than a minute, otherwise as a clock."""
    time, total = timeline.time(frame), timeline.duration
    return f"{time:.1f} s" if total < 60 else clock(time, total)
