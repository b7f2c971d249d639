"""Scores of another program, read from CSV or npz, as further streams beside a run's own.

Letters: V videos, C classes.

CSV: a row a video, its id and a number a class. A first row that names no video names the classes of the columns, in
any order, numbers too; without one the columns stand in the order of this run's classes, or of their numbers where the
classes are numbers: column k is class k, as in the program that counted them.
npz: `videos` [V] and `scores`, `logits` or `probabilities` [V, C]; `classes` [C] where the order is another.

An id is `<class>/<video>`, with or without a video's suffix, or the video alone where no two classes share it.
"""

import contextlib
import csv
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipelines.analysis.fusion import fuse
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.metrics import Scored, log_probabilities
from pipelines.evaluation.scores import STREAMS
from pipelines.options import Space
from pipelines.sources.names import VIDEO_SUFFIXES
from pipelines.wording import plural, some

_ID_COLUMNS = ("", "video", "videos", "id", "name", "video_id", "video_name", "file", "filename", "file_name", "path")
NPZ_SCORES = ("scores", "logits", "probabilities")


@dataclass(frozen=True)
class External:
    """How the scores of another program were used."""

    name: str
    files: tuple[str, ...]
    probabilities: bool
    """Whether the files' rows are class probabilities."""
    space: Space
    """What was averaged."""
    weight: float
    """Share of the other program, 0 to 1."""
    extra: tuple[str, ...]
    """Videos of the files that are not in the test."""

    def notes(self) -> list[str]:
        """What the report says of them."""
        holds = "probabilities" if self.probabilities else "logits or other scores"
        averaged = "probabilities" if self.space == "softmax" else "logits, before softmax"
        source = f"{self.name}: from {', '.join(self.files)}, which holds {holds}"
        notes = [f"{source}; weight {self.weight:g}; averaged: {averaged}"]
        if self.extra:
            notes.append(f"{len(self.extra)} of its videos are not in this test, such as {self.extra[0]}")
        return notes


@dataclass(frozen=True)
class Table:
    """A `Scored` whose streams are not only this program's own."""

    videos: list[str]
    labels: np.ndarray
    classes: list[str]
    streams: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ExternalScores:
    """What a file holds: ids as they stand there, and float64 [V, C] in the order of the classes asked for."""

    path: Path
    videos: list[str]
    scores: np.ndarray

    @property
    def probabilities(self) -> bool:
        """Whether every row is a distribution: nothing below 0, sum 1."""
        return bool((self.scores >= 0).all() and (abs(self.scores.sum(axis=1) - 1) < 1e-3).all())


def external_name(path: Path) -> str:
    """The name of the other program's stream: the file's, which no stream of ours has."""
    stem = path.stem.replace("{split}", "").strip("-_. ") or "other"
    return path.name if stem in STREAMS else stem


def add_external(
    splits: Sequence[Scored], files: Sequence[ExternalScores], name: str, weight: float, space: Space | None
) -> tuple[list[Table], External]:
    """Adds two streams to each split: the file's, called `name`, and ours fused with it, which comes last.

    Args:
        splits: Our scores of each split.
        files: The other program's, one for each split.
        name: How its stream is called.
        weight: Its share, 0 to 1.
        space: What is averaged; None: probabilities where the files hold them, else logits with whatever numbers the
            files hold, as the papers add IDT's classifiers.

    Raises:
        MissingError: Videos of the test are not in the file.
    """
    probabilities = all(file.probabilities for file in files)
    chosen: Space = space or ("softmax" if probabilities else "logits")
    tables: list[Table] = []
    extra: list[str] = []
    for scores, file in zip(splits, files, strict=True):
        theirs, unused = _matched(scores, file)
        if probabilities and chosen == "softmax":
            theirs = log_probabilities(theirs)
        headline, ours = list(scores.streams.items())[-1]
        streams = {**scores.streams, name: theirs, f"{headline} + {name}": fuse(theirs, ours, weight, chosen)}
        tables.append(Table(scores.videos, scores.labels, scores.classes, streams))
        extra += [video for video in unused if video not in extra]
    paths = dict.fromkeys(str(file.path) for file in files)
    return tables, External(name, tuple(paths), probabilities, chosen, weight, tuple(extra))


def _matched(scores: Scored, file: ExternalScores) -> tuple[np.ndarray, list[str]]:
    """The file's rows in the order of the test's videos: float64 [V, C]; and the ids it has beside them."""
    names = Counter(PurePosixPath(video).name for video in scores.videos)
    index_of: dict[str, int] = {}
    for index, video in enumerate(scores.videos):
        index_of[video] = index
        if names[PurePosixPath(video).name] == 1:
            index_of.setdefault(PurePosixPath(video).name, index)
    rows: dict[int, int] = {}
    extra = []
    for row, video in enumerate(file.videos):
        test_video = next((index_of[form] for form in _forms(video) if form in index_of), None)
        if test_video is None:
            extra.append(video)
        elif test_video in rows:
            raise UsageError(f"{file.path} has two rows for {scores.videos[test_video]}: remove one")
        else:
            rows[test_video] = row
    missing = [video for index, video in enumerate(scores.videos) if index not in rows]
    if missing:
        instead = f"; it has {some(extra)} instead" if extra else ""
        raise MissingError(
            f"{file.path} lacks {len(missing)} of the {len(scores.videos)} test videos, {some(missing)}{instead}: "
            "an id is <class>/<video>, or the video's name alone"
        )
    return file.scores[[rows[index] for index in range(len(scores.videos))]], extra


