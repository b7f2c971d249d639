"""Scores of another program as further streams beside a run's own.

Letters: V videos, C classes. Ids may be written in every way that `VideoNames` knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.analysis.fusion import AVERAGED, fuse
from pipelines.analysis.score_files import ScoreFile, column_order, divided, is_score_file, read_score_file
from pipelines.datasets.video_names import VideoNames
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.metrics import Scored, Table, log_probabilities
from pipelines.evaluation.scores import STREAMS, Scores
from pipelines.interface.options import Space
from pipelines.interface.wording import some


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
        source = f"{self.name}: from {', '.join(self.files)}, which holds {holds}"
        notes = [f"{source}; weight {self.weight:g}; averaged: {AVERAGED[self.space]}"]
        if self.extra:
            notes.append(f"{len(self.extra)} of its videos are not in this test, such as {self.extra[0]}")
        return notes


def read_external(place: Path, classes: Sequence[str], videos: Sequence[str] = ()) -> ScoreFile:
    """Reads the scores of another program (`read_score_file`).

    Args:
        place: FILE or FILE:ARRAY.
        classes: The run's, in whose order the columns are returned.
        videos: Ids of the test.

    Raises:
        MissingError: There is no such file, or it cannot be read.
        UsageError: It does not hold scores of these classes, or does not name its videos.
    """
    file = read_score_file(place, classes, VideoNames(videos))
    if file.videos is None:
        raise UsageError(f"{file.path} does not name its videos: give an npz file that holds `videos`, too")
    order = column_order(file.path, file.classes, file.scores.shape[1], classes)
    labels = _names(file.labels, file.classes or classes) if file.labels else None
    return replace(file, path=place, scores=file.scores[:, order], labels=labels, classes=list(classes))


def _names(labels: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The classes' names for labels that are numbers; "" where that does not tell if they count from 0 or 1."""
    if not all(label.isdecimal() for label in labels) or set(labels) <= set(classes):
        return list(labels)
    numbers = [int(label) for label in labels]
    first, last = min(numbers), max(numbers)
    if not (first == 0 and last < len(classes)) and not (first == 1 and last == len(classes)):
        return [""] * len(labels)
    return [classes[number - first] for number in numbers]


def external_of(folder: Path, scores: Scores, classes: Sequence[str]) -> ScoreFile:
    """The headline scores of a run in `folder`, as `read_external` returns those of a file. Raises `UsageError`."""
    order = column_order(folder, scores.classes, len(scores.classes), classes)
    logits = scores.streams[scores.headline].astype(np.float64)
    return ScoreFile(folder, logits[:, order], scores.videos, None, list(classes))


def external_name(place: Path) -> str:
    """The name of the other program's stream: the array's, file's or run's, which no stream of ours has."""
    path, array = divided(place)
    whole = path.stem if is_score_file(place) else str(place).partition("/")[0]
    name = (array or whole).replace("{split}", "").strip("-_. ") or "other"
    if name not in STREAMS:
        return name
    of = "file" if is_score_file(place) else "other run"
    return path.name if of == "file" and path.name not in STREAMS else f"{name} of the {of}"


def add_external(
    splits: Sequence[Scored], files: Sequence[ScoreFile], name: str, weight: float, space: Space | None
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


def _matched(scores: Scored, file: ScoreFile) -> tuple[np.ndarray, list[str]]:
    """The file's rows in the order of the test's videos: float64 [V, C]; and the ids it has beside them."""
    names = VideoNames(scores.videos)
    rows: dict[str, int] = {}
    extra = []
    for row, video in enumerate(file.videos or ()):
        test_video = names.find(video)
        if test_video is None:
            extra.append(video)
        elif test_video in rows:
            raise UsageError(f"{file.path} has two rows for {test_video}: remove one")
        else:
            rows[test_video] = row
    missing = [video for video in scores.videos if video not in rows]
    if missing:
        instead = f"; it has {some(extra)} instead" if extra else ""
        raise MissingError(
            f"{file.path} lacks {len(missing)} of the {len(scores.videos)} test videos, {some(missing)}{instead}: "
            "an id is <class>/<video>, or the video's name alone"
        )
    order = [rows[video] for video in scores.videos]
    for video, row, label in zip(scores.videos, order, scores.labels, strict=True):
        said = file.labels[row] if file.labels else ""
        if said in scores.classes and said != scores.classes[label]:
            raise UsageError(
                f"{file.path} gives {video} the label {said!r}: its classes are in another order than the run's, or "
                "its labels wrong: name the columns' classes in it (`classes`; of CSV the first row), or leave them out"
            )
    return file.scores[order], extra
