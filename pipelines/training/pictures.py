"""The shape of a run's input beside that of the stored pictures, and what training crops show of these.

Letters: H W pixels of a stored picture, h w of the input.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from pipelines.datasets.augmentation import Size, draw_crop, largest_box
from pipelines.datasets.catalogue import Video
from pipelines.interface.options import Augmentation
from pipelines.interface.wording import percent, some
from pipelines.training.recipes import Recipe, Step

_MULTIPLE = 8  # of the input's long side in pixels
_MUCH = 2 / 3  # an input whose shape leaves more than a third of the picture out is told; 224x224 of 256x340 leaves 1/4
_SIDES = {"left", "right", "leftward", "rightward", "leftwards", "rightwards"}
_SIDES |= {"clockwise", "counterclockwise", "anticlockwise"}


def median_picture(videos: Iterable[Video]) -> Size | None:
    """(H, W) of the video that is the median by W / H; None where no artifact says its size."""
    known = sorted(((one.height, one.width) for one in videos if one.height and one.width), key=_aspect)
    return known[(len(known) - 1) // 2] if known else None


def input_size(recipe: Recipe, picture: Size | None) -> Size:
    """(h, w) for pictures of that shape: the recipe's short side, the long one in proportion, to a multiple of 8."""
    if recipe.fixed_size or picture is None:
        return recipe.size
    return shaped_like(picture, min(recipe.size))


def shaped_like(picture: Size, short: int) -> Size:
    """(h, w) of the shape of `picture`, H W, and that short side."""
    height, width = (max(short, _MULTIPLE * round(short * side / min(picture) / _MULTIPLE)) for side in picture)
    return (short, width) if picture[0] <= picture[1] else (height, short)


def shown_share(scheme: Augmentation, picture: Size, size: Size) -> float:
    """The share of a picture that a training crop shows on average, from a thousand of them."""
    rng = np.random.default_rng(0)
    drawn = (draw_crop(scheme, *picture, size, rng) for _ in range(1000))
    return float(np.mean([crop.height * crop.width for crop in drawn])) / (picture[0] * picture[1])


def sentences(videos: Sequence[Video], size: Size, steps: Sequence[Step], classes: Sequence[str]) -> list[str]:
    """What a user is to know of the input before it is trained on: its shape, what crops show, and mirrors."""
    told = []
    mirrors = any(step.mirrors for step in steps)
    named = [name for name in classes if _SIDES & {word.lower() for word in _words(name)}]
    picture = median_picture(videos)
    if picture is not None:
        shares = [shown_share(scheme, picture, size) for scheme in dict.fromkeys(step.augmentation for step in steps)]
        share = "-".join(dict.fromkeys(percent(share, 0) for share in sorted({min(shares), max(shares)})))
        aspects = {round(_aspect((one.height, one.width)), 1) for one in videos if one.height and one.width}
        shapes = f", the median of shapes from {min(aspects)} to {max(aspects)}" if len(aspects) > 1 else ""
        text = f"input {_text(size)} of pictures {_text(picture)} (height x width{shapes}): "
        text += f"a training crop shows {share} %"
        box, better = largest_box(*picture, size), shaped_like(picture, min(size))
        if box[0] * box[1] < _MUCH * picture[0] * picture[1]:
            most = percent(max(shown_share(step.augmentation, picture, better) for step in steps), 0)
            text += f" (--size {_text(better)} would show {most} %)"
        if mirrors and not named:
            text += ", half of them mirrored (--mirror no if left and right tell classes apart)"
        told.append(text)
    if mirrors and named:
        told.append(
            "warning: half of the training samples are mirrored, although left and right seem to tell classes apart "
            f"({some(named)}): give --mirror no"
        )
    return told


def _words(name: str) -> list[str]:
    """Of a class: "TurnLeft", "turn_left" and "turn left" have the same."""
    return re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)


def _aspect(picture: Size) -> float:
    return picture[1] / picture[0]


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
