"""Fractions as percentages: rounded in one way wherever they are shown (`page/core.js` has the same for browsers)."""

import math

# A float is nearest to its fraction k/n, not equal: 9/16 of a hundred is 56.25, and is to be 56.3 wherever it is shown.
# Fractions of fewer than a hundred million videos are told apart by more than this.
_EXACT = 1e-9


def percent(fraction: float | None, digits: int = 1) -> str:
    """`56.3` for 9/16: half a unit of the last digit is rounded up; a dash for None, not defined."""
    return "–" if fraction is None else f"{_rounded(fraction, digits):.{digits}f}"


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign: `+6.3`, `-6.3`, `0.0`."""
    rounded = _rounded(difference, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _rounded(fraction: float, digits: int) -> float:
    unit = 10**digits
    return math.copysign(math.floor(abs(fraction) * 100 * unit + 0.5 + _EXACT) / unit, fraction)
