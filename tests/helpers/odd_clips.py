"""Odd clips, made here: every container, codec, pixel format, turn, rate and layout of streams that PyAV writes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipelines.video.decoding import ONE_THREAD
from tests.helpers.films import KINDS, OPTIONS, keep_from_real_time, write_film

T, H, W = 8, 96, 128


def pictures(frames: int = T, height: int = H, width: int = W) -> np.ndarray:
    """Smooth colours, each picture brighter than the one before, with a dark corner that tells how it is turned."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    base = np.stack([60 + 90 * x, 70 + 90 * y, 150 - 60 * x], axis=-1)
    base[: (height + 3) // 4, : (width + 3) // 4] -= 40
    return np.stack([np.rint(base + 8 * t) for t in range(frames)]).astype(np.uint8)


def same(picture: np.ndarray) -> np.ndarray:
    return picture


@dataclass(frozen=True)
class Clip:
    """How a clip is made, and what it is to show."""

    file: str
    codec: str
    pixels: str
    forgiven: float = 3.0
    """Grey levels that the mean of a cell may be off from what the clip was made of."""
    shown: Callable[[np.ndarray], np.ndarray] = same
    matrix: tuple[int, ...] | None = None
    size: tuple[int, int] = (H, W)
    frames: int = T
    rate: Fraction = Fraction(25)
    ticks: tuple[int, ...] = ()
    """When each frame is shown, in units of 1 / rate; (): one after the other."""
    options: dict[str, str] = field(default_factory=dict)
    container: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    beside: str = ""
    """What other streams there are: sound, a cover, a still, a still that is the default, another film."""
    sound: float = 0.0

    @property
    def times(self) -> list[float]:
        ticks = self.ticks or range(self.frames)
        return [float((tick - ticks[0]) / self.rate) for tick in ticks]


ONE = 1 << 16
TURNS: dict[str, tuple[tuple[int, ...], Callable[[np.ndarray], np.ndarray]]] = {
    "right": ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), lambda picture: np.rot90(picture, -1)),
    "left": ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), lambda picture: np.rot90(picture)),
    "about": ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), lambda picture: picture[::-1, ::-1]),
    "mirrored": ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), lambda picture: picture[:, ::-1]),
}
CLIPS = {
    **{name: Clip(name, *kind) for name, kind in KINDS.items()},
    "gray": Clip("a.mkv", "ffv1", "gray"),
    "gray of 10 bits": Clip("a.mkv", "ffv1", "gray10le"),
    "gray of 16 bits": Clip("a.mov", "png", "gray16be"),
    "yuv422 of 10 bits": Clip("a.mov", "v210", "yuv422p10le"),
    "yuv444 of 12 bits": Clip("a.mkv", "ffv1", "yuv444p12le"),
    "yuv410": Clip("a.mkv", "ffv1", "yuv410p"),
    "yuv411": Clip("a.mkv", "ffv1", "yuv411p"),
    "yuv440": Clip("a.mkv", "ffv1", "yuv440p"),
    "full range": Clip("a.mp4", "libx264", "yuvj420p"),
    "planar rgb": Clip("a.avi", "utvideo", "gbrp"),
    "rgb of 16 bits": Clip("a.mov", "png", "rgb48be"),
    "alpha": Clip("a.mov", "qtrle", "argb"),
    "alpha in yuv": Clip("a.mkv", "ffv1", "yuva420p"),
    "packed yuv": Clip("a.avi", "rawvideo", "yuyv422"),
    "from below": Clip("a.avi", "rawvideo", "bgr24"),
    "packed rgb of 15 bits": Clip("a.avi", "rawvideo", "rgb555le", forgiven=6),
    "palette": Clip("a.gif", "gif", "rgb8", forgiven=20),
    "hevc of 10 bits": Clip("a.mp4", "libx265", "yuv420p10le"),
    "vp9 of 4:4:4": Clip("a.webm", "libvpx-vp9", "yuv444p"),
    **{f"turned {name}": Clip("a.mp4", "libx264", "yuv420p", shown=s, matrix=m) for name, (m, s) in TURNS.items()},
    "turned in mov": Clip("a.mov", "mpeg4", "yuv420p", shown=TURNS["right"][1], matrix=TURNS["right"][0]),
    "29.97 a second": Clip("a.mp4", "libx264", "yuv420p", rate=Fraction(30000, 1001)),
    "12.5 a second": Clip("a.mkv", "mpeg4", "yuv420p", rate=Fraction(25, 2)),
    "one a second": Clip("a.mp4", "libx264", "yuv420p", rate=Fraction(1)),
    "59.94 a second": Clip("a.ts", "libx264", "yuv420p", rate=Fraction(60000, 1001)),
    "variable rate": Clip("a.mkv", "libx264", "yuv420p", ticks=(0, 1, 5, 6, 50, 51, 52, 90)),
    "variable rate in mp4": Clip("a.mp4", "libx264", "yuv420p", ticks=(0, 1, 5, 6, 50, 51, 52, 90)),
    "late": Clip("a.mkv", "mpeg4", "yuv420p", ticks=tuple(range(75, 75 + T))),
    "odd size": Clip("a.mkv", "ffv1", "yuv444p", size=(47, 63)),
    "odd size, subsampled": Clip("a.mkv", "ffv1", "yuv420p", size=(47, 63)),
    "cropped by the codec": Clip("a.mp4", "libx264", "yuv420p", size=(50, 70)),
    "one pixel": Clip("a.mkv", "ffv1", "bgr0", size=(1, 1)),
    "one frame": Clip("a.mp4", "libx264", "yuv420p", frames=1),
    "pixels not square": Clip("a.mp4", "libx264", "yuv420p", about={"sample_aspect_ratio": Fraction(2, 1)}),
    "interlaced": Clip("a.mpg", "mpeg2video", "yuv420p", options={"flags": "+ildct+ilme"}),
    "interlaced h264": Clip("a.ts", "libx264", "yuv420p", options={"flags": "+ildct+ilme"}),
    "open groups": Clip("a.mkv", "libx264", "yuv420p", options={"x264-params": "open-gop=1:bframes=3:keyint=4"}),
    "many slices": Clip("a.mp4", "libx264", "yuv420p", options={"x264-params": "slices=4:ref=4:weightp=2"}),
    "fragments": Clip("a.mp4", "libx264", "yuv420p", container={"movflags": "frag_keyframe+empty_moov"}),
    "live": Clip("a.mkv", "libx264", "yuv420p", container={"live": "1"}),
    "sound that is longer": Clip("a.mp4", "libx264", "yuv420p", sound=2.0),
    "a cover": Clip("a.mp4", "libx264", "yuv420p", beside="cover"),
    "a still before the film": Clip("a.mov", "libx264", "yuv420p", beside="still"),
    "a film before the default": Clip("a.mkv", "libx264", "yuv420p", beside="film"),
}


