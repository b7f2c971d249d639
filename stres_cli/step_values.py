"""The numbers of a training step as options write them: read, and shown again."""

from collections.abc import Callable, Mapping
from typing import Any

from pipelines.errors import UsageError
from pipelines.training.recipes import STEPS, Step


def by_step(options: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    """The values of the options that are given, by step and name. Raises `UsageError`."""
    found: dict[str, dict[str, Any]] = {}
    for name, text in options.items():
        for step, value in _parsed(name, text).items() if text is not None else ():
            found.setdefault(step, {})[name] = value
    return found


def _parsed(name: str, text: str) -> dict[str, Any]:
    """`VALUE` or `STEP=VALUE,STEP=VALUE` as values by step."""
    if "=" not in text:
        return dict.fromkeys(map(str, STEPS), _read(name, text))
    values: dict[str, Any] = {}
    for part in text.split(","):
        step, _, value = (piece.strip() for piece in part.partition("="))
        if step not in STEPS:
            raise UsageError(f"{flag(name)} {text!r}: {step!r} is not a step; the steps are {', '.join(STEPS)}")
        values[step] = _read(name, value)
    return values


def _read(name: str, text: str) -> Any:
    read, wanted = READERS[name]
    try:
        return read(text)
    except (ValueError, KeyError):
        raise UsageError(f"{flag(name)} {text!r} cannot be read: give {wanted}") from None


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def shown(step: Step, name: str) -> str:
    """A step's number as its option writes it."""
    value = getattr(step, name)
    if value is None or (name == "epochs" and step.iterations is not None):  # iterations decide
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return _SEPARATORS[name].join(f"{part:g}" for part in value)
    return str(value)


_SEPARATORS = {"schedule": ":", "stride": "-", "temporal_pool": "/"}


# ------------------------------------------------------------------ one value


def _schedule(text: str) -> Any:
    return "cosine" if text == "cosine" else tuple(float(part) for part in text.split(":"))


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _pool(text: str) -> tuple[int, int]:
    size, stride = (int(part) for part in text.split("/"))
    if min(size, stride) < 1:
        raise ValueError
    return size, stride


def _yes_or_no(text: str) -> bool:
    return {"yes": True, "no": False}[text]


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


_WHOLE = (int, "a whole number")
_YES_OR_NO = (_yes_or_no, "yes or no")
_FRACTION = (_fraction, "a number from 0 to below 1")
_NOT_NEGATIVE = (_not_negative, "a number that is not negative")
READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "lr": _NOT_NEGATIVE,
    "schedule": (_schedule, "cosine, or factors such as 1:1:0.1"),
    "epochs": _WHOLE,
    "iterations": _WHOLE,
    "factor": _WHOLE,
    "batch_size": _WHOLE,
    "micro_batch": _WHOLE,
    "frames": _WHOLE,
    "stride": (_range, "N or LOW-HIGH, such as 5-15"),
    "dropout": _FRACTION,
    "crops": (str, "the name of a scheme"),
    "mirror": _YES_OR_NO,
    "temporal_pool": (_pool, "SIZE/STRIDE, such as 5/2"),
    "momentum": _FRACTION,
    "nesterov": _YES_OR_NO,
    "weight_decay": _NOT_NEGATIVE,
    "label_smoothing": _FRACTION,
}
"""How each number of a step is read, and what to give."""
