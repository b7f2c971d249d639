"""Whether a video's flow is that of its frames, and the right way round: judged by warping (`warping.py`).

Letters: F fields, H W pixels.
"""

from collections.abc import Mapping

import numpy as np

from pipelines.artifacts import FrameFile
from pipelines.verification.faults import Broken
from pipelines.verification.warping import AS_IT_IS, TURNS, Evidence, Turn

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
_ALIKE = 1.01  # of two turns that fit equally well, the simpler is named
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
    better = [turn for turn in TURNS if _fits_better(evidence, turn)]
    if better:
        raise _turned(evidence, _best(evidence, better))
    if _fits_no_way(evidence):
        raise _foreign(evidence)
    return any(evidence.pixels[turn] >= _FEWEST_PIXELS for turn in TURNS)


def _motion(field: np.ndarray) -> float:
    """How far a field is from stillness: a mean over some of its pixels, quantised steps."""
    return float(np.abs(field[:, ::4, ::4].astype(np.int16) - 128).mean())


def _is_clearly_right(evidence: Evidence) -> bool:
    return all(evidence.pixels[turn] >= _CLEAR_PIXELS and evidence.ratio(turn) < _CLEAR for turn in TURNS)


def _fits_better(evidence: Evidence, turn: Turn) -> bool:
    """Where it moves pixels elsewhere, and altogether: a few pixels alone would accuse right flow now and then."""
    return (
        evidence.pixels[turn] >= _FEWEST_PIXELS
        and evidence.ratio(turn) > _WORSE
        and evidence.turned[AS_IT_IS] > _ALTOGETHER * evidence.turned[turn]
    )


def _best(evidence: Evidence, better: list[Turn]) -> Turn:
    """The turn that leaves the smallest difference."""
    least = min(evidence.turned[turn] for turn in better)
    return next(turn for turn in better if evidence.turned[turn] <= _ALIKE * least)


def _turned(evidence: Evidence, turn: Turn) -> Broken:
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
    opposite = Turn(False, True, True)
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
