"""Encoding: pictures made one at a time to a video that players open.

Letters: H W pixels.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.workspace import atomic_file, storage_errors

if TYPE_CHECKING:
    import numpy as np

# By suffix: FFmpeg's name of the container and the codecs to choose from, best first.
_FORMATS = {
    ".mp4": ("mp4", ("libx264", "mpeg4")),
    ".mkv": ("matroska", ("libx264", "mpeg4")),
    ".avi": ("avi", ("mpeg4",)),
}
SUFFIXES = tuple(_FORMATS)
# Near what the eye can tell from the original; the letters in the pictures stay sharp.
_QUALITY = {
    "libx264": {"crf": "16", "preset": "veryfast"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(2 * 118)},  # quantiser 2, in FFmpeg's 118 steps each
}
_USUAL_FPS = 25


def encode(path: Path, pictures: Iterable["np.ndarray"], fps: float) -> int:
    """Writes RGB uint8 pictures of one size, [H, W, 3] with H and W even, as they come; returns how many.

    The suffix of `path` (one of `SUFFIXES`) names the container; `fps` of 0, unknown, counts as 25. The file has its
    name only once it is whole. Raises `StorageError`.
    """
    import av

    kind, codecs = _FORMATS[path.suffix.lower()]
    codec = next(name for name in codecs if name in av.codecs_available)
    written = 0
    with (
        atomic_file(path) as temporary,
        storage_errors(path),
        av.open(str(temporary), "w", format=kind) as container,
    ):
        stream = container.add_stream(codec, rate=_rate(fps), options=dict(_QUALITY[codec]))
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuv420p"  # what every player shows
        for picture in pictures:
            if not written:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            written += 1
        container.mux(stream.encode())
    return written


def _rate(fps: float) -> Fraction:
    return Fraction(fps if 0 < fps <= 1000 else _USUAL_FPS).limit_denominator(1001)  # 29.97 is 30000/1001
