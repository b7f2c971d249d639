"""Scores of another program that become those of a run: which class each column is, and which video each row.

Letters: V videos, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.analysis.score_files import ScoreFile, column_order
from pipelines.datasets.split_lists import Split
from pipelines.datasets.video_names import VideoNames, plain_name, spelled_as, without_suffix
from pipelines.errors import UsageError
from pipelines.interface.wording import plural, some
from pipelines.sources.names import require_class_name


@dataclass
class MatchedRows:
    """A file's rows, with ids of videos: `scores` float64 [V, C] in the order of `classes`."""

    classes: Sequence[str]
    scores: np.ndarray
    row_of: dict[str, int] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)


def match_rows(
    file: ScoreFile,
    lines: Sequence[tuple[str, str]] | None,
    columns: Sequence[str] | None,
    split: Split | None,
    known: VideoNames,
) -> MatchedRows:
    """Finds classes and videos of a file.

    Args:
        file: What it holds.
        lines: The list's paths and labels, for files that do not name their videos.
        columns: Classes of the columns, for files that do not name them.
        split: The split lists.
        known: Their videos.

    Raises:
        UsageError: Classes or videos are unknown, contradict another or stand there twice.
    """
    names, labels, count = file.videos, file.labels, len(file.scores)
    if names is None:
        if lines is None:
            raise UsageError(f"{file.path} does not name its videos: name them by --list, in the order of its rows")
        if len(lines) != count:
            raise UsageError(
                f"--list names {plural(len(lines), 'video')}, but {file.path} has {plural(count, 'row')}: give a line "
                "for each"
            )
        names = [path for path, _ in lines]
        if labels is None and all(label for _, label in lines):
            labels = [label for _, label in lines]
    paths = [without_suffix(name) for name in names]
    columns = file.classes or columns
    width = file.scores.shape[1]
    if split:
        classes = split.classes
        meant = spelled_as(classes, plain_name)
        columns = [meant(name) or name for name in columns] if columns else None
    else:
        classes = sorted(columns or {path.parent.name for path in paths} - {""})
        if not columns and len(classes) != width:
            raise UsageError(
                f"{file.path}: nothing names the classes of its {plural(width, 'column')}: give --classes FILE, or "
                "--splits DIR"
            )
    order = column_order(file.path, columns, width, classes)
    rows = MatchedRows(classes, file.scores[:, order])
    in_file = [classes[order.index(column)] for column in range(width)]
    labelled = _label_names(file.path, labels, in_file) if labels else [""] * count
    for row, (path, label) in enumerate(zip(paths, labelled, strict=True)):
        class_name = label or path.parent.name
        if split:
            video = known.find(names[row]) or known.find(names[row], label)
            if video is None:
                rows.unknown.append(names[row])
                continue
            if label and label != video.partition("/")[0]:
                raise UsageError(
                    f"{file.path} gives {names[row]} the label {label}, but {split.source} has it as {video}: the "
                    "order of the labels or of the classes is another"
                )
        else:
            require_class_name(class_name, f"{file.path}, {names[row]}")
            if class_name not in classes:
                raise UsageError(f"{file.path}: nothing tells the class of {names[row]}: give labels, or --splits DIR")
            video = f"{class_name}/{path.name}"
        if video in rows.row_of:
            raise UsageError(f"{file.path} has two rows for {video}: remove one")
        rows.row_of[video] = row
    return rows


def _label_names(path: Path, labels: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The class of each label, which is a name or the number of a column from 0 (or from 1, if all are)."""
    meant = spelled_as(columns, plain_name)
    by_name = {label: name for label in labels if (name := meant(label)) is not None}
    unnamed = [label for label in labels if label not in by_name]
    if not unnamed:
        return [by_name[label] for label in labels]
    if by_name or not all(label.isdecimal() for label in labels):
        raise UsageError(f"{path} has labels that name no class: {some(list(dict.fromkeys(unnamed)))}")
    numbers = [int(label) for label in labels]
    start = int(min(numbers) > 0 and max(numbers) == len(columns))
    if max(numbers) - start >= len(columns):
        raise UsageError(f"{path} has the label {max(numbers)}, but {plural(len(columns), 'class')}")
    return [columns[number - start] for number in numbers]
