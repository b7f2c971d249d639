"""Small films of every kind that PyAV writes here: a drifting texture, with or without sound, whole, cut or damaged."""

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipelines.errors import VideoError
from pipelines.video.decoding import ONE_THREAD, VideoReader

FRAMES, HEIGHT, WIDTH = 30, 96, 128  # h263 knows few sizes
KINDS = {
    "h264.mkv": ("libx264", "yuv420p"),
    "h264.mp4": ("libx264", "yuv420p"),
    "h264.mov": ("libx264", "yuv420p"),
    "h264.ts": ("libx264", "yuv420p"),
    "h264.flv": ("libx264", "yuv420p"),
    "hevc.mkv": ("libx265", "yuv420p"),
    "hevc.ts": ("libx265", "yuv420p"),
    "vp8.webm": ("libvpx", "yuv420p"),
    "vp9.webm": ("libvpx-vp9", "yuv420p"),
    "av1.mkv": ("libsvtav1", "yuv420p"),
    "mpeg4.avi": ("mpeg4", "yuv420p"),
    "mpeg4.m4v": ("mpeg4", "yuv420p"),
    "mjpeg.avi": ("mjpeg", "yuvj420p"),
    "msmpeg4.avi": ("msmpeg4", "yuv420p"),
    "huffyuv.avi": ("huffyuv", "yuv422p"),
    "mpeg2.mpg": ("mpeg2video", "yuv420p"),
    "mpeg1.mpg": ("mpeg1video", "yuv420p"),
    "mpeg2.ts": ("mpeg2video", "yuv420p"),
    "wmv2.wmv": ("wmv2", "yuv420p"),
    "flv1.flv": ("flv", "yuv420p"),
    "h263.3gp": ("h263", "yuv420p"),
    "vp8.ogv": ("libvpx", "yuv420p"),
    "ffv1.mkv": ("ffv1", "yuv420p"),
    "png.mov": ("png", "rgb24"),
    "prores.mov": ("prores_ks", "yuv422p10le"),
    "gif.gif": ("gif", "rgb8"),
    "apng.apng": ("apng", "rgb24"),
}
OPTIONS = {
    "libx264": {"crf": "20", "g": "10"},
    "libx265": {"x265-params": "log-level=none:keyint=10"},
    "libvpx": {"deadline": "realtime"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "svtav1-params": "log-level=0"},
}
_SOUND = {".webm": "libopus", ".wmv": "wmav2", ".mpg": "mp2", ".ogv": "libopus"}  # others: aac
_FORMATS = {".ogv": "ogg", ".m4v": "m4v", ".apng": "apng"}


def texture(frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Blobs that drift: uint8 [T, H, W, 3]."""
    noise = np.random.default_rng(5).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    picture = noise.repeat(4, 0).repeat(4, 1)
    return np.stack([np.roll(picture, (t, 2 * t), (0, 1)) for t in range(frames)])


def keep_from_real_time(stream: Any) -> None:
    """Opens SVT-AV1 as a user who is not root; other encoders are left to open by themselves.

    As root it puts its threads, and the one that opens it, into the highest real-time class. The opening thread stays
    in it: a busy pytest process then stops everything else on its core, once for all of a CI run's 90 minutes.
    """
    if stream.codec_context.name != "libsvtav1" or os.geteuid() != 0:
        return
    try:
        os.seteuid(65534)
    except OSError:  # a container in which there is no other user; root is nobody special there either
        return
    try:
        stream.codec_context.open()
    finally:
        os.seteuid(0)


def write_film(
    path: Path,
    codec: str,
    pixels: str,
    frames: Sequence[np.ndarray] | np.ndarray,
    *,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    sound_seconds: float = 0.0,
) -> None:
    """The frames at 25 a second, with so much of a tone."""
    about: dict[str, Any] = {"format": _FORMATS.get(path.suffix)}
    with av.open(str(path), "w", options=container_options or {}, **about) as container:
        stream = container.add_stream(codec, rate=25, options={**OPTIONS.get(codec, {}), **(options or {})})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        if codec in ("mpeg4", "mpeg2video", "mpeg1video", "wmv2", "flv", "h263", "msmpeg4"):
            stream.bit_rate, stream.gop_size = 1_000_000, 10
        keep_from_real_time(stream)
        tone = container.add_stream(_SOUND.get(path.suffix, "aac"), rate=48000) if sound_seconds else None
        if tone is not None:
            tone.bit_rate = 64_000
            for packet in _sound(tone, sound_seconds):
                container.mux(packet)
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels, **ONE_THREAD)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _sound(stream: Any, seconds: float) -> Iterator[Any]:
    """Packets of a tone, of which all but a few come before the pictures; the container interleaves them."""
    resampler = None
    for start in range(0, round(48000 * seconds), 960):
        wave = np.sin(np.arange(start, start + 960) * 440 * 2 * np.pi / 48000)
        frame = av.AudioFrame.from_ndarray((wave * 8000).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, start
        resampler = resampler or av.AudioResampler(stream.format, "mono", 48000)
        for part in resampler.resample(frame):
            yield from stream.encode(part)
    yield from stream.encode()


def flipped(content: bytes, seed: int) -> bytes:
    """With one to sixteen bits of its middle flipped."""
    rng, data = random.Random(seed), bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 16))):
        data[rng.randrange(len(data) // 10, len(data) * 19 // 20)] ^= 1 << rng.randrange(8)
    return bytes(data)


def verdict(path: Path, **allowed: bool) -> str:
    """Why a video fails; where it does not, the number of its frames."""
    try:
        with VideoReader(path, **allowed) as reader:
            return str(sum(1 for _ in reader.pick(lambda index: False)) + reader.decoded)
    except VideoError as error:
        return str(error)
