"""Stage `runs`: every run of a workspace, what it set otherwise than the others, and what it scored.

Reads names and small JSON files only; what is damaged is told, and the others are listed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.errors import MissingError
from pipelines.evaluation.headline import headline
from pipelines.evaluation.protocols import IMPORTED
from pipelines.interface import options
from pipelines.interface.wording import plural
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.storage.atomic import is_locked, read_json
from pipelines.storage.typed_json import from_json
from pipelines.storage.workspace import Workspace
from pipelines.training.differing_settings import differing_settings
from pipelines.training.metrics_log import divergence, last_update
from pipelines.training.run_config import RunConfig
from pipelines.training.runs import Run, is_archived


@dataclass(frozen=True)
class Config:
    """Settings of `runs`."""

    workspace: options.WorkspaceFolder = options.DEFAULT_WORKSPACE


@dataclass(frozen=True)
class Score:
    """What a test of a run gave: `scores/<run>/<protocol>/results.json`."""

    protocol: str
    folder: str
    stream: str
    """The one whose accuracies these are: `fused`, or the only one."""
    videos: int
    videos_sha256: str
    """Of their ids; "" where an older version wrote the results."""
    top1: float
    mean_class_accuracy: float
    unbalanced: bool
    """Whether the classes have so unequal numbers of videos that `mean_class_accuracy` is the one to look at."""
    other_data: bool
    """Whether another data set than the run's split was tested."""
    split: int
    split_set: str

    @property
    def accuracy(self) -> float:
        """The one that a report shows first."""
        return self.mean_class_accuracy if self.unbalanced else self.top1


@dataclass(frozen=True)
class InTraining:
    """How far a process is that trains a run right now."""

    step: str
    updates: int
    """That are done, by the log."""
    of: int

    def __str__(self) -> str:
        return f"{self.step}, {self.updates} of {plural(self.of, 'update')}"


@dataclass(frozen=True)
class ListedRun:
    """A run, or scores of one that lies elsewhere or was imported from another program."""

    name: str
    split: int | None
    """None where it is not known."""
    split_set: str
    """The set of splits that `split` is of; "" for the workspace's first."""
    began: str
    """When its configuration, else its last scores, were written: ISO 8601, UTC."""
    finished: tuple[str, ...]
    """The steps that are done; none where its configuration cannot be read."""
    unfinished: tuple[str, ...]
    """The steps that it was asked for and has not finished."""
    training: InTraining | None
    """None where no process trains it, as far as the system tells."""
    diverged: str
    """What was said of an unfinished step that diverged, and is to be trained otherwise; "" where none did."""
    has_best_weights: bool
    """Whether videos were held out of training, so that a step's best weights were kept beside its last."""
    origin: str
    """Where its scores come from if no run of that name is in the workspace: `imported`, or the run's folder."""
    settings: Mapping[str, str]
    """Those that are not the same in all runs, in words: `seed`, `flow bound`, `lr`."""
    scores: tuple[Score, ...]
    """The one that `report` takes first."""
    scores_are_old: bool
    """Whether weights, but those of a student beside others, were written after the last test."""
    faults: tuple[str, ...]
    """What of it cannot be read, a sentence each."""
    newest: bool = False
    best: bool = False
    """Whether no other of two or more runs that were tested on the same videos has a higher accuracy."""

    @property
    def archived(self) -> bool:
        """Whether `train --overwrite` moved it aside."""
        return is_archived(self.name)


