"""Stage `import-scores`: scores of another program as those of a run, for every report, comparison and fusion.

Letters: V videos, C classes. Neither frames nor flow nor weights are needed. What it leaves is what `evaluate` leaves,
`scores/<name>/imported/`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipelines.datasets.video_names import VideoNames
from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.interface.wording import plural
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.storage.provenance import sha256_of
from pipelines.storage.workspace import Workspace, is_plain_name

if TYPE_CHECKING:
    from pipelines.analysis.score_rows import MatchedRows
    from pipelines.datasets.split_lists import Split
    from pipelines.evaluation.scores import Scores

_STREAMS = "Scores of each stream"
_VIDEOS = "Videos and classes"
_FILE = Option(metavar="FILE[:ARRAY]", group=_STREAMS)


@dataclass(frozen=True)
class Config:
    """Settings of `import-scores`."""

    workspace: options.WorkspaceFolder
    name: Annotated[str, Option(metavar="NAME")]
    """Name of the run."""
    appearance: Annotated[Path | None, _FILE] = None
    """Scores of the appearance stream (RGB): CSV, npz, npy or HDF5; of several arrays in the file, which."""
    motion: Annotated[Path | None, _FILE] = None
    """Scores of the motion stream (flow)."""
    fused: Annotated[
        Path | None, Option(metavar="FILE[:ARRAY]", group=_STREAMS, default="the two streams averaged")
    ] = None
    """Scores of the whole network, or of a program that has no streams."""
    fusion_weight: Annotated[
        float | None, Option(metavar="SHARE", minimum=0, maximum=1, group=_STREAMS, default="0.5")
    ] = None
    """Weight of the appearance stream in the average."""
    split: Annotated[int, Option(metavar="N", minimum=1, group=_VIDEOS)] = 1
    """Number of the split that was tested."""
    splits: Annotated[
        Path | None, Option(metavar="DIR|NAME", group=_VIDEOS, default="the workspace's first set, if it has any")
    ] = None
    """Split lists to check the videos against: a folder (UCF101's or HMDB51's), or a set of the workspace."""
    list: Annotated[Path | None, Option(metavar="FILE", group=_VIDEOS)] = None
    """Videos of the rows in order, one a line (path, or path label), for files that do not name them."""
    classes: Annotated[
        Path | None, Option(metavar="FILE", group=_VIDEOS, default="in the file, else sorted as in the split lists")
    ] = None
    """Classes of the columns in order, one a line, or classInd.txt."""
    overwrite: bool = False
    """Replace scores that were imported under this name."""
    dry_run: bool = False
    """Check the files; write nothing."""

    def __post_init__(self) -> None:
        options.check(self)
        if not is_plain_name(self.name):
            raise UsageError(f"--name {self.name!r} is not a plain folder name")
        if not self.places:
            raise UsageError("there is nothing to import: give --appearance, --motion or --fused")
        if self.fusion_weight is not None and set(self.places) != {"appearance", "motion"}:
            raise UsageError("--fusion-weight is for --appearance and --motion without --fused: leave it out")

    @property
    def places(self) -> dict[str, Path]:
        """FILE or FILE:ARRAY of each stream."""
        named = {"appearance": self.appearance, "motion": self.motion, "fused": self.fused}
        return {stream: place for stream, place in named.items() if place is not None}


@dataclass(frozen=True)
class Result:
    """What was found and written."""

    name: str
    folder: str
    split: int
    videos: int
    classes: int
    top1: dict[str, float]
    """Of each stream, as a fraction."""
    holds: dict[str, str]
    """What the file of each stream holds."""
    checked_against: str
    """The split lists; "" for none."""
    missing: tuple[str, ...]
    """Test videos without scores."""
    ignored: dict[str, tuple[str, ...]]
    """Rows that are no test videos, by the reason."""
    constant: tuple[str, ...]
    """Videos for which a stream has the same score for every class."""


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Checks the files, and writes their scores as those of the test videos.

    Raises:
        MissingError: A file is missing or cannot be read, or holds no test video.
        UsageError: It does not hold scores of these classes, contradicts itself or the split lists, or there is a
            run of that name.
        StorageError: Writing fails.
    """
    import numpy as np

    from pipelines.analysis.fusion import fuse
    from pipelines.analysis.score_files import read_score_file
    from pipelines.analysis.score_rows import match_rows
    from pipelines.evaluation.metrics import log_probabilities, stream_metrics
    from pipelines.evaluation.protocols import IMPORTED
    from pipelines.evaluation.scores import Scores
    from pipelines.sources.class_names import read_class_names
    from pipelines.sources.lists import read_lines

    workspace = Workspace(config.workspace)
    folder = workspace.scores / config.name / IMPORTED
    _require_free(workspace, folder, config.overwrite)
    split = _split(workspace, config)
    columns = [name for _, name in sorted(read_class_names(config.classes)[0].items())] if config.classes else None
    lines = read_lines(config.list) if config.list else None
    known_classes = columns or (split.classes if split else ())
    known = VideoNames((*split.train, *split.test, *split.held_apart) if split else ())
    files = {stream: read_score_file(place, known_classes, known) for stream, place in config.places.items()}
    if lines is not None and all(file.videos is not None for file in files.values()):
        raise UsageError(f"--list {config.list} is for files that do not name their videos, but these do: leave it out")
    tables = {stream: match_rows(file, lines, columns, split, known) for stream, file in files.items()}

    first, *others = tables.values()
    classes = list(first.classes)
    if any(list(table.classes) != classes for table in others):
        raise UsageError("the files have other classes than one another: give files of one data set")
    common = [video for video in first.row_of if all(video in table.row_of for table in others)]
    wanted = split.test if split else list(dict.fromkeys(video for table in tables.values() for video in table.row_of))
    scored = set(common)
    videos = [video for video in wanted if video in scored]
    if not videos:
        raise MissingError(
            f"{', '.join(map(str, config.places.values()))}: none of {plural(len(common), 'video')} that every file "
            f"has is a test video of split {config.split}{f' of {split.source}' if split else ''}"
        )
    taken = {stream: table.scores[[table.row_of[video] for video in videos]] for stream, table in tables.items()}
    constant = [video for row, video in enumerate(videos) if any(np.ptp(x[row]) == 0 for x in taken.values())]
    logits = {s: log_probabilities(x) if files[s].probabilities else x for s, x in taken.items()}
    protocol: dict[str, Any] = {IMPORTED: True}
    if set(logits) == {"appearance", "motion"}:
        weight = 0.5 if config.fusion_weight is None else config.fusion_weight
        space: options.Space = "softmax" if all(file.probabilities for file in files.values()) else "logits"
        logits["fused"] = fuse(logits["appearance"], logits["motion"], weight, space)
        protocol |= {"fusion_weight": weight, "fusion_space": space}
    scores = Scores(
        videos,
        np.array([classes.index(video.partition("/")[0]) for video in videos], dtype=np.int64),
        classes,
        sources=None,
        **{stream: values.astype(np.float32) for stream, values in logits.items()},
    )
    missing = [video for video in wanted if video not in scored]
    if not config.dry_run:
        _write(config, folder, scores, protocol, missing)
    return Result(
        name=config.name,
        folder=str(folder),
        split=config.split,
        videos=len(videos),
        classes=len(classes),
        top1={stream: stream_metrics([scores], stream).top1 for stream in scores.streams},
        holds={s: "probabilities" if file.probabilities else "logits or other scores" for s, file in files.items()},
        checked_against=split.source if split else "",
        missing=tuple(missing),
        ignored=_ignored(split, common, tables.values()) if split else {},
        constant=tuple(constant),
    )


