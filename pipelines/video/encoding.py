"""Encodes pictures, made one at a time, to a video that players open.

Letters: T pictures, H W pixels.
"""

from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.storage.atomic import atomic_file, storage_errors

if TYPE_CHECKING:
    import av
    import numpy as np

    from pipelines.video.timing import Timing

# By suffix: FFmpeg's name of the container and the codecs to choose from, best first.
_FORMATS = {
    ".mp4": ("mp4", ("libx264", "mpeg4")),
    ".mkv": ("matroska", ("libx264", "mpeg4")),
    ".avi": ("avi", ("mpeg4",)),
}
SUFFIXES = tuple(_FORMATS)
# Hardly distinguishable from the original; the letters in the pictures stay sharp.
_QUALITY = {
    "libx264": {"crf": "16", "preset": "veryfast"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(2 * 118)},  # quantiser 2, in FFmpeg's 118 steps each
}
_TICK = Fraction(1, 60000)  # of the clock for an uneven rate: near the finest that MPEG-4 allows
_EVEN = 0.0015  # seconds by which a container that counts milliseconds may be off
_FASTEST_GRID, _MOST_REPEATED = 240, 100  # of an AVI: frames a second, and frames for a picture in the mean


def encode(path: Path, pictures: Iterable["np.ndarray"], timing: "Timing", comment: str = "") -> int:
    """Writes a video. AVI has no timestamps: there pictures are repeated until the next is due.

    Args:
        path: The file, whose suffix (one of `SUFFIXES`) selects the container. It is written atomically.
        pictures: RGB uint8 [H, W, 3] of one size, H and W even.
        timing: When each is shown; of at least T frames.
        comment: Text to keep in the file (`comment_of`).

    Returns:
        T, the number of pictures.

    Raises:
        StorageError: Writing fails.
    """
    import av

    kind, codecs = _FORMATS[path.suffix.lower()]
    codec = next(name for name in codecs if name in av.codecs_available)
    is_even = kind == "avi"
    tick, stamps = _clock(timing, is_even)
    written = 0

    durations: dict[int | None, int] = {start: end - start for start, end in pairwise(stamps)}

    def mux(packets: "list[av.Packet]") -> None:
        for packet in packets:
            packet.duration = durations.get(packet.pts, 1)
            container.mux(packet)

    with (
        atomic_file(path) as temporary,
        storage_errors(path),
        av.open(str(temporary), "w", format=kind) as container,
    ):
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream(codec, rate=_rate(timing.fps), options=dict(_QUALITY[codec]))
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"  # what every player shows
        stream.codec_context.time_base = tick
        if tick == _TICK:
            stream.codec_context.max_b_frames = 0  # the picture shown last is written last, and MP4 ends with its end
        for picture, stamp in zip(pictures, stamps, strict=False):
            if not written:
                stream.height, stream.width = picture.shape[:2]
            for shown in range(stamp, stamps[written + 1] if is_even else stamp + 1):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = shown, tick
                mux(stream.encode(frame))
            written += 1
        mux(stream.encode())
    return written


def comment_of(path: Path) -> str:
    """The comment in a video that `encode` wrote; "" where there is none, or the file is not a video."""
    import av

    try:
        with av.open(str(path), metadata_errors="replace") as container:
            return next((text for name, text in container.metadata.items() if name.lower() == "comment"), "")
    except (av.FFmpegError, OSError):
        return ""


def _clock(timing: "Timing", is_even: bool) -> tuple[Fraction, list[int]]:
    """The length of a tick, and the T + 1 times in ticks, increasing, at which pictures start and the last one ends."""
    import numpy as np

    from pipelines.storage.hdf5 import even_times

    count = len(timing.times)
    if count == 0 or np.abs(timing.times - even_times(count, timing.fps)).max() <= _EVEN:
        return 1 / _rate(timing.fps), list(range(count + 1))
    ends = np.append(timing.times, timing.duration)
    tick = _TICK
    if is_even:
        gaps = np.diff(ends)
        tick = 1 / _rate(min(1 / gaps[gaps > 0].min(), _FASTEST_GRID, _MOST_REPEATED * timing.fps))
    stamps = np.rint(ends / float(tick)).astype(np.int64)
    # Pictures shown at one time, or in one tick of an AVI, follow one another.
    return tick, (np.maximum.accumulate(stamps - np.arange(count + 1)) + np.arange(count + 1)).tolist()


def _rate(fps: float) -> Fraction:
    return Fraction(min(fps, 1000)).limit_denominator(1001)  # 29.97 is 30000/1001
