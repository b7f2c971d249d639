"""Small pictures of a stored clip: its frames, its flow in colours, and a sheet of both that the page plays.

Made to be quick, since a page has hundreds: JPEGs are decoded no larger than needed, flow is made smaller as bytes, and
its colours are looked up. Letters: H W pixels of what is stored, h w of a small picture.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from pipelines.drawing.colour import flow_to_colour
from pipelines.drawing.flow_picture import motion_of_levels
from pipelines.prediction.attention import Attention, draw_attention, strongest
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.quantise import step_size

LONG_SIDE = 144  # pixels; a frame of UCF101 then takes 1.5 to 4.4 kB and its flow 1.2 to 2.2 (five clips)
SECONDS, PICTURES = 2, 8  # of a clip that plays
SHEET_QUALITY = 60
_UNSEEN = 128  # grey, in the place of attention of a stream that the network does not have
_COLOURED = 1.5  # times the speed of full colour, to which colours are looked up; all beyond is darker
_COLOURS = 193  # looked up in each direction: 64 from no motion to full colour


@dataclass(frozen=True)
class Sheet:
    """Pictures of a clip, one below the other: a data URI of a JPEG."""

    uri: str
    pictures: int
    ratio: float
    """Width of a picture divided by its height."""
    attention: bool = False
    """Whether each shows below frame and flow what speaks for the predicted class."""

    @property
    def seconds(self) -> float:
        """How long they play."""
        return self.pictures * SECONDS / PICTURES


def small_frames(frames: FrameFile, indices: Sequence[int]) -> list[np.ndarray]:
    """RGB uint8 [h, w, 3] each. Raises `ArtifactError`."""
    return [_small(frame) for frame in frames.read(indices, LONG_SIDE)]


def small_flow(fields: FlowFile, indices: Sequence[int], size: tuple[int, int] | None = None) -> np.ndarray:
    """The fields that follow these frames in colours, all in one scale.

    Args:
        size: Width and height of the pictures; by default a thumbnail's.

    Returns:
        RGB uint8 [fields, h, w, 3].

    Raises:
        ArtifactError: The file is damaged.
    """
    bound = fields.settings.bound
    motion = motion_of_levels(bound)
    at = [min(index, len(fields) - 1) for index in indices]
    stored = np.stack([[_small(plane, size) for plane in fields.read(one, one + 1)[0]] for one in at], axis=1)
    # Full colour is the clip's own 99th percentile: clips differ too much in speed for one scale. At the least it is
    # two stored steps, below which there is only noise.
    fast = max(float(np.quantile(np.hypot(*motion[stored[..., ::3, ::3]]), 0.99)), 2 * step_size(bound))
    middle = _COLOURS // 2
    places = np.rint(middle + np.clip(motion / fast / _COLOURED, -1, 1) * middle).astype(np.uint16)
    return _colours().take((_COLOURS * places)[stored[0]] + places[stored[1]], axis=0)


@lru_cache(maxsize=1)
def _colours() -> np.ndarray:
    """Colours of motion up to `_COLOURED` in both directions, where 1 is full colour: RGB uint8 [x times y, 3]."""
    motion = np.linspace(-_COLOURED, _COLOURED, _COLOURS)
    full = 1 + motion[1] - motion[0]  # a step later, lest rounding puts motion of 1 among the longer and so darker
    return flow_to_colour(np.stack(np.meshgrid(motion, motion, indexing="ij")), full).reshape(-1, 3)


def _small(picture: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """[H, W] or [H, W, 3] as large as `size`, width and height; without it made smaller where it is larger than a
    thumbnail."""
    height, width = picture.shape[:2]
    if size is None:
        scale = min(1, LONG_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
    share = min(width // size[0], height // size[1])
    if share > 1:  # the mean of whole blocks is 40 times as quick as of parts of pixels; what is left is under 2 to 1
        blocks = (width // share, height // share)
        picture = cv2.resize(picture[: blocks[1] * share, : blocks[0] * share], blocks, interpolation=cv2.INTER_AREA)
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def sheet(frames: FrameFile | None, fields: FlowFile | None, seen: Attention | None) -> Sheet:
    """The seconds in the middle of a clip: frames and flow beside each other, and below them the same with what was
    seen. Needs one of the two. Raises `ArtifactError`."""
    clip = frames if frames is not None else fields
    assert clip is not None
    times = clip.times[: len(clip)]
    start = max(0.0, min(float(times[len(times) // 2]) - SECONDS / 2, float(times[-1]) - SECONDS))
    shown_at = start + SECONDS / PICTURES * np.arange(PICTURES)
    indices = np.unique(np.searchsorted(times, shown_at[shown_at <= times[-1]], side="right") - 1).tolist()
    rows: list[dict[str, Sequence[np.ndarray]]] = [{}]
    if frames is not None:
        rows[0]["appearance"] = small_frames(frames, indices)
    if fields is not None:
        size = rows[0]["appearance"][0].shape[1::-1] if frames is not None else None
        rows[0]["motion"] = list(small_flow(fields, indices, size))
    if seen is not None:
        scales = strongest([seen])
        rows.append(
            {
                stream: [
                    draw_attention(picture, seen, stream, index, scales[stream])
                    if stream in scales
                    else np.full_like(picture, _UNSEEN)
                    for index, picture in zip(indices, pictures, strict=True)
                ]
                for stream, pictures in rows[0].items()
            }
        )
    every = np.vstack(
        [np.hstack([pictures[place] for pictures in row.values()]) for place in range(len(indices)) for row in rows]
    )
    height, width = every.shape[:2]
    _, coded = cv2.imencode(".jpg", cv2.cvtColor(every, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, SHEET_QUALITY])
    return Sheet(data_uri("jpeg", coded.tobytes()), len(indices), width * len(indices) / height, seen is not None)


def data_uri(kind: str, coded: bytes) -> str:
    """A picture of that kind, such as jpeg, inside the page."""
    return f"data:image/{kind};base64," + base64.b64encode(coded).decode("ascii")
