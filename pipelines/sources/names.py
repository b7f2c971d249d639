"""Names of files and folders: which files are videos, which folders are splits, what can be a class's name."""

import itertools
import os
import re
from collections.abc import Collection
from pathlib import Path

from pipelines.errors import UsageError
from pipelines.storage.workspace import is_plain_name
from pipelines.video.webp import is_animated_webp

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avi", "divx", "mov", "mp4", "m4v", "3gp", "3g2", "mkv", "webm", "mpg", "mpeg", "mpe", "m2v", "vob"),
        *("ts", "mts", "m2ts", "wmv", "asf", "flv", "ogv", "gif", "apng"),
    )
)
PICTURE_SUFFIXES = frozenset((".png", ".webp"))
"""Of pictures that may be animated, which are videos then."""
_BEFORE_PIXELS = 4096  # bytes of a picture in which it says whether it is animated
# "train", "Validation", "videos_val", "train_256", "testing-set": as data sets name the folders of their splits
_SPLIT = re.compile(
    r"(?:(?:videos?|clips?|k\d00|kinetics\d*)[_-])?"
    r"(?:(?P<train>train(?:ing)?)|(?P<validation>val(?:id(?:ation)?)?|eval(?:uation)?|dev)|(?P<test>test(?:ing)?))"
    r"(?:[_ -]?(?:sets?|data|videos?|clips?|split|\d+p?))*",
    re.IGNORECASE,
)


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name, or an animation by its first bytes."""
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    try:
        with open(path, "rb") as file:
            head = file.read(_BEFORE_PIXELS)
    except OSError:
        return False
    return is_animated_webp(head) or (head.startswith(b"\x89PNG") and b"acTL" in head.partition(b"IDAT")[0])


def split_of(name: str) -> str:
    """The split that a folder of this name holds: `train`, `validation`, `test`, or "" for another folder."""
    found = _SPLIT.fullmatch(name.strip())
    return str(found.lastgroup) if found else ""


def splits_of(names: Collection[str]) -> dict[str, str]:
    """The split that each of these folders holds, where all hold one; else {}.

    What all names share at an end does not count, up to a sign between words: the name of the data set in
    `ucf101_train` and `ucf101_test`.
    """
    starts = _shared(names)
    ends = len(_shared([name[::-1] for name in names]))
    for cut in (slice(None), slice(len(starts), None), slice(None, -ends or None), slice(len(starts), -ends or None)):
        splits = {name: split_of(name[cut]) for name in names}
        if all(splits.values()):
            return splits
    return {}


def _shared(names: Collection[str]) -> str:
    """What all begin with, up to the last sign between words."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    start = "".join(letters[0] for letters in same) if len(names) > 1 else ""
    return start[: 1 + max(start.rfind(sign) for sign in "_- .")]


def require_class_name(label: str, where: str) -> None:
    """Raises `UsageError` for a label that cannot be the name of a class's folder."""
    if not is_plain_name(label) or len(os.fsencode(label)) > 200:
        raise UsageError(
            f"{where}: the label {label!r} cannot be a folder's name: a line is `path label`, "
            "the label without '/' and at most 200 bytes long"
        )
