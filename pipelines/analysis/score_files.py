"""Scores that another program left in a file: CSV, npz, npy or HDF5.

Letters: V videos, C classes.

CSV: a row a video, its id and a number a class; the second column may be the label (a class's name, or a column that a
first row calls `label`). A first row that names no video names the classes of the columns, in any order, numbers too.
Columns are separated by commas, or as spreadsheets of many languages have it by semicolons, with decimal commas.
npz and HDF5 (data sets; of attributes only `classes`): scores [V, C], `videos` or `names` [V], and if there are any
`labels` [V] and `classes` [C]. Of several arrays of scores `FILE:ARRAY` says which.
npy: scores [V, C] alone.
"""

import contextlib
import csv
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.datasets.video_names import VideoNames
from pipelines.errors import MissingError, UsageError
from pipelines.interface.wording import plural, some
from pipelines.storage.hdf5 import damaged, open_file, require_own_data
from pipelines.storage.placeholders import placeholder_in

KINDS = (".csv", ".npz", ".npy", ".h5", ".hdf5")
_PICKLES = (".pkl", ".pickle", ".pth", ".pt")
_PICKLE = "as a pickle, which can run code when it is opened: save it with numpy.savez(FILE, videos=..., scores=...)"
_ID_COLUMNS = ("", "video", "videos", "id", "name", "video_id", "video_name", "file", "filename", "file_name", "path")
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "true", "target")
_VIDEOS = ("videos", "names")
_BESIDE = (*_VIDEOS, "labels", "classes")
_USUAL = ("scores", "logits", "probabilities")
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ScoreFile:
    """What a file holds, as it stands there."""

    path: Path
    scores: np.ndarray
    """Float64 [V, C], finite."""
    videos: list[str] | None
    labels: list[str] | None
    """Names of classes, or their numbers as text."""
    classes: list[str] | None
    """Of the columns."""

    @property
    def distributions(self) -> np.ndarray:
        """Whether each row is a distribution, nothing below 0 and sum 1: bool [V]."""
        return (self.scores >= 0).all(axis=1) & (abs(self.scores.sum(axis=1) - 1) < _SUM_TOLERANCE)

    @property
    def probabilities(self) -> bool:
        """Whether every row is a distribution."""
        return bool(self.distributions.all())


def divided(place: Path) -> tuple[Path, str]:
    """`FILE:ARRAY` as the file and the name of the array, which is "" where none is named."""
    text, _, array = str(place).rpartition(":")
    return (Path(text), array) if text and Path(text).suffix.lower() in KINDS else (place, "")


def is_score_file(place: Path) -> bool:
    """Whether `place` is FILE or FILE:ARRAY rather than the name of a run."""
    path = divided(place)[0]
    return path.suffix.lower() in (*KINDS, *_PICKLES) or path.is_file()


def read_score_file(place: Path, classes: Collection[str] = (), videos: VideoNames | None = None) -> ScoreFile:
    """Reads the scores of another program.

    Args:
        place: FILE or FILE:ARRAY.
        classes: Names that classes may have, which tell a row of class names that are numbers from one of scores.
        videos: Known videos, which do so too.

    Raises:
        MissingError: There is no such file, or it cannot be read.
        UsageError: It does not hold scores of videos.
    """
    path, array = divided(place)
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise UsageError(f"{path} is stored {_PICKLE}")
    if suffix not in KINDS:
        raise UsageError(f"{path}: {path.suffix!r} is not a known kind of file, give {', '.join(KINDS)}")
    if not path.is_file():
        raise MissingError(f"{path}: there is no such file")
    if told := placeholder_in(path):
        raise MissingError(f"{path} cannot be read: {told}")
    if suffix == ".csv":
        if array:
            raise UsageError(f"{place}: a CSV file holds one table, leave :{array} out")
        found = _read_csv(path, classes, videos)
    else:
        found = _of_arrays(path, _read_hdf5(path) if suffix in (".h5", ".hdf5") else _read_numpy(path, array), array)
    if not len(found.scores):
        raise UsageError(f"{path} holds no scores")
    names = found.videos or [f"row {row}" for row in range(1, len(found.scores) + 1)]
    with np.errstate(over="ignore"):  # they are stored as float32
        finite = np.isfinite(found.scores.astype(np.float32)).all(axis=1)
    if not finite.all():
        broken = [names[row] for row in np.flatnonzero(~finite)]
        raise UsageError(f"{path}: the scores of {some(broken)} are not finite numbers")
    odd = np.flatnonzero(~found.distributions)
    if len(odd) and (array == "probabilities" or len(odd) < len(found.scores) / 2):
        raise UsageError(
            f"{path}: {plural(len(odd), 'row')} of {len(found.scores)}, such as that of {names[odd[0]]}, are not "
            f"probabilities (sum {found.scores[odd[0]].sum():.4g}) although the others are: correct them"
        )
    return found


