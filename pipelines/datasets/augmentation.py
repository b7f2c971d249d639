"""Which part of the pictures a sample shows: crops and mirrors of the training, views of the test (paper.md 3.4
and 4.2).

A crop holds for all frames of a sample and for both streams. `H W` are the stored picture, `h w` the network's input.
The paper's lengths (224, 256, ...) belong to a short side of 256 and a square input. Here each is a fraction of the
*box*, the largest rectangle of the input's shape that fits the picture: its heights are fractions of the box's height,
its widths of the box's width. For a square input the box's side is the short side, so at 256 these are the paper's
pixels; for another short side or a rectangular input they grow and shrink with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, get_args

import numpy as np
import torch

from pipelines.errors import UsageError
from pipelines.interface.options import Augmentation, ViewName

Size = tuple[int, int]  # height, width

INPUT_FRACTION = 224 / 256
JITTER = (0.75, 1.25)
CORNER_FRACTIONS = np.concatenate([np.linspace(0, 0.25, 20), np.linspace(0.75, 1, 20)])
SCALE_FRACTIONS = (256 / 256, 224 / 256, 192 / 256, 168 / 256)
MILD_ZOOM = (0.8, 1.0)

REFERENCE: dict[Augmentation, float] = {
    "corner-jittered": INPUT_FRACTION,
    "multi-scale-corner": INPUT_FRACTION,
    "mild": 1.0,
    "center": 1.0,
}
"""The fraction of the box that a network trained with a scheme is used to see: what the test's views keep to."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of the stored picture in pixels, and whether it is then mirrored left-right."""

    top: int
    left: int
    height: int
    width: int
    mirror: bool = False


# ------------------------------------------------------------------ training


def draw_crop(
    scheme: Augmentation, height: int, width: int, size: Size, rng: np.random.Generator, *, mirror: bool = True
) -> Crop:
    """Draws a crop of a training sample.

    "corner-jittered": height and width each 224 (as a fraction of the box) times uniform 0.75..1.25, at most the
    picture's; both offsets in the first or both in the last quarter of the free range, on a grid of 20 x 20.
    "multi-scale-corner": height and width each one of 256, 224, 192, 168; a corner or the center.
    "mild": 0.8..1 of the box, anywhere. "center": the box, in the center, never mirrored.

    A side of the picture that is longer than three boxes would not be covered by corners and center: there the first
    two schemes draw the offset along it evenly.

    Args:
        height: H, of the picture.
        width: W, of the picture.
        size: (h, w) of the network's input.
        mirror: Whether half of the crops are mirrored.

    Raises:
        UsageError: There is no such scheme.
    """
    box = largest_box(height, width, size)
    if scheme == "corner-jittered":
        lengths = [INPUT_FRACTION * side * rng.uniform(*JITTER) for side in box]
        region = 20 * int(rng.integers(2))  # top-left or bottom-right, the same for x and y
        corner = tuple(float(CORNER_FRACTIONS[region + int(rng.integers(20))]) for _ in range(2))
        crop = _placed(height, width, (lengths[0], lengths[1]), *_covering(corner, (height, width), box, rng))
    elif scheme == "multi-scale-corner":
        lengths = [SCALE_FRACTIONS[int(rng.integers(4))] * side for side in box]
        corner = _CORNERS_AND_CENTER[int(rng.integers(5))]
        crop = _placed(height, width, (lengths[0], lengths[1]), *_covering(corner, (height, width), box, rng))
    elif scheme == "mild":
        zoom = rng.uniform(*MILD_ZOOM)
        crop = _placed(height, width, (zoom * box[0], zoom * box[1]), 0, 0)
        top = int(rng.integers(height - crop.height + 1))
        left = int(rng.integers(width - crop.width + 1))
        crop = replace(crop, top=top, left=left)
    elif scheme == "center":
        return _placed(height, width, box, 0.5, 0.5)
    else:
        raise UsageError(f"--augmentation {scheme!r} is not known: give one of {', '.join(get_args(Augmentation))}")
    # Drawn in any case, so that forbidding mirrors changes nothing else.
    mirrored = bool(rng.random() < 0.5)
    return replace(crop, mirror=mirrored and mirror)


