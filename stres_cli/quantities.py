"""Durations and sizes in words."""


def duration(seconds: float) -> str:
    """ "2 h 45 min", "1 min 05 s", "8 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(gigabytes: float) -> str:
    """ "1.2 GB", "340 MB", "51 kB": two digits or more."""
    for factor, unit in ((1.0, "GB"), (1e3, "MB")):
        if gigabytes * factor >= 1:
            return f"{_rounded(gigabytes * factor)} {unit}"
    return f"{_rounded(gigabytes * 1e6)} kB"


def _rounded(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.1f}"
