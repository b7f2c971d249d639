"""Whether a video's flow is that of its frames, with its axes and signs right: judged by warping the frames with it.

Letters: F fields, H W pixels, P pixels looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from pipelines.optical_flow.grey import to_grey
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.quantise import NO_MOTION, dequantise, is_clipped
from pipelines.verification.faults import FaultFound

# On the real clips of docs/verify.md: blurring and the cap let noise and what one frame hides count less.
_BLUR = 1.0  # pixels, deviation of a Gaussian
_CAP = 30.0  # grey levels, the most that one pixel's difference counts
_LEAST = 0.5  # pixels: shorter vectors, and transforms that move a vector by less, are ignored
_PIXELS_DRAWN = 4000  # of a pair, drawn at random
_SAME_SHOT = 0.5  # correlation of two frames, below which, however they are warped, a cut lies between them


@dataclass(frozen=True)
class FlowTransform:
    """How a flow field may be wrong: axes swapped first, then signs changed."""

    swapped: bool
    x_negated: bool
    y_negated: bool

    @property
    def words(self) -> str:
        signs = [("x", self.x_negated), ("y", self.y_negated)]
        negated = " and ".join(axis for axis, is_negated in signs if is_negated)
        return ", ".join([*(["x and y swapped"] * self.swapped), *([f"{negated} negated"] if negated else [])])

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Applied to vectors [2, ...], x then y."""
        transformed = vectors[::-1] if self.swapped else vectors
        signs = np.array([-1 if self.x_negated else 1, -1 if self.y_negated else 1], dtype=vectors.dtype)
        return transformed * signs.reshape(2, *[1] * (vectors.ndim - 1))


AS_IT_IS = FlowTransform(False, False, False)
TRANSFORMS = tuple(
    sorted((FlowTransform(*each) for each in product((False, True), repeat=3)), key=lambda each: len(each.words))
)[1:]
"""The seven ways of being wrong, the simplest first."""
_OPPOSITE = FlowTransform(False, True, True)


class Evidence:
    """Sums of absolute differences, grey levels, over the moving pixels of some pairs of frames."""

    def __init__(self) -> None:
        self.moving = 0
        """Moving pixels."""
        self.still = 0.0
        """Of the two frames as they are."""
        self.warped = dict.fromkeys((AS_IT_IS, *TRANSFORMS), 0.0)
        """Of the first frame and the second one warped with the field so transformed."""
        self.against = {transform: np.zeros(2) for transform in TRANSFORMS}
        """Only over the pixels that the transform moves elsewhere: with the field as it is, and transformed."""
        self.pixels = dict.fromkeys(TRANSFORMS, 0)
        """How many pixels these are."""

    def add(self, frame0: np.ndarray, frame1: np.ndarray, field: np.ndarray, bound: float) -> None:
        """Adds one pair; a pair with a cut in between, or without motion, adds nothing.

        Args:
            frame0: RGB uint8 [H, W, 3].
            frame1: The frame that the field leads to.
            field: Levels [2, H, W].
            bound: Pixels: the field's flow is clipped to -bound..bound.
        """
        grey0, grey1 = (
            cv2.GaussianBlur(to_grey(frame).astype(np.float32), (0, 0), _BLUR) for frame in (frame0, frame1)
        )
        places, vectors = _moving(field, bound)
        if not places.size:
            return
        x, y = places.astype(int)
        was, still = grey0[y, x], grey1[y, x]
        warped = {transform: warp(grey1, places, transform(vectors)) for transform in (AS_IT_IS, *TRANSFORMS)}
        if not any(_same_shot(was, values) for values in (still, *warped.values())):
            return
        differences = {transform: np.minimum(np.abs(values - was), _CAP) for transform, values in warped.items()}
        self.moving += len(x)
        self.still += float(np.minimum(np.abs(still - was), _CAP).sum())
        for transform, difference in differences.items():
            self.warped[transform] += float(difference.sum())
        for transform in TRANSFORMS:
            moved = np.hypot(*(transform(vectors) - vectors)) > _LEAST
            self.against[transform] += [differences[AS_IT_IS][moved].sum(), differences[transform][moved].sum()]
            self.pixels[transform] += int(moved.sum())

    def ratio(self, transform: FlowTransform) -> float:
        """The difference with the field as it is, over that with it transformed: below 1 if the field is right."""
        as_it_is, transformed = self.against[transform]
        return float(as_it_is / max(transformed, 1e-9))

    def beside_still(self, transform: FlowTransform) -> float:
        """The difference after warping with the field so transformed, over that of the frames as they are."""
        return self.warped[transform] / max(self.still, 1e-9)


