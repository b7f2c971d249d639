"""The pictures of one video in a folder: in order, complete, and not too large.

The folder is not trusted: links must not lead out of it, and a picture's size is read from its header before anything
is decoded.

Letters: H W pixels.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipelines.errors import VideoError
from pipelines.interface.wording import plural
from pipelines.layouts.names import PictureKind, PictureName, read_name
from pipelines.storage.jpeg import MOST_PIXELS, decode_picture, is_jpeg, jpeg_size

MOST_BYTES = 1 << 26
"""Of one file."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_END = b"\xff\xd9"


@dataclass(frozen=True)
class Series:
    """The pictures of one kind in one folder."""

    folder: Path
    kind: PictureKind
    root: Path
    """The folder given by the user, which links must not lead out of."""


@dataclass(frozen=True)
class Pictures:
    """The files of a series."""

    paths: list[Path]
    """In order."""
    first: int
    """The first one's number."""
    pattern: str
    """The name pattern that they share."""

    @property
    def bytes(self) -> int:
        """Of all files together. Raises `VideoError` where one is gone."""
        return sum(status.st_size for status in self._statuses())

    @property
    def mtime_ns(self) -> int:
        """When the last one was modified. Raises `VideoError` where one is gone."""
        return max(status.st_mtime_ns for status in self._statuses())

    def __str__(self) -> str:
        return f"{plural(len(self.paths), 'picture')} {self.pattern} ({self.first}..{self.first + len(self.paths) - 1})"

    def _statuses(self) -> list[os.stat_result]:
        try:
            return [path.stat() for path in self.paths]
        except OSError as error:
            raise VideoError(f"{error.filename} cannot be read ({error.strerror})") from error


# ------------------------------------------------------------------ which files


def list_pictures(series: Series, *, first: int | None = None, step: int = 1) -> Pictures:
    """Lists the pictures of a series by number.

    Args:
        first: The number of the first one; None: 0 or 1.
        step: Frames that a flow picture must span where its name says so.

    Raises:
        VideoError: A picture is missing, there twice, of another name or step, not a file, or a link out of the folder.
    """
    named = {number: found for number, found in _named(series).items() if first is None or number >= first}
    numbers = sorted(named)
    if not numbers:
        raise VideoError(f"{series.folder} holds no such pictures" + (f" from number {first} on" if first else ""))
    start = min(named[numbers[0]], key=lambda entry: entry[0].name)
    if numbers[0] != first if first is not None else numbers[0] > 1:
        wanted = "0 or 1" if first is None else str(first)
        raise VideoError(f"its pictures begin with {start[0].name}, not with number {wanted}")
    for expected, number in enumerate(numbers, start=numbers[0]):
        if number != expected:
            raise VideoError(f"picture {expected} of {numbers[0]}..{numbers[-1]} is missing (as in {start[0].name})")
    paths = []
    for number in numbers:
        (path, name), *others = sorted(named[number], key=lambda entry: entry[0].name)
        if others:
            raise VideoError(f"{path.name} and {others[0][0].name} have the same number")
        if name.prefix != start[1].prefix:
            names = f"{start[1].prefix}* and {name.prefix}*"
            raise VideoError(f"holds pictures of two names, {names}: put them into separate folders")
        if name.step is not None and name.step < 0:
            raise VideoError(f"{path.name} is flow backwards in time, which is unsupported")
        if name.step is not None and name.step != step:
            raise VideoError(f"{path.name} is flow over {plural(name.step, 'frame')}: give --step {name.step}")
        paths.append(path)
    return Pictures(paths, numbers[0], str(series.folder / f"{start[1].prefix}*{start[0].suffix}"))


def _named(series: Series) -> dict[int, list[tuple[Path, PictureName]]]:
    """The files whose name is one of the series', by number."""
    named: dict[int, list[tuple[Path, PictureName]]] = {}
    root = os.path.realpath(series.root)
    try:
        with os.scandir(series.folder) as entries:
            for entry in entries:
                name = read_name(entry.name, series.kind)
                if name is None:
                    continue
                if entry.is_symlink() and not is_within(os.path.realpath(entry.path), root):
                    raise VideoError(f"{entry.path} is a link to a place outside {root}: put the picture itself there")
                if not entry.is_file():
                    raise VideoError(f"{entry.path} is not a file")
                named.setdefault(name.number, []).append((Path(entry.path), name))
    except OSError as error:
        raise VideoError(f"{series.folder} cannot be listed ({error.strerror})") from error
    return named


def is_within(path: str, root: str) -> bool:
    """Whether the real path is `root` or lies below it."""
    return path == root or path.startswith(root.rstrip("/") + "/")


# ------------------------------------------------------------------ what they hold


def read_picture(path: Path) -> bytes:
    """The bytes of a JPEG or PNG. Raises `VideoError` where it is cut off, or too large to be decoded."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise VideoError(f"{path.name} cannot be read ({error.strerror})") from error
    if len(data) > MOST_BYTES:
        raise VideoError(f"{path.name} has more than {MOST_BYTES >> 20} MiB")
    size = picture_size(data)
    if size is None:
        raise VideoError(f"{path.name} is neither a JPEG nor a PNG, or is cut off")
    if size[0] * size[1] > MOST_PIXELS:
        raise VideoError(f"{path.name} claims {size[0]}x{size[1]} pixels; at most {MOST_PIXELS >> 20} Mi are decoded")
    return data


def picture_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in the header of a JPEG or PNG; None for other files, and for those cut off."""
    if data.startswith(_PNG):
        if len(data) < 24 or b"IEND" not in data[-16:]:
            return None
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    # A JPEG that is cut off decodes to a picture whose rest is grey: only its missing end mark shows it.
    if is_jpeg(data) and data.rstrip(b"\0").endswith(_JPEG_END):
        return jpeg_size(data)
    return None


def decode_frame(data: bytes, path: Path) -> np.ndarray:
    """RGB uint8 [H, W, 3]. Raises `VideoError`."""
    picture = decode_picture(np.frombuffer(data, np.uint8))
    if picture is None:
        raise VideoError(f"{path.name} cannot be decoded")
    return picture


def decode_component(data: bytes, path: Path) -> np.ndarray:
    """One component of flow: grey uint8 [H, W], the values unchanged. Raises `VideoError` for colour and 16 bits."""
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        picture = None
    if picture is None:
        raise VideoError(f"{path.name} cannot be decoded")
    if picture.dtype != np.uint8:
        raise VideoError(f"{path.name} does not have 8 bits a pixel but {8 * picture.dtype.itemsize}")
    if picture.ndim == 3:
        if (picture != picture[..., :1]).any():
            raise VideoError(f"{path.name} is a colour picture, not one component of flow in grey")
        picture = picture[..., 0]
    return picture