@dataclass(frozen=True)
class Result:
    """The runs of a workspace, the newest first."""

    workspace: Path
    runs: tuple[ListedRun, ...]


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Lists the runs.

    Raises:
        MissingError: There is no such workspace.
    """
    workspace = Workspace(config.workspace)
    workspace.require()
    names = {path.name for path in workspace.runs.glob("[!.]*/")}
    for left in ("results.json", "scores.h5"):
        names |= {file.parent.parent.name for file in workspace.scores.glob(f"[!.]*/[!.]*/{left}")}
    found, configs = [], {}
    for name in sorted(names):
        one, of_run = _look_at(workspace, name)
        found.append(one)
        if of_run is not None:
            configs[name] = of_run
    settings = differing_settings(configs)
    found.sort(key=lambda one: one.began, reverse=True)
    tested_on = {one.name: _tested_on(one.scores[0], configs.get(one.name)) for one in found if one.scores}
    accuracies: dict[Any, list[float]] = {}
    for one in found:
        if one.scores:
            accuracies.setdefault(tested_on[one.name], []).append(one.scores[0].accuracy)
    best = {tested: max(values) for tested, values in accuracies.items() if len(values) > 1}
    return Result(
        config.workspace,
        tuple(
            replace(
                one,
                settings=settings.get(one.name, {}),
                newest=number == 0 and len(found) > 1,
                best=bool(one.scores) and best.get(tested_on[one.name]) == one.scores[0].accuracy,
            )
            for number, one in enumerate(found)
        ),
    )


def _tested_on(score: Score, config: RunConfig | None) -> tuple[Any, ...]:
    """The same for scores of the same videos, as far as results of older versions tell."""
    if score.videos_sha256:
        return (score.videos_sha256,)
    return config and config.split_sha256, score.split_set, score.split, score.videos, score.other_data


def _look_at(workspace: Workspace, name: str) -> tuple[ListedRun, RunConfig | None]:
    of_run, faults, config = Run(workspace.runs / name), [], None
    if of_run.folder.is_dir():
        try:
            config = of_run.config()
        except MissingError as error:
            faults.append(str(error))
    folders, origin = [], ""
    for folder in sorted((workspace.scores / name).glob("[!.]*/")):
        if (folder / "results.json").is_file():
            folders.append(folder)
        elif (folder / "scores.h5").is_file():
            faults.append(f"{folder} has no results.json: run `stres evaluate` again")
    scores = []
    if folders:
        first = headline(workspace, folders)
        for folder in (first, *(folder for folder in folders if folder != first)):
            try:
                score, of_scores = _score(folder)
            except MissingError as error:
                faults.append(str(error))
            else:
                scores.append(score)
                origin = origin or of_scores
    finished = tuple(of_run.finished()) if config else ()
    unfinished = tuple(of_run.unfinished())
    # A student beside other steps is not what a test takes.
    trained = [step for step in finished if step != "student"] or finished
    weights = [of_run.weights_file(step).stat().st_mtime_ns for step in trained]
    tested = [(folder / "results.json").stat().st_mtime_ns for folder in folders]
    dates = [of_run.config_file] if of_run.config_file.is_file() else [folder / "results.json" for folder in folders]
    newest = max((file.stat().st_mtime for file in dates or [of_run.folder] if file.exists()), default=0.0)
    return ListedRun(
        name=name,
        split=config.split if config else scores[0].split if scores else None,
        split_set=config.split_set if config else scores[0].split_set if scores else "",
        began=datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"),
        finished=finished,
        unfinished=unfinished,
        training=_in_training(of_run, config) if config else None,
        diverged=divergence(of_run.folder, unfinished),
        has_best_weights=any(replace(of_run, checkpoint="best").finished()),
        origin="" if of_run.folder.is_dir() else origin,
        settings={},
        scores=tuple(scores),
        scores_are_old=bool(tested and weights) and max(weights) > max(tested),
        faults=tuple(faults),
    ), config


def _in_training(of_run: Run, config: RunConfig) -> InTraining | None:
    unfinished = of_run.unfinished()
    if not unfinished or not is_locked(of_run.folder):
        return None
    step, updates = last_update(of_run.folder)
    if step not in unfinished:  # the first line of the next one is still to come
        step, updates = unfinished[0], 0
    of_step = next(of for name, of in config.steps.items() if name == step)
    videos = config.train_videos.count + (of_step.unlabelled.count if of_step.unlabelled else 0)
    return InTraining(step, updates, of_step.step.updates(videos))


def _score(folder: Path) -> tuple[Score, str]:
    """What `results.json` says, and `ListedRun.origin`. Raises `MissingError` where it is damaged."""
    document = read_json(folder / "results.json")
    try:
        streams = [stream for stream in ("appearance", "motion", "fused") if stream in document]
        values, balance = document[streams[-1]], document.get("balance", {})
        score = Score(
            protocol=folder.name,
            folder=str(folder),
            stream=streams[-1],
            videos=from_json(int, document["videos"], "videos"),
            videos_sha256=str(document.get("videos_sha256", "")),
            top1=from_json(float, values["top1"], "top1"),
            mean_class_accuracy=from_json(float, values["mean_class_accuracy"], "mean_class_accuracy"),
            unbalanced=bool(balance.get("unbalanced", False)),
            other_data=document.get("dataset") == "other",
            split=from_json(int, document["split"], "split"),
            split_set=str(document.get("split_set", "")),
        )
        imported = IMPORTED if document["protocol"].get(IMPORTED) else ""
        return score, str(document.get("run_folder", imported))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise MissingError(
            f"{folder / 'results.json'} is not what stres writes ({error}): run `stres evaluate` again"
        ) from error
