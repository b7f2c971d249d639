"""A small synthetic data set: textured balls of three colours that rise, fall or cross.

Colour and motion are independent, and each is invisible to one of the streams: the colours have the same brightness, so
grey-level flow cannot distinguish them, and a ball may be anywhere at any time, so a single picture does not show its
motion. Every motion is its own mirror image (crossing goes either way), so mirroring keeps the class.

Letters: T frames, H W pixels.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.storage.atomic import atomic_file, storage_errors

if TYPE_CHECKING:
    import numpy as np

MOTIONS = ("rising", "falling", "crossing")
# Offsets to R, G, B that leave the BT.601 brightness .299 R + .587 G + .114 B as it is.
COLOURS = {"red": (80.0, -40.75, 0.0), "green": (-60.0, 30.56, 0.0), "blue": (0.0, -21.36, 110.0)}
CLASSES = tuple(f"{colour}_{motion}" for colour in COLOURS for motion in MOTIONS)
SIDE = 64  # pixels, height and width
FRAMES = 24
FPS = 25


def write_clips(folder: Path, clips_a_class: int, seed: int) -> list[Path]:
    """Writes `<folder>/<class>/<class>_<number>.avi` (MPEG-4) for every class; returns the paths.

    A clip depends only on (seed, class, number); one that exists is kept. Raises `StorageError`.
    """
    import numpy as np

    paths = []
    for label, name in enumerate(CLASSES):
        for number in range(clips_a_class):
            path = folder / name / f"{name}_{number:03d}.avi"
            if not path.exists():
                write_video(path, moving_ball(name, np.random.default_rng((seed, label, number))))
            paths.append(path)
    return paths


def moving_ball(class_name: str, rng: "np.random.Generator") -> "np.ndarray":
    """One clip of that class: RGB uint8 [T, H, W, 3]."""
    import numpy as np

    colour, motion = class_name.split("_")
    radius, speed = rng.uniform(12, 15), rng.uniform(0.8, 1.2)  # pixels; pixels a frame
    direction = {"rising": (-1, 0), "falling": (1, 0), "crossing": (0, rng.choice((-1, 1)))}[motion]
    velocity = speed * np.array(direction)
    # The middle of the path is anywhere such that the ball stays inside.
    room = SIDE / 2 - radius - np.abs(velocity) * (FRAMES - 1) / 2
    middle = SIDE / 2 - 0.5 + rng.uniform(-room, room)
    background = _texture(rng, SIDE, contrast=25)[..., None] + rng.uniform(-5, 5, 3)
    ball = _texture(rng, 2 * SIDE, contrast=40)[..., None] + np.array(COLOURS[colour])
    y, x = np.mgrid[:SIDE, :SIDE]
    frames = []
    for t in range(FRAMES):
        center = middle + velocity * (t - (FRAMES - 1) / 2)
        inside = np.clip(radius + 0.5 - np.hypot(y - center[0], x - center[1]), 0, 1)[..., None]
        frames.append(inside * _shifted(ball, SIDE / 2 - center) + (1 - inside) * background)
    noisy = np.stack(frames) + rng.normal(0, 2, (FRAMES, SIDE, SIDE, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def write_video(
    path: Path,
    frames: "np.ndarray",
    *,
    codec: str = "mpeg4",
    pixels: str = "yuv420p",
    times: Sequence[float] | None = None,
) -> None:
    """Encodes a video into the container that the suffix of `path` names.

    Args:
        frames: RGB uint8 [T, H, W, 3].
        codec: FFmpeg's name of the codec.
        pixels: FFmpeg's name of the pixel format.
        times: When each frame is shown, seconds; None: 25 frames a second.

    Raises:
        StorageError: Writing fails.
    """
    import av

    with (
        atomic_file(path) as temporary,
        storage_errors(path),
        av.open(str(temporary), "w", format=_CONTAINERS[path.suffix]) as container,
    ):
        stream = container.add_stream(codec, rate=FPS)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.bit_rate = 4_000_000  # generous: MPEG-4's artefacts should not be what is learnt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = round(1000 * times[index]), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


_CONTAINERS = {".avi": "avi", ".mp4": "mp4", ".mkv": "matroska"}


def _texture(rng: "np.random.Generator", side: int, contrast: float) -> "np.ndarray":
    """Smooth random brightness around 128: float64 [side, side]."""
    import cv2
    import numpy as np

    noise = cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), 2.0)
    return 128 + contrast * np.clip(noise / noise.std(), -2, 2)


def _shifted(texture: "np.ndarray", offset: "np.ndarray") -> "np.ndarray":
    """The part of `texture` that starts `offset` pixels (y, x) in, bilinear: float64 [H, W, 3]."""
    import cv2
    import numpy as np

    matrix = np.array([[1.0, 0.0, offset[1]], [0.0, 1.0, offset[0]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(texture, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_WRAP)
