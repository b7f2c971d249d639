"""Decoders: clips of several codecs, made here and decoded as the stages do."""

import tempfile
from pathlib import Path

from pipelines.diagnosis.check import Check, Place, can_import, failure, in_words, pip_install, warning

# What data sets hold: name, encoder, container, pixels. UCF101 and HMDB51 are MPEG-4, Kinetics is H.264.
_CODECS = (
    ("MPEG-4", "mpeg4", ".avi", "yuv420p"),
    ("H.264", "libx264", ".mp4", "yuv420p"),
    ("HEVC", "libx265", ".mkv", "yuv420p"),
    ("VP9", "libvpx-vp9", ".mkv", "yuv420p"),
    ("MPEG-2", "mpeg2video", ".mkv", "yuv420p"),
    ("Motion JPEG", "mjpeg", ".avi", "yuvj420p"),
    ("FFV1", "ffv1", ".mkv", "bgr0"),
)
_FRAMES, _SIDE = 8, 64
_ERROR = 20.0  # grey levels on average: lossy codecs of a smooth picture are within 10


def check(place: Place) -> list[Check]:
    if not can_import("av", "numpy", "torch"):
        return []
    import av

    av.logging.set_level(None)
    encoders = [codec for codec in _CODECS if codec[1] in av.codecs_available]
    good, bad = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, encoder, suffix, pixels in encoders:
            try:
                _round_trip(Path(folder) / f"{encoder}{suffix}", encoder, pixels)
                good.append(name)
            except Exception as error:
                bad.append(failure(f"decoder {name}", in_words(error), pip_install("--force-reinstall", "av")))
    if len(good) + len(bad) == 0:
        fix = pip_install("--force-reinstall", "--only-binary", ":all:", "av")
        return [warning("decoders", "this FFmpeg has no encoder to make clips with: nothing was tested", fix)]
    untested = [name for name, *_ in _CODECS if name not in good and f"decoder {name}" not in {b.subject for b in bad}]
    found = f"{', '.join(good)}: clips made here decode" if good else "none of the clips made here decodes"
    if untested:
        found += f"; not tested for lack of an encoder: {', '.join(untested)}"
    versions = ".".join(map(str, av.library_versions["libavcodec"]))
    return [
        *bad,
        Check("decoders", "ok" if good else "failure", f"{found} (libavcodec {versions})", values={"decoded": good}),
    ]


def _round_trip(path: Path, encoder: str, pixels: str) -> None:
    """Encodes and decodes a clip; raises whatever goes wrong."""
    import numpy as np

    from pipelines.video.decoding import VideoReader
    from pipelines.video.synthetic import write_video

    ramp = np.linspace(40, 210, _SIDE)
    picture = np.stack(
        [np.tile(ramp, (_SIDE, 1)), np.tile(ramp[:, None], (1, _SIDE)), np.full((_SIDE, _SIDE), 120.0)], -1
    )
    clip = np.repeat(picture.astype(np.uint8)[None], _FRAMES, axis=0)
    write_video(path, clip, codec=encoder, pixels=pixels)
    with VideoReader(path, keep_size=True) as reader:
        frames = np.stack(list(reader))
    if len(frames) != _FRAMES:
        raise ValueError(f"{len(frames)} of {_FRAMES} frames decode")
    error = float(np.abs(frames.astype(int) - clip).mean())
    if error > _ERROR:
        raise ValueError(f"decoded frames are off by {error:.0f} grey levels on average")
