"""Whether a video's flow is that of its frames, and the right way round: judged by warping (`warping.py`).

Letters: F fields, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from pipelines.optical_flow.grey import to_grey
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.quantise import dequantise
from pipelines.verification.faults import Broken

# On the real clips of docs/verify.md: blurring and the cap let noise and what one frame hides count less.
_BLUR = 1.0  # pixels, deviation of a Gaussian
_CAP = 30.0  # grey levels, the most that one pixel's difference counts
_LEAST = 0.5  # pixels: shorter vectors, and turns that move a vector by less, tell nothing
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
        turned = vectors[::-1] if self.swapped else vectors
        signs = np.array([-1 if self.x_negated else 1, -1 if self.y_negated else 1], dtype=vectors.dtype)
        return turned * signs.reshape(2, *[1] * (vectors.ndim - 1))


AS_IT_IS = FlowTransform(False, False, False)
TRANSFORMS = tuple(
    sorted((FlowTransform(*each) for each in product((False, True), repeat=3)), key=lambda turn: len(turn.words))
)[1:]
"""The seven ways of being wrong, the simplest first."""


class Evidence:
    """Sums of absolute differences, grey levels, over the moving pixels of some pairs of frames.

    `still`: of the frames as they are; `turned`: of the second frame warped with the field so turned. `against`: only
    over the pixels that the turn moves elsewhere, the field as it is and turned; `pixels`: how many these are.
    """

    def __init__(self) -> None:
        self.moving = 0
        self.still = 0.0
        self.turned = dict.fromkeys((AS_IT_IS, *TRANSFORMS), 0.0)
        self.against = {turn: np.zeros(2) for turn in TRANSFORMS}
        self.pixels = dict.fromkeys(TRANSFORMS, 0)

    def add(self, frame0: np.ndarray, frame1: np.ndarray, field: np.ndarray, bound: float) -> None:
        """Takes in one pair: RGB frames uint8 [H, W, 3] and their field uint8 [2, H, W]; one with a cut in between, or
        without motion, tells nothing."""
        grey0, grey1 = (_smooth_grey(frame) for frame in (frame0, frame1))
        places, vectors = _moving(field, bound)
        if not places.size:
            return
        x, y = places.astype(int)
        was, still = grey0[y, x], grey1[y, x]
        warped = {turn: warp(grey1, places, turn(vectors)) for turn in (AS_IT_IS, *TRANSFORMS)}
        if not any(_same_shot(was, values) for values in (still, *warped.values())):
            return
        differences = {turn: np.minimum(np.abs(values - was), _CAP) for turn, values in warped.items()}
        self.moving += len(x)
        self.still += float(np.minimum(np.abs(still - was), _CAP).sum())
        for turn, difference in differences.items():
            self.turned[turn] += float(difference.sum())
        for turn in TRANSFORMS:
            moved = np.hypot(*(turn(vectors) - vectors)) > _LEAST
            self.against[turn] += [differences[AS_IT_IS][moved].sum(), differences[turn][moved].sum()]
            self.pixels[turn] += int(moved.sum())

    def ratio(self, turn: FlowTransform) -> float:
        """How many times the difference as it is is that of the field turned: below 1 where the field is right."""
        as_it_is, turned = self.against[turn]
        return float(as_it_is / max(turned, 1e-9))

    def beside_still(self, turn: FlowTransform) -> float:
        """How many times the difference of the frames as they are is left by warping with the field so turned."""
        return self.turned[turn] / max(self.still, 1e-9)


def warp(frame: np.ndarray, places: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """`frame` [H, W] at `places` (x, y) [2, ...] plus `vectors` [2, ...], bilinear; beyond its edge as at it: [...]."""
    x, y = (np.atleast_2d(axis) for axis in (places + vectors).astype(np.float32))
    warped = cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.reshape(places.shape[1:])


def _same_shot(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the same may be seen in both, pixel by pixel: [P]; so it may where hardly anything is."""
    deviations = [float(values.std()) for values in (one, other)]
    if min(deviations) < 1:
        return True
    together = float(((one - one.mean()) * (other - other.mean())).mean())
    return together > _SAME_SHOT * deviations[0] * deviations[1]