def warp(frame: np.ndarray, places: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """`frame` [H, W] at `places` (x, y) [2, ...] plus `vectors` [2, ...], bilinear; beyond its edge as at it: [...]."""
    x, y = (np.atleast_2d(axis) for axis in (places + vectors).astype(np.float32))
    warped = cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.reshape(places.shape[1:])


def _same_shot(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether both [P] may show the same, pixel by pixel; True if either shows hardly anything."""
    deviations = [float(values.std()) for values in (one, other)]
    if min(deviations) < 1:
        return True
    together = float(((one - one.mean()) * (other - other.mean())).mean())
    return together > _SAME_SHOT * deviations[0] * deviations[1]


def _moving(field: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Places (x, y) [2, P] and vectors [2, P], pixels, of a field's moving pixels: neither still nor clipped."""
    flow = dequantise(field, bound)
    y, x = np.nonzero((np.hypot(*flow) > _LEAST) & ~is_clipped(field))
    if len(x) > _PIXELS_DRAWN:
        chosen = np.random.default_rng(0).choice(len(x), _PIXELS_DRAWN, replace=False)
        x, y = x[chosen], y[chosen]
    return np.stack([x, y]).astype(np.float32), flow[:, y, x]


# Measured on the real clips of docs/verify.md, 8 pairs of each: where the flow is right, no transform of it leaves less
# than 1.007 times its difference both altogether and where the transform moves pixels, 400 or more of them; and it
# leaves at most 1.34 of the difference of the frames as they are. Over 1,000 pixels it leaves at most 0.81 of what its
# opposite leaves and 1.12 of the frames' difference; flow of another video leaves 0.92 to 1.25 of the former, and
# mostly 1.2 to 12 of the latter.
_PAIRS = 8
_FEWEST_PIXELS = 400
_WORSE, _ALTOGETHER = 1.05, 1.02
_FITS = 1.2
_FEWEST_FOREIGN, _NO_BETTER = 1000, 0.92
_EQUAL_FIT = 1.01  # of two transforms that fit equally well, the simpler is named
_CLEAR_PIXELS, _CLEAR = 2000, 0.85  # evidence that needs no more pairs


def judge_orientation(frames: FrameFile, fields: Mapping[int, np.ndarray], step: int, bound: float) -> bool:
    """Warps the pairs of most motion, and looks which orientation of the flow fits them.

    Args:
        frames: The frames of the fields.
        fields: Index -> levels [2, H, W].
        step: Frames between the two of a pair.
        bound: Pixels: their flow is clipped to -bound..bound.

    Returns:
        Whether there was motion enough to judge.

    Raises:
        FaultFound: Another orientation of the flow fits the frames better, or none does.
    """
    evidence = Evidence()
    # How far a field is from stillness: a mean over some of its pixels, quantised steps.
    motion = {index: np.abs(field[:, ::4, ::4].astype(np.int16) - NO_MOTION).mean() for index, field in fields.items()}
    for index in sorted(fields, key=lambda index: -motion[index])[:_PAIRS]:
        evidence.add(frames.read_one(index), frames.read_one(index + step), fields[index], bound)
        if all(evidence.pixels[each] >= _CLEAR_PIXELS and evidence.ratio(each) < _CLEAR for each in TRANSFORMS):
            return True
    # Where it moves pixels elsewhere, and altogether: a few pixels alone would accuse right flow now and then.
    better = [
        each
        for each in TRANSFORMS
        if evidence.pixels[each] >= _FEWEST_PIXELS
        and evidence.ratio(each) > _WORSE
        and evidence.warped[AS_IT_IS] > _ALTOGETHER * evidence.warped[each]
    ]
    as_it_is = evidence.beside_still(AS_IT_IS)
    if better:
        least = min(evidence.warped[each] for each in better)
        best = next(each for each in better if evidence.warped[each] <= _EQUAL_FIT * least)
        if evidence.beside_still(best) > _FITS:
            raise _foreign(as_it_is)
        raise FaultFound(
            "turned flow",
            f"it fits its frames with {best.words}: warping then leaves {100 * evidence.beside_still(best):.0f} % of "
            f"the frames' difference, with the flow as it is {100 * as_it_is:.0f} %",
        )
    # Right flow can be worse than leaving the frames as they are, where much is hidden from one frame by the other,
    # but is never hardly better than its opposite.
    if evidence.moving >= _FEWEST_FOREIGN and as_it_is > _WORSE and evidence.ratio(_OPPOSITE) > _NO_BETTER:
        raise _foreign(as_it_is)
    return any(evidence.pixels[each] >= _FEWEST_PIXELS for each in TRANSFORMS)


def _foreign(left: float) -> FaultFound:
    return FaultFound(
        "foreign flow",
        f"it is not the flow of these frames: warping leaves {100 * left:.0f} % of their difference, none would leave "
        "100 %",
    )