def write_clip(path: Path, clip: Clip) -> None:
    films = pictures(clip.frames, *clip.size)
    if clip.sound:
        write_film(path, clip.codec, clip.pixels, films, sound_seconds=clip.sound)
        return
    kind = {".ogv": "ogg", ".m4v": "m4v", ".apng": "apng"}.get(path.suffix)
    with av.open(str(path), "w", format=kind, options=clip.container) as container:
        other = _other_stream(container, clip)
        options = {**OPTIONS.get(clip.codec, {}), **clip.options}
        stream = container.add_stream(clip.codec, rate=clip.rate, options=options)
        stream.height, stream.width, stream.pix_fmt = *clip.size, clip.pixels
        stream.bit_rate = 4_000_000
        for name, value in clip.about.items():
            setattr(stream.codec_context, name, value)
        if clip.matrix is not None:
            stream.set_display_matrix(clip.matrix)
        if clip.beside:
            disposition = av.stream.Disposition
            stream.disposition = disposition(0) if clip.beside == "default still" else disposition.default
        if other is not None:
            for picture in pictures(5 if clip.beside == "film" else 1, 48, 64):
                container.mux(other.encode(av.VideoFrame.from_ndarray(255 - picture, format="rgb24")))
            container.mux(other.encode())
        keep_from_real_time(stream)
        for index, picture in enumerate(films):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=clip.pixels, **ONE_THREAD)
            frame.pts, frame.time_base = clip.ticks[index] if clip.ticks else index, 1 / clip.rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _other_stream(container: Any, clip: Clip) -> Any:
    """The first stream of the file, which is not to be shown: its pictures are negatives of another size."""
    if not clip.beside:
        return None
    codec, pixels = ("mjpeg", "yuvj420p") if clip.beside != "film" else ("mpeg4", "yuv420p")
    stream = container.add_stream(codec, rate=25, width=64, height=48, pix_fmt=pixels)
    kinds = {"cover": av.stream.Disposition.attached_pic, "film": av.stream.Disposition(0)}
    stream.disposition = kinds.get(clip.beside, av.stream.Disposition.default)
    return stream


def made(name: str, folder: Path) -> Path:
    clip = CLIPS[name]
    path = folder / Path(name if name in KINDS else clip.file).name
    write_clip(path, clip)
    return path
