"""Which way round a flow field is: one frame is warped with the field, and with it turned in every way, onto the other.

What is at p in the first frame is at p + flow in the second. A field with a sign turned or its axes swapped takes
pixels from elsewhere, and the difference to the first frame grows.

Letters: H W pixels, P pixels looked at.
"""

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from pipelines.optical_flow.grey import to_grey
from pipelines.optical_flow.quantise import dequantise

# On the real clips of docs/verify.md: blurring and the cap let noise and what one frame hides count less.
_BLUR = 1.0  # pixels, deviation of a Gaussian
_CAP = 30.0  # grey levels, the most that one pixel's difference counts
_LEAST = 0.5  # pixels: shorter vectors, and turns that move a vector by less, tell nothing
_MOST_PIXELS = 4000  # of a pair, drawn at random
_SAME_SHOT = 0.5  # correlation of two frames, below which, however they are warped, a cut lies between them


@dataclass(frozen=True)
class Turn:
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


AS_IT_IS = Turn(False, False, False)
TURNS = tuple(sorted((Turn(*each) for each in product((False, True), repeat=3)), key=lambda turn: len(turn.words)))[1:]
"""The seven ways of being wrong, the simplest first."""


class Evidence:
    """Sums of absolute differences, grey levels, over the moving pixels of some pairs of frames.

    `still`: of the frames as they are; `turned`: of the second frame warped with the field so turned. `against`: only
    over the pixels that the turn moves elsewhere, the field as it is and turned; `pixels`: how many these are.
    """

    def __init__(self) -> None:
        self.moving = 0
        self.still = 0.0
        self.turned = dict.fromkeys((AS_IT_IS, *TURNS), 0.0)
        self.against = {turn: np.zeros(2) for turn in TURNS}
        self.pixels = dict.fromkeys(TURNS, 0)

    def add(self, frame0: np.ndarray, frame1: np.ndarray, field: np.ndarray, bound: float) -> None:
        """Takes in one pair: RGB frames uint8 [H, W, 3] and their field uint8 [2, H, W]; one with a cut in between, or
        without motion, tells nothing."""
        grey0, grey1 = (_smooth_grey(frame) for frame in (frame0, frame1))
        places, vectors = _moving(field, bound)
        if not places.size:
            return
        x, y = places.astype(int)
        was, still = grey0[y, x], grey1[y, x]
        warped = {turn: warp(grey1, places, turn(vectors)) for turn in (AS_IT_IS, *TURNS)}
        if not any(_alike(was, values) for values in (still, *warped.values())):
            return
        differences = {turn: np.minimum(np.abs(values - was), _CAP) for turn, values in warped.items()}
        self.moving += len(x)
        self.still += float(np.minimum(np.abs(still - was), _CAP).sum())
        for turn, difference in differences.items():
            self.turned[turn] += float(difference.sum())
        for turn in TURNS:
            moved = np.hypot(*(turn(vectors) - vectors)) > _LEAST
            self.against[turn] += [differences[AS_IT_IS][moved].sum(), differences[turn][moved].sum()]
            self.pixels[turn] += int(moved.sum())

    def ratio(self, turn: Turn) -> float:
        """How many times the difference as it is is that of the field turned: below 1 where the field is right."""
        as_it_is, turned = self.against[turn]
        return float(as_it_is / max(turned, 1e-9))

    def beside_still(self, turn: Turn) -> float:
        """How many times the difference of the frames as they are is left by warping with the field so turned."""
        return self.turned[turn] / max(self.still, 1e-9)


def warp(frame: np.ndarray, places: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """`frame` [H, W] at `places` (x, y) [2, ...] plus `vectors` [2, ...], bilinear; beyond its edge as at it: [...]."""
    x, y = (np.atleast_2d(axis) for axis in (places + vectors).astype(np.float32))
    warped = cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped.reshape(places.shape[1:])


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
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
    if len(x) > _MOST_PIXELS:
        chosen = np.random.default_rng(0).choice(len(x), _MOST_PIXELS, replace=False)
        x, y = x[chosen], y[chosen]
    return np.stack([x, y]).astype(np.float32), flow[:, y, x]