def _smooth_grey(frame: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(to_grey(frame).astype(np.float32), (0, 0), _BLUR)


def _moving(field: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Places (x, y) [2, P] and vectors [2, P], pixels, of a field's moving pixels: neither still nor clipped."""
    flow = dequantise(field, bound)
    clipped = ((field == 0) | (field == 255)).any(axis=0)
    y, x = np.nonzero((np.hypot(*flow) > _LEAST) & ~clipped)
    if len(x) > _PIXELS_DRAWN:
        chosen = np.random.default_rng(0).choice(len(x), _PIXELS_DRAWN, replace=False)
        x, y = x[chosen], y[chosen]
    return np.stack([x, y]).astype(np.float32), flow[:, y, x]


# Measured on the real clips of docs/verify.md, 8 pairs of each: where the flow is right, no turn of it leaves less than
# 1.007 times its difference both altogether and where the turn moves pixels, 400 or more of them; and it leaves at most
# 1.34 of the difference of the frames as they are. Over 1,000 pixels it leaves at most 0.81 of what its opposite leaves
# and 1.12 of the frames' difference; flow of another video leaves 0.92 to 1.25 of the former, and mostly 1.2 to 12 of
# the latter.
_PAIRS = 8
_FEWEST_PIXELS = 400
_WORSE, _ALTOGETHER = 1.05, 1.02
_FITS = 1.2
_FEWEST_FOREIGN, _NO_BETTER = 1000, 0.92
_EQUAL_FIT = 1.01  # of two turns that fit equally well, the simpler is named
_CLEAR_PIXELS, _CLEAR = 2000, 0.85  # evidence that needs no more pairs


def judge_orientation(frames: FrameFile, fields: Mapping[int, np.ndarray], step: int, bound: float) -> bool:
    """Warps the pairs of most motion among `fields` (index -> uint8 [2, H, W]); returns whether motion was enough.

    Raises `Broken` where another orientation of the flow fits the frames better, or none does.
    """
    evidence = Evidence()
    by_motion = sorted(fields, key=lambda index: -_motion(fields[index]))
    for index in by_motion[:_PAIRS]:
        evidence.add(frames.read_one(index), frames.read_one(index + step), fields[index], bound)
        if _is_clearly_right(evidence):
            return True
    better = [turn for turn in TRANSFORMS if _fits_better(evidence, turn)]
    if better:
        raise _turned(evidence, _best(evidence, better))
    if _fits_no_way(evidence):
        raise _foreign(evidence)
    return any(evidence.pixels[turn] >= _FEWEST_PIXELS for turn in TRANSFORMS)


def _motion(field: np.ndarray) -> float:
    """How far a field is from stillness: a mean over some of its pixels, quantised steps."""
    return float(np.abs(field[:, ::4, ::4].astype(np.int16) - 128).mean())


def _is_clearly_right(evidence: Evidence) -> bool:
    return all(evidence.pixels[turn] >= _CLEAR_PIXELS and evidence.ratio(turn) < _CLEAR for turn in TRANSFORMS)


def _fits_better(evidence: Evidence, turn: FlowTransform) -> bool:
    """Where it moves pixels elsewhere, and altogether: a few pixels alone would accuse right flow now and then."""
    return (
        evidence.pixels[turn] >= _FEWEST_PIXELS
        and evidence.ratio(turn) > _WORSE
        and evidence.turned[AS_IT_IS] > _ALTOGETHER * evidence.turned[turn]
    )


def _best(evidence: Evidence, better: list[FlowTransform]) -> FlowTransform:
    """The turn that leaves the smallest difference."""
    least = min(evidence.turned[turn] for turn in better)
    return next(turn for turn in better if evidence.turned[turn] <= _EQUAL_FIT * least)


def _turned(evidence: Evidence, turn: FlowTransform) -> Broken:
    if evidence.beside_still(turn) > _FITS:
        return _foreign(evidence)
    left = [100 * evidence.beside_still(each) for each in (AS_IT_IS, turn)]
    return Broken(
        "turned flow",
        f"it fits its frames with {turn.words}: warping then leaves {left[1]:.0f} % of the frames' difference, with "
        f"the flow as it is {left[0]:.0f} %",
    )


def _fits_no_way(evidence: Evidence) -> bool:
    """Whether warping is worse than leaving the frames as they are, and worse whichever way the flow is turned round:
    right flow can be the former where much is hidden from one frame by the other, but never the latter."""
    opposite = FlowTransform(False, True, True)
    return (
        evidence.moving >= _FEWEST_FOREIGN
        and evidence.beside_still(AS_IT_IS) > _WORSE
        and evidence.ratio(opposite) > _NO_BETTER
    )


def _foreign(evidence: Evidence) -> Broken:
    left = 100 * evidence.beside_still(AS_IT_IS)
    return Broken(
        "foreign flow",
        f"it is not the flow of these frames: warping leaves {left:.0f} % of their difference, none would leave 100 %",
    )
