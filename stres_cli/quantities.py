"""Durations and sizes in words."""


def size(gigabytes: float) -> str:
    """ "1.2 GB", "340 MB", "51 kB": two digits or more."""
    for factor, unit in ((1.0, "GB"), (1e3, "MB")):
        if gigabytes * factor >= 1:
            return f"{_rounded(gigabytes * factor)} {unit}"
    return f"{_rounded(gigabytes * 1e6)} kB"


def room(needed: float, free: float) -> str:
    """Whether the `needed` gigabytes fit on the disk, in a sentence; empty if it is not known how many are `free`."""
    if not free:
        return ""
    if needed > free:
        return f"warning: the disk has only {size(free)} free, and the command would stop when it is full"
    return f"the disk has {size(free)} free, which is enough"


def _rounded(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"