# ------------------------------------------------------------------ CSV


def _read_csv(path: Path, classes: Collection[str], known: VideoNames | None) -> ScoreFile:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = _separator(next((line for line in file if line.strip()), ""))
            file.seek(0)
            rows = [(number, row) for number, row in enumerate(csv.reader(file, delimiter=separator), 1) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise MissingError(f"{path} cannot be read as CSV ({error})") from error
    names, start = None, 1
    if rows and _names_classes(rows[0][1], classes, known):
        names = [cell.strip() for cell in rows.pop(0)[1][1:]]
        if names and names[0].casefold() in _LABEL_COLUMNS and names[0] not in classes:
            names, start = names[1:], 2
    elif rows and len(rows[0][1]) > 2 and not _is_number(rows[0][1][1]):
        start = 2
    _refuse_row_numbers(path, [row for _, row in rows], known)
    width = len(names) if names is not None else len(rows[0][1]) - start if rows else 0
    scores = np.empty((len(rows), width))
    commas = points = 0  # in which lines numbers first have them
    for values, (line, row) in zip(scores, rows, strict=True):
        try:
            numbers = [_number(cell) for cell in row[start:]]
        except ValueError as error:
            raise UsageError(f"{path}, line {line}: {error}") from None
        if len(numbers) != width:
            before = "id and label" if start == 2 else "id"
            hint = ": separate columns by semicolons where numbers have decimal commas"
            raise UsageError(
                f"{path}, line {line}: {plural(len(numbers), 'number')} after the video's {before}, not {width}"
                f"{hint if len(numbers) == 2 * width else ''}"
            )
        values[:] = numbers
        commas = commas or (line if any("," in cell for cell in row[start:]) else 0)
        points = points or (line if any("." in cell for cell in row[start:]) else 0)
    if commas and points:
        raise UsageError(
            f"{path}: numbers have decimal commas in line {commas} and points in line {points}: write all in one way"
        )
    labels = [row[1].strip() for _, row in rows] if start == 2 else None
    return ScoreFile(path, scores, [row[0] for _, row in rows], labels, names)


def _refuse_row_numbers(path: Path, rows: Sequence[Sequence[str]], known: VideoNames | None) -> None:
    """Raises `UsageError` where the rows are numbered before their videos, as pandas does."""
    if known is None or not all(row[0].strip().isdecimal() and len(row) > 1 for row in rows):
        return
    if any(known.matching(row[1]) for row in rows) and not any(known.matching(row[0]) for row in rows):
        raise UsageError(
            f"{path}: its first column numbers the rows, and the videos stand in the second: leave the first out (in "
            "pandas to_csv(..., index=False))"
        )


def _separator(line: str) -> str:
    """What separates the columns of a CSV file whose first line this is: the comma, unless another makes it a row of
    names or numbers."""
    for separator in (";", "\t"):
        first, *others = next(csv.reader([line], delimiter=separator)) or [""]
        if others and ("," not in line or _is_number(others[-1]) or first.strip().casefold() in _ID_COLUMNS):
            return separator
    return ","


def _names_classes(row: Sequence[str], classes: Collection[str], known: VideoNames | None) -> bool:
    """Whether a CSV file's first row names its columns, which may be numbers."""
    if known is not None and known.matching(row[0]):
        return False
    cells = [cell.strip() for cell in row[1:]]
    if cells and cells[0].casefold() in _LABEL_COLUMNS and cells[0] not in classes:
        cells = cells[1:]
    if (cells and sorted(cells) == sorted(classes)) or row[0].strip().casefold() in _ID_COLUMNS:
        return True
    # A number: the row holds scores, before which a label may stand.
    return not any(map(_is_number, cells))


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        _number(text)
        return True
    return False


def _number(text: str) -> float:
    """The number in a cell, maybe with a decimal comma. Raises `ValueError`."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


# ------------------------------------------------------------------ arrays


def _read_numpy(path: Path, array: str) -> dict[str, Any]:
    try:
        # Opened here, since of a broken archive NumPy leaves its own file open; nothing in it is executed.
        with path.open("rb") as opened:
            if path.suffix.lower() == ".npy":
                return {"scores": np.load(opened, allow_pickle=False)}
            with np.load(opened, allow_pickle=False) as file:
                wanted = {array, *_BESIDE} & set(file) if array in file else set(file)
                return {name: file[name] for name in file if name in wanted}
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise MissingError(f"{path} holds arrays of Python objects, stored {_PICKLE}") from error
        raise MissingError(f"{path} cannot be read as {path.suffix[1:].lower()} ({error})") from error


def _read_hdf5(path: Path) -> dict[str, Any]:
    with open_file(path) as file:
        with damaged(path):
            names = list(file)
        require_own_data(file, names, path)
        with damaged(path):
            arrays = {name: file[name].asstr()[:] if file[name].dtype.kind == "O" else file[name][()] for name in names}
            if "classes" in file.attrs:
                arrays.setdefault("classes", np.asarray(file.attrs["classes"]))
    return arrays


def _of_arrays(path: Path, arrays: Mapping[str, Any], array: str) -> ScoreFile:
    tables = [name for name, values in arrays.items() if np.ndim(values) == 2 and values.dtype.kind in "fiu"]
    usual = [name for name in tables if name in _USUAL]
    if array and array not in arrays:
        raise UsageError(f"{path} has no array {array!r}: it holds {', '.join(arrays)}")
    if not array:
        if len(candidates := usual or tables) != 1:
            what = f"several tables ({', '.join(candidates)})" if candidates else f"no table ({', '.join(arrays)})"
            raise UsageError(
                f"{path} holds {what}: it must hold numbers [videos, classes]"
                + (f", of which {path.name}:{candidates[0]} takes one" if candidates else " called `scores`")
            )
        array = candidates[0]
    scores = arrays[array]
    texts = {name: [_text(value) for value in np.ravel(arrays[name])] for name in _BESIDE if name in arrays}
    videos = next((texts[name] for name in _VIDEOS if name in texts), None)
    for name, count in (("labels", len(scores)), ("classes", scores.shape[-1] if np.ndim(scores) == 2 else 0)):
        if name in texts and array in tables and len(texts[name]) != count:
            raise UsageError(f"{path}: there are {len(texts[name])} {name}, but {array} is {scores.shape}")
    if array not in tables or (videos is not None and len(videos) != len(scores)):
        wanted = "[videos, classes]" if videos is None else f"of {plural(len(videos), 'video')}"
        raise UsageError(f"{path}: {array} is {scores.dtype} {scores.shape}, not numbers {wanted}")
    return ScoreFile(path, scores.astype(np.float64), videos, texts.get("labels"), texts.get("classes"))


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


# ------------------------------------------------------------------ columns


def column_order(path: Path, names: Sequence[str] | None, columns: int, classes: Sequence[str]) -> list[int]:
    """The column of each of `classes`: those of the same `names`; without names, columns are in the order of the
    classes, or of their numbers where these count from 0 or 1.

    Raises `UsageError` where the columns are not these classes.
    """
    if names is None:
        if columns != len(classes):
            raise UsageError(f"{path} has scores for {plural(columns, 'class')}, not for {len(classes)}")
        numbers = [int(name) for name in classes if name.isdecimal()]
        if sorted(numbers) in ([*range(columns)], [*range(1, columns + 1)]):
            return [number - min(numbers) for number in numbers]
        return list(range(columns))
    missing = [name for name in classes if name not in names]
    unknown = [name for name in names if name not in classes]
    if missing or unknown or len(names) != len(classes) or columns != len(classes):
        parts = [f"lacks {some(missing)}"] * bool(missing) + [f"has the unknown {some(unknown)}"] * bool(unknown)
        raise UsageError(f"{path} has other classes: it {' and '.join(parts) or 'names one twice'}")
    return [list(names).index(name) for name in classes]
