"""Numbers in words (how many of what, how long, how large, which share), and texts of others made safe to show."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

DIVERGED = "the training diverged; train the run again with a lower --lr, under another --name or with --overwrite"
"""Why a trained network's numbers are not finite, and what to do."""


def plural(number: int, noun: str, many: str = "") -> str:
    """ "1 video", "12 videos", "1 class", "3 classes"; `many` where that is not the noun with s or es."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {many or noun + ('es' if noun.endswith('s') else 's')}"


def duration(seconds: float) -> str:
    """ "2 h 45 min", "1 min 05 s", "38 s", "8.2 s", "0.4 s"."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(gigabytes: float) -> str:
    """ "1.2 GB", "340 MB", "51 kB": two digits or more."""
    for factor, unit in ((1.0, "GB"), (1e3, "MB")):
        if gigabytes * factor >= 1:
            return f"{_two_digits(gigabytes * factor)} {unit}"
    return f"{_two_digits(gigabytes * 1e6)} kB"


def room(needed: float, free: float) -> str:
    """Whether the `needed` gigabytes fit on the disk, in a sentence; empty if it is not known how many are `free`."""
    if not free:
        return ""
    if needed > free:
        return f"warning: the disk has only {size(free)} free, and the command would stop when it is full"
    return f"the disk has {size(free)} free, which is enough"


def _two_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"


# A float is nearest to its fraction k/n, not equal: 9/16 of a hundred is 56.25, and is to be 56.3 wherever it is shown.
# Fractions of fewer than a hundred million videos differ by more than this.
_EXACT = 1e-9


def setting(value: object) -> str:
    """ "yes", "none", "1,5", "0.001"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(setting, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def settings(values: Mapping[str, object]) -> str:
    """ "frames 25, views full, mirror yes"."""
    return ", ".join(f"{name} {setting(value)}" for name, value in values.items())


def percent(fraction: float | None, digits: int = 1) -> str:
    """`56.3` for 9/16: half a unit of the last digit is rounded up; a dash for None and NaN, not defined."""
    return "–" if fraction is None or not math.isfinite(fraction) else f"{_rounded(fraction, digits):.{digits}f}"


def fraction(value: float | None) -> str:
    """A share as files hold it: `0.562500`; empty for None, not defined."""
    return "" if value is None else f"{value:.6f}"


def points(difference: float) -> str:
    """A difference of two fractions in percentage points, with its sign: `+6.3`, `-6.3`, `0.0`."""
    rounded = _rounded(difference, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def interval(ends: tuple[float, float]) -> str:
    """The ends of an interval of a share in percent: `80.6–100.0`."""
    return "–".join(percent(end) for end in ends)


def p_value(value: float) -> str:
    """A p-value with the digits that it is worth: `0.123`, `0.0012`, `< 0.0001`."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def _rounded(fraction: float, digits: int) -> float:
    unit = 10**digits
    return math.copysign(math.floor(abs(fraction) * 100 * unit + 0.5 + _EXACT) / unit, fraction)


def printable(text: str) -> str:
    """`text`, which may hold names from folders of data, without control characters and bytes that are not text."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def first_line(error: Exception) -> str:
    """The first line of an exception's text; of one without a text its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def numbered(name: str) -> Iterator[str]:
    """`name`, `name-2`, `name-3` and so on without end, to find one that is free."""
    return itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first few of many names, and how many others there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
