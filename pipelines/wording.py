"""Numbers in sentences: how many of what, and how long."""


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
