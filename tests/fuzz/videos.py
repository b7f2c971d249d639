"""Small videos of many containers, codecs and pixel formats to damage, and headers that lie."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from pipelines.video.decoding import ONE_THREAD
from tests.fuzz import checks
from tests.helpers.films import keep_from_real_time, texture
from tests.helpers.odd_clips import CLIPS, write_clip

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
_LATE = [75, 76, 80, 81, 150, 151, 152, 200, 201, 300]
_WITHOUT_CHECKSUMS = {"write_crc32": "0"}
_HDR = {"color_trc": 16, "colorspace": 9, "color_primaries": 9, "color_range": 1}  # PQ and BT.2020
_SPECIAL: dict[str, dict[str, Any]] = {
    "pixel.avi": {"codec": "png", "pixels": "rgb24", "height": 1, "width": 1},
    "frame.mp4": {"codec": "mpeg4", "pixels": "yuv420p", "frames": 1},
    "variable.mkv": {"codec": "libx264", "pixels": "yuv420p", "times": [0, 1, 5, 6, 90, 91, 92, 400, 401, 9000]},
    "late.mp4": {"codec": "libx264", "pixels": "yuv420p", "times": _LATE},  # said by an edit list
    "late-without-checksums.mkv": {
        "codec": "mpeg4",
        "pixels": "yuv420p",
        "times": _LATE,
        "container": _WITHOUT_CHECKSUMS,
    },
    "h264-without-checksums.mkv": {"codec": "libx264", "pixels": "yuv420p", "container": _WITHOUT_CHECKSUMS},
    "ffv1-without-checksums.mkv": {"codec": "ffv1", "pixels": "yuv420p", "container": _WITHOUT_CHECKSUMS},
    "turned.mp4": {"codec": "libx264", "pixels": "yuv420p", "rotation": 90},
    "interlaced.mp4": {"codec": "libx264", "pixels": "yuv420p", "options": {"flags": "+ildct+ilme"}},
    "hdr.mp4": {"codec": "libx264", "pixels": "yuv420p10le", "about": _HDR},
}
WIDTHS = (160, 240, 400)
_OF_EACH_WIDTH = (("avi", "mpeg4", "yuv420p"), ("mp4", "libx264", "yuv420p"), ("mkv", "ffv1", "yuv420p"))
_SIZES = {"h263": (96, 128), "libsvtav1": (64, 64), "libx265": (96, 128)}  # what these encoders can do


@dataclass(frozen=True)
class Base:
    """A whole file to damage: its content, the codec and container of its pictures, where they lie in it coded, as
    (place, bytes), and the digest of what it shows, "" for nothing."""

    content: bytes
    codec: str
    pictures: list[tuple[int, int]]
    shown: str


def write_bases(folder: Path) -> dict[str, Base]:
    """Every kind that this build of FFmpeg encodes, the odd clips, and special ones: sound alone, one
    pixel, one frame, a high dynamic range, an animation, Matroska without checksums, timestamps that go back."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, codec, pixels in _kinds():
        height, width = _SIZES.get(codec, (HEIGHT, WIDTH))
        write(folder / f"{codec}-{pixels}.{suffix}", codec, pixels, height, width)
    for name, settings in _SPECIAL.items():
        write(folder / name, **settings)
    for name, clip in CLIPS.items():
        if clip.codec in av.codecs_available:
            write_clip(folder / f"odd-{name.replace(' ', '-').partition('.')[0]}{Path(clip.file).suffix}", clip)
    for suffix in ("mkv", "mp4", "ts"):
        _write_wild_times(folder / f"back-and-forth-without-checksums.{suffix}")
    pictures = (Image.fromarray(picture) for picture in texture(6, 48, 64))
    next(pictures).save(
        folder / "animation.webp", save_all=True, append_images=list(pictures), duration=[40, 500, *[40] * 4]
    )
    _write_sound(folder / "sound.mkv")
    return _read(folder)


def write_wide_bases(folder: Path) -> dict[str, Base]:
    """Of widths that TV-L1's kernels each lay out otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        for suffix, codec, pixels in _OF_EACH_WIDTH:
            path = folder / f"{width}-{codec}.{suffix}"
            write(path, codec, pixels, width * 3 // 5, width, frames=4)
    return _read(folder)


def _read(folder: Path) -> dict[str, Base]:
    return {path.name: _base(path) for path in sorted(folder.iterdir())}


def _base(path: Path) -> Base:
    size, codec, pictures, shown = path.stat().st_size, "webp", [], ""
    if path.suffix != ".webp":  # which FFmpeg does not read
        with av.open(str(path)) as container:
            codec = ", ".join(stream.codec.name for stream in container.streams.video) or "sound"
            packets = container.demux(*container.streams.video) if container.streams.video else ()
            places = [(packet.pos, packet.size) for packet in packets if packet.pos is not None and packet.size > 1]
            pictures = [place for place in places if 0 <= place[0] < size]
    if codec != "sound":
        shown = checks.shown(path)
    return Base(path.read_bytes(), f"{codec} in {path.suffix[1:]}", pictures or [(size // 10, size * 17 // 20)], shown)


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
    container: dict[str, str] | None = None,
    about: dict[str, Any] | None = None,
) -> None:
    """A moving texture; `times` in 1/25 s; `container`: options of it; `about`: what the stream says of itself."""
    texture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if codec == "libx265":
        options = {"x265-params": "log-level=none"}
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for name, value in (about or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        keep_from_real_time(stream)
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(np.roll(texture, index, axis=1), format="rgb24")
            frame = picture.reformat(format=pixels, **ONE_THREAD)
            frame.pts = times[index] if times else index
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def _write_wild_times(path: Path) -> None:
    """Pictures that are shown before those that stand before them, or at once with them."""
    with av.open(str(path), "w", options=_WITHOUT_CHECKSUMS if path.suffix == ".mkv" else {}) as container:
        stream = container.add_stream("mpeg4", rate=25, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p")
        for number, picture in enumerate(texture(12, HEIGHT, WIDTH)):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                packet.pts, packet.dts = packet.dts + (0, 40, 3, 39, 0, 20)[number % 6], packet.dts
                container.mux(packet)
        container.mux(stream.encode())


def _write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


# ------------------------------------------------------------------ headers that lie


def lying_headers(bases: dict[str, Base]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of files whose headers claim what is not so."""
    for what, change in _LIES.items():
        for name, base in bases.items():
            changed = change(base.content)
            if changed != base.content:
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
