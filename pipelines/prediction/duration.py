"""Lengths of time as a user gives them: seconds or frames."""

import re
from dataclasses import dataclass

from pipelines.errors import UsageError

_FORM = re.compile(r"(?P<number>\d+(\.\d+)?|\.\d+)\s*(?P<unit>s|f?)")


@dataclass(frozen=True)
class Duration:
    """So many seconds, or frames."""

    number: float
    in_frames: bool

    @classmethod
    def parse(cls, flag: str, text: str) -> "Duration":
        """`2`, `2s` or `0.5` seconds, `50f` frames. Raises `UsageError` naming `flag`."""
        match = _FORM.fullmatch(text.strip())
        if match is None or not float(match["number"]):
            raise UsageError(f"{flag} {text!r} cannot be read: give seconds, such as 2 or 0.5s, or frames, such as 50f")
        if match["unit"] == "f" and float(match["number"]) % 1:
            raise UsageError(f"{flag} {text!r}: a number of frames is a whole number")
        return cls(float(match["number"]), match["unit"] == "f")

    def frames(self, fps: float) -> int:
        """At that rate, 1 or more."""
        return max(1, round(self.number if self.in_frames else self.number * fps))

    def half(self) -> "Duration":
        return Duration(max(1, self.number // 2) if self.in_frames else self.number / 2, self.in_frames)

    def __str__(self) -> str:
        return f"{self.number:g} {'frames' if self.in_frames else 's'}"