def _ignored(split: "Split", common: Sequence[str], tables: Iterable["MatchedRows"]) -> dict[str, tuple[str, ...]]:
    """The videos of the files that are not tested, by the reason."""
    training, apart = set(split.train), set(split.held_apart)
    reasons = {
        "for training": tuple(video for video in common if video in training),
        "in no side of the split": tuple(video for video in common if video in apart),
        "in no list": tuple(dict.fromkeys(name for table in tables for name in table.unknown)),
    }
    return {reason: videos for reason, videos in reasons.items() if videos}


def _write(config: Config, folder: Path, scores: "Scores", protocol: Mapping[str, Any], missing: list[str]) -> None:
    from pipelines.analysis.score_files import divided
    from pipelines.evaluation.metrics import results_document
    from pipelines.evaluation.protocols import IMPORTED
    from pipelines.evaluation.scores import write_scores
    from pipelines.storage.atomic import remove_left_over_temporary_files, require_writable, write_json

    require_writable(folder)
    remove_left_over_temporary_files(folder)
    attributes: dict[str, Any] = {"run": config.name, "split": config.split, "step": IMPORTED, **protocol}
    for stream, place in config.places.items():
        attributes[f"{stream}_from"] = str(place)
        attributes[f"{stream}_from_sha256"] = sha256_of(divided(place)[0])
    results = results_document(protocol, config.split, config.name, scores)
    write_scores(folder / "scores.h5", scores, attributes)
    write_json(folder / "results.json", results | {"step": IMPORTED, "missing": missing, "failed": []})


def _require_free(workspace: Workspace, folder: Path, overwrite: bool) -> None:
    name = folder.parent.name
    others = [path.name for path in folder.parent.glob("*/results.json") if path.parent != folder]
    if (workspace.runs / name).exists() or others:
        raise UsageError(f"--name {name}: there is a run of that name, choose another")
    if (folder / "results.json").exists() and not overwrite:
        raise UsageError(f"--name {name}: scores were imported under that name, choose another or add --overwrite")


def _split(workspace: Workspace, config: Config) -> "Split | None":
    from pipelines.datasets.split_lists import read_lists
    from pipelines.datasets.splits import sets_of_splits

    sets = sets_of_splits(workspace)
    folder = sets.get(str(config.splits or ""), config.splits)
    if folder is None:
        return None
    found = {split.number: split for split in read_lists(folder)}
    if config.split not in found:
        raise UsageError(f"{folder} has no split {config.split}: give one of {', '.join(map(str, found))}")
    return found[config.split]