_CORNERS_AND_CENTER = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))


def largest_box(height: int, width: int, size: Size) -> tuple[float, float]:
    """Height and width of the largest rectangle of the shape of `size` in an H x W picture."""
    scale = min(height / size[0], width / size[1])
    return size[0] * scale, size[1] * scale


def _covering(
    place: Sequence[float], picture: Size, box: Sequence[float], rng: np.random.Generator
) -> tuple[float, float]:
    """The fractions y, x of `place`, but even draws along a side that is longer than three boxes."""
    y, x = (
        rng.uniform(0, 1) if side > 3 * length else fraction
        for fraction, side, length in zip(place, picture, box, strict=True)
    )
    return y, x


def _placed(height: int, width: int, lengths: tuple[float, float], y: float, x: float) -> Crop:
    """A crop of these lengths, rounded to 1..the picture's, at the fractions y, x of the free range."""
    crop_height = min(height, max(1, round(lengths[0])))
    crop_width = min(width, max(1, round(lengths[1])))
    return Crop(round(y * (height - crop_height)), round(x * (width - crop_width)), crop_height, crop_width)


def jitter_colors(frames: torch.Tensor, strength: float, rng: np.random.Generator) -> torch.Tensor:
    """Brightness, then contrast, then saturation of a sample's frames, changed by torchvision, all frames alike.

    Args:
        frames: uint8 RGB [n, 3, H, W].
        strength: Each factor is drawn evenly from 1 - strength to 1 + strength.

    Returns:
        The same shape and type.
    """
    # Takes a second to load, which training without it, and every other command, is spared.
    from torchvision.transforms.v2.functional import adjust_brightness, adjust_contrast, adjust_saturation

    for adjust in (adjust_brightness, adjust_contrast, adjust_saturation):
        frames = adjust(frames, rng.uniform(1 - strength, 1 + strength))
    return frames


# ------------------------------------------------------------------ test


class Views(NamedTuple):
    """What the test looks at."""

    crops: list[Crop]
    """Without mirrors."""
    size: Size
    """(h, w) to which each is resized; not always the input's."""


def view_crops(height: int, width: int, views: ViewName, size: Size, *, reference: float = INPUT_FRACTION) -> Views:
    """The views of a picture in the test.

    "full": the whole picture, so scaled that things are as large as in training (256 x 341 at an input of 224: as
    stored; with `reference` 1 and the picture's own shape: the input's size). "center": one crop; "3": both ends and
    the middle of the side along which a crop has more room; "5" and "10": four corners and the center (ten are
    these and their mirrors, which are the caller's to add).

    Args:
        height: H, of the picture.
        width: W, of the picture.
        size: (h, w) that the network was trained at.
        reference: The fraction of the box that it was trained on.

    Raises:
        UsageError: There are no such views.
    """
    box = largest_box(height, width, size)
    if views == "full":
        scale = size[0] / (reference * box[0])
        return Views([Crop(0, 0, height, width)], (max(1, round(height * scale)), max(1, round(width * scale))))
    lengths = (reference * box[0], reference * box[1])
    if views == "center":
        positions: Sequence[tuple[float, float]] = ((0.5, 0.5),)
    elif views == "3":
        along_width = width - lengths[1] >= height - lengths[0]
        positions = [(0.5, end) if along_width else (end, 0.5) for end in (0.0, 0.5, 1.0)]
    elif views in ("5", "10"):
        positions = _CORNERS_AND_CENTER
    else:
        raise UsageError(f"--views {views!r} is not known: give one of {', '.join(get_args(ViewName))}")
    return Views([_placed(height, width, lengths, y, x) for y, x in positions], size)