def _forms(video: str) -> Iterable[str]:
    plain = video.strip().replace("\\", "/").removeprefix("./")
    yield plain
    if Path(plain).suffix.lower() in VIDEO_SUFFIXES:
        yield plain.rpartition(".")[0]


# ------------------------------------------------------------------ reading


def read_external(path: Path, classes: Sequence[str], videos: Iterable[str] = ()) -> ExternalScores:
    """Reads the scores of another program.

    Args:
        path: A .csv or .npz file.
        classes: Our classes, in whose order the columns are returned.
        videos: Ids of the test, which tell a row of scores from a row of class names that are numbers.

    Raises:
        MissingError: There is no such file, or it cannot be read.
        UsageError: It does not hold scores of these classes.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".npz"):
        raise UsageError(f"--with {path}: {path.suffix!r} is not a known kind of file, give .csv or .npz")
    if not path.is_file():
        raise MissingError(f"--with {path}: there is no such file")
    if suffix == ".csv":
        known = {form for video in videos for form in (video, PurePosixPath(video).name)}
        external = _read_csv(path, classes, known)
    else:
        external = _read_npz(path, classes)
    if not external.videos:
        raise UsageError(f"{path} holds no scores")
    broken = [video for video, row in zip(external.videos, external.scores, strict=True) if not np.isfinite(row).all()]
    if broken:
        raise UsageError(f"{path}: the scores of {some(broken)} are not finite numbers")
    return external


def _read_csv(path: Path, classes: Sequence[str], known: Collection[str]) -> ExternalScores:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise MissingError(f"{path} cannot be read as CSV ({error})") from error
    names = None
    if rows and _names_classes(rows[0][1], classes, known):
        names = [cell.strip() for cell in rows.pop(0)[1][1:]]
    order = _column_order(path, names, len(names) if names else len(rows[0][1]) - 1 if rows else 0, classes)
    scores = np.empty((len(rows), len(order)))
    for values, (line, row) in zip(scores, rows, strict=True):
        try:
            numbers = [float(cell) for cell in row[1:]]
        except ValueError as error:
            raise UsageError(f"{path}, line {line}: {error}") from None
        if len(numbers) != len(order):
            given = plural(len(numbers), "number")
            raise UsageError(f"{path}, line {line}: {given} after the video's id, not {len(order)}")
        values[:] = numbers
    return ExternalScores(path, [row[0] for _, row in rows], scores[:, order])


def _names_classes(row: Sequence[str], classes: Sequence[str], known: Collection[str]) -> bool:
    """Whether a CSV file's first row names its columns, which may be numbers."""
    if any(form in known for form in _forms(row[0])):
        return False
    cells = [cell.strip() for cell in row[1:]]
    if sorted(cells) == sorted(classes) or row[0].strip().casefold() in _ID_COLUMNS:
        return True
    for cell in cells:
        with contextlib.suppress(ValueError):
            float(cell)
            return False  # a number: the row holds scores
    return True


def _read_npz(path: Path, classes: Sequence[str]) -> ExternalScores:
    try:
        # Opened here, since of a broken archive NumPy leaves its own file open; nothing in it is executed.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in ("videos", "classes", *NPZ_SCORES) if name in file}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise MissingError(f"{path} cannot be read as npz ({error})") from error
    found = [name for name in NPZ_SCORES if name in arrays]
    if "videos" not in arrays or len(found) != 1:
        raise UsageError(
            f"{path} holds {', '.join(sorted(arrays)) or 'none of the arrays'}: it must hold `videos` and one of "
            f"{', '.join(NPZ_SCORES)}"
        )
    videos, values = [_text(name) for name in arrays["videos"].ravel()], arrays[found[0]]
    if values.dtype.kind not in "fiu" or values.ndim != 2 or len(values) != len(videos):
        raise UsageError(
            f"{path}: {found[0]} is {values.dtype} {values.shape}, not numbers of {plural(len(videos), 'video')}"
        )
    names = [_text(name) for name in arrays["classes"].ravel()] if "classes" in arrays else None
    order = _column_order(path, names, values.shape[1], classes)
    return ExternalScores(path, videos, values.astype(np.float64)[:, order])


def _text(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _column_order(path: Path, names: Sequence[str] | None, columns: int, classes: Sequence[str]) -> list[int]:
    """The column of each class. Raises `UsageError` where the columns are not these classes."""
    if names is None:
        if columns != len(classes):
            raise UsageError(f"{path} has scores for {plural(columns, 'class')}, the run has {len(classes)}")
        numbers = [int(name) for name in classes if name.isdecimal()]
        if sorted(numbers) in ([*range(columns)], [*range(1, columns + 1)]):
            return [number - min(numbers) for number in numbers]
        return list(range(columns))
    missing = [name for name in classes if name not in names]
    unknown = [name for name in names if name not in classes]
    if missing or unknown or len(names) != len(classes) or columns != len(classes):
        parts = [f"lacks {some(missing)}"] * bool(missing) + [f"has the unknown {some(unknown)}"] * bool(unknown)
        raise UsageError(f"{path} has other classes than the run: it {' and '.join(parts) or 'names one twice'}")
    return [list(names).index(name) for name in classes]
