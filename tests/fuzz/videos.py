"""Small videos of many containers, codecs and pixel formats to damage, and headers that lie."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np

FRAMES, HEIGHT, WIDTH = 10, 32, 48
_KINDS = """
avi: mpeg4 yuv420p, mjpeg yuvj420p, png rgb24, msmpeg4 yuv420p, rawvideo gray, cinepak rgb24, huffyuv yuv422p,
     utvideo gbrp
mp4: libx264 yuv420p, libx265 yuv420p, mpeg4 yuv420p
mov: prores_ks yuv422p10le, qtrle argb, qtrle gray, png gray16be, png rgb48be, v210 yuv422p10le, libx264 yuv444p10le
mkv: ffv1 gray16le, ffv1 yuva420p, libx264 yuv420p
webm: libvpx yuv420p, libvpx-vp9 yuva420p, libsvtav1 yuv420p
mpg: mpeg2video yuv420p
ts: libx264 yuv420p, mpeg2video yuv422p
flv: flv yuv420p
wmv: wmv2 yuv420p
3gp: h263 yuv420p
"""
_SIZES = {"h263": (96, 128), "libsvtav1": (64, 64), "libx265": (96, 128)}  # what these encoders can do


def write_bases(folder: Path) -> dict[str, bytes]:
    """Every kind that this build of FFmpeg encodes, and special ones: sound alone, one pixel, one frame, a variable
    frame rate, a rotation."""
    folder.mkdir(parents=True, exist_ok=True)
    bases = {}
    for suffix, codec, pixels in _kinds():
        name = f"{codec}-{pixels}.{suffix}"
        height, width = _SIZES.get(codec, (HEIGHT, WIDTH))
        write(folder / name, codec, pixels, height, width)
        bases[name] = (folder / name).read_bytes()
    for name, settings in {
        "pixel.avi": {"codec": "png", "pixels": "rgb24", "height": 1, "width": 1},
        "frame.mp4": {"codec": "mpeg4", "pixels": "yuv420p", "frames": 1},
        "variable.mkv": {"codec": "libx264", "pixels": "yuv420p", "times": [0, 1, 5, 6, 90, 91, 92, 400, 401, 9000]},
        "turned.mp4": {"codec": "libx264", "pixels": "yuv420p", "rotation": 90},
        "interlaced.mp4": {"codec": "libx264", "pixels": "yuv420p", "options": {"flags": "+ildct+ilme"}},
    }.items():
        write(folder / name, **settings)
        bases[name] = (folder / name).read_bytes()
    _write_sound(folder / "sound.mkv")
    bases["sound.mkv"] = (folder / "sound.mkv").read_bytes()
    return bases


def _kinds() -> Iterator[tuple[str, str, str]]:
    """Container's suffix, codec, pixel format."""
    for line in _KINDS.replace("\n  ", "").strip().splitlines():
        suffix, kinds = line.split(":")
        for kind in kinds.split(","):
            codec, pixels = kind.split()
            yield suffix, codec, pixels


def write(
    path: Path,
    codec: str,
    pixels: str,
    height: int = HEIGHT,
    width: int = WIDTH,
    *,
    frames: int = FRAMES,
    times: list[int] | None = None,
    rotation: float | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """A moving texture; `times` in 1/25 s."""
    texture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if codec == "libx265":
        options = {"x265-params": "log-level=none"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(texture, index, axis=1), format="rgb24").reformat(format=pixels)
            frame.pts = times[index] if times else index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


# ------------------------------------------------------------------ headers that lie


def lying_headers(bases: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of files whose headers claim what is not so."""
    for what, change in _LIES.items():
        for name, content in bases.items():
            changed = change(content)
            if changed != content:
                yield f"{what}-{name}", changed


def _patched(at: Callable[[bytes], int], layout: str, *values: int) -> Callable[[bytes], bytes]:
    """Writes `values` where `at` finds a place (-1: nowhere)."""

    def change(content: bytes) -> bytes:
        place, data = at(content), bytearray(content)
        if place >= 0:
            struct.pack_into(layout, data, place, *values)
        return bytes(data)

    return change


def _after(tag: bytes, offset: int) -> Callable[[bytes], int]:
    def find(content: bytes) -> int:
        at = content.find(tag)
        return -1 if at < 0 or at + offset + 40 > len(content) else at + offset

    return find


_LIES = {
    # AVI: total frames of `avih`, length of `strh`; MP4: sample count of `stsz`.
    "avi-1e9-frames": _patched(_after(b"avih", 24), "<I", 10**9),
    "avi-1e9-length": _patched(_after(b"strh", 40), "<I", 10**9),
    "mp4-1e9-samples": _patched(_after(b"stsz", 12), ">I", 10**9),
    "mp4-1e9-of-a-time": _patched(_after(b"stts", 12), ">I", 10**9),
    # Width and height of AVI's `strf`, of MP4's sample entry and track, of IVF-like headers in matroska.
    "avi-100000x100000": _patched(_after(b"strf", 12), "<ii", 100_000, 100_000),
    "avi-0x0": _patched(_after(b"strf", 12), "<ii", 0, 0),
    "avi-negative": _patched(_after(b"strf", 12), "<ii", -48, -(2**31)),
    "mp4-65535x65535": _patched(_after(b"avc1", 28), ">HH", 65535, 65535),
    "mp4-65535x65535-mpeg4": _patched(_after(b"mp4v", 28), ">HH", 65535, 65535),
    "mov-65535x65535-png": _patched(_after(b"png ", 28), ">HH", 65535, 65535),
    "png-100000x100000": _patched(_after(b"IHDR", 4), ">II", 100_000, 100_000),
    "tkhd-65535x65535": _patched(_after(b"tkhd", 80), ">II", 65535 << 16, 65535 << 16),
    # Durations and rates of nothing.
    "mp4-no-duration": _patched(_after(b"mdhd", 20), ">I", 0),
    "mp4-no-timescale": _patched(_after(b"mdhd", 16), ">I", 0),
    "avi-no-rate": _patched(_after(b"strh", 28), "<II", 0, 0),
    "avi-rate-1e9": _patched(_after(b"strh", 28), "<II", 1, 10**9),
    # Turned by 45 degrees, mirrored, and to nothing.
    "mp4-turned-45": _patched(_after(b"tkhd", 44), ">5i", 46341, 46341, 0, -46341, 46341),
    "mp4-mirrored": _patched(_after(b"tkhd", 44), ">5i", -65536, 0, 0, 0, 65536),
    "mp4-to-nothing": _patched(_after(b"tkhd", 44), ">5i", 0, 0, 0, 0, 0),
}
