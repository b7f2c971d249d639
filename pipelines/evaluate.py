"""Stage: tests a run on the test videos of its split and saves every video's scores.

Reads `runs/<name>/`, `frames/` and `flow/`; leaves `scores/<run>/<protocol>/scores.h5` and `results.json`.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipelines import options
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.videos import TestVideos, find_test_videos
from pipelines.options import Option, TemporalName, ViewName
from pipelines.runtime.progress import OnProgress, ignore_progress, note
from pipelines.runtime.ranks import ranks
from pipelines.storage.atomic import remove_left_over_temporary_files, require_writable, write_json
from pipelines.storage.failures import Failure, record_outcomes
from pipelines.training.recipes import Step
from pipelines.training.run_config import RunConfig
from pipelines.training.runs import Run, choose_run, load_network, recipe_of, scores_folder
from pipelines.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.evaluation.estimation import Estimate, Measured
    from pipelines.evaluation.run import Logits
    from pipelines.evaluation.scores import Scores


@dataclass(frozen=True)
class Config:
    """Settings of `evaluate`."""

    workspace: options.WorkspaceFolder
    run: options.RunOrFolder = None
    step: options.UsedNetwork = None
    crops: Annotated[int, Option(metavar="N", minimum=1)] = 25
    """Frames per video, spaced evenly (25 in the paper)."""
    views: Annotated[ViewName | tuple[ViewName, ...], Option(metavar="NAME[,NAME]")] = "full"
    """full (whole frames, as in the paper), center, 3, 5, or 10 crops (5 and their mirror images), or several in one
    pass."""
    mirror: Annotated[bool | None, Option(default="only with full and 10")] = None
    """Also score the mirror images."""
    temporal: Annotated[TemporalName | tuple[TemporalName, ...], Option(metavar="NAME[,NAME]")] = "sequence"
    """sequence (all frames at once, as in the paper), windows (as long as in training), or both in one pass."""
    recalibrate_bn: Annotated[int, Option(metavar="N", minimum=0, group=options.RARELY)] = 0
    """Re-estimate the batch-norm statistics on N training videos under this protocol (0: off)."""
    device: options.DeviceName = "auto"
    precision: options.TestPrecision = "fp32"
    workers: options.LoaderWorkers = 0
    force: Annotated[bool, Option(group=options.RARELY)] = False
    """Accept flow that was made with other settings than in training."""
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        options.check(self)
        if "10" in self.all_views and self.mirror is False:
            raise UsageError("--views 10 is five crops and their mirrors: without mirrors it is --views 5")
        if self.recalibrate_bn and len(self.all_views) * len(self.all_temporals) > 1:
            raise UsageError(
                f"--recalibrate-bn {self.recalibrate_bn} fits the network to one protocol: give one --views and one "
                f"--temporal instead of {','.join(self.all_views)} and {','.join(self.all_temporals)}"
            )

    @property
    def all_views(self) -> tuple[ViewName, ...]:
        return self.views if isinstance(self.views, tuple) else (self.views,)

    @property
    def all_temporals(self) -> tuple[TemporalName, ...]:
        return self.temporal if isinstance(self.temporal, tuple) else (self.temporal,)

    def protocols(self, step: str) -> list[Protocol]:
        """Every combination of views and cuts over time: whole frames and ten crops come with mirrors unless told
        otherwise."""
        return [
            Protocol(
                step,
                self.crops,
                views,
                self.mirror if self.mirror is not None else views in ("full", "10"),
                temporal,
                self.recalibrate_bn,
            )
            for views in self.all_views
            for temporal in self.all_temporals
        ]

    def protocol(self, step: str) -> Protocol:
        """The first of them."""
        return self.protocols(step)[0]


@dataclass(frozen=True)
class Evaluation:
    """One protocol: where its scores lie, and `results`, the content of its `results.json`."""

    folder: Path
    results: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What was left, one evaluation a protocol in the order of `Config.protocols`.

    missing_videos  ids of the test videos that have no frames or no flow
    failed          how many others could not be read (rows of `failures.csv`)
    estimate        of a dry run, which leaves nothing and has no `evaluations`
    left_out        of another data set than the run's split: classes that the run does not know, with their videos
    """

    run: str
    evaluations: list[Evaluation]
    missing_videos: list[str]
    failed: int
    seconds: float
    estimate: "Estimate | None" = None
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Of the first protocol."""
        return self.evaluations[0].folder

    @property
    def results(self) -> dict[str, Any]:
        """Of the first protocol."""
        return self.evaluations[0].results


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Scores every test video of the run's split once; under torchrun the ranks share them, and rank 0 writes. A
    dry run scores some of them, on rank 0, and writes nothing.

    Raises `MissingError` where run, frames or flow are missing, `UsageError` where the workspace's flow contradicts
    what the run was trained with, or the network cannot be tested as asked.
    """
    from pipelines.evaluation.estimation import measure
    from pipelines.evaluation.run import Samples, recalibrate, score_videos
    from pipelines.evaluation.scoring import Scorer, shortest_window
    from pipelines.runtime.devices import device_for

    started = time.monotonic()
    workspace = Workspace(config.workspace)
    task = ranks().broadcast_from_rank0(lambda: _choose(workspace, config))
    device = device_for(config.device, config.precision)
    network = load_network(task.run, task.step)
    shortest = shortest_window(network)
    protocols = [(p, p.windows(task.recipe.frames, shortest, task.run.name)) for p in task.protocols]
    test = ranks().broadcast_from_rank0(
        lambda: find_test_videos(workspace, task.run, task.config, config.force, write=not config.dry_run)
    )
    if not ranks().is_first:
        on_progress = ignore_progress
    if task.warning:
        on_progress(note(task.warning))
    test.tell(on_progress)
    if not config.dry_run:
        ranks().broadcast_from_rank0(lambda: _require_writable(workspace, task, test))
    samples = Samples.of(config.crops, task.config.size, task.recipe.augmentation, config.workers, device)
    if config.recalibrate_bn and not config.dry_run:
        recalibrate(network, samples, *protocols[0], test.training, task.run.name, on_progress)
    scorer = Scorer(network, device, config.precision)
    if config.dry_run:
        cost = ranks().broadcast_from_rank0(
            lambda: _estimate(workspace, config, task, test, measure(scorer, samples, protocols, test, on_progress))
        )
        return Result(task.run.name, [], test.missing, 0, time.monotonic() - started, cost)
    logits, failures = score_videos(scorer, samples, protocols, test, on_progress)
    return ranks().broadcast_from_rank0(lambda: _leave(workspace, config, task, test, logits, failures, started))


# ------------------------------------------------------------------ the network under test


@dataclass(frozen=True)
class _Task:
    """A run, one of its networks (`step`), and how that is tested.

    warning   what is unexpected about the choice of the run; empty where nothing is
    scores    the folder of its scores (`scores_folder`)
    """

    run: Run
    config: RunConfig
    step: str
    protocols: list[Protocol]
    warning: str
    scores: Path

    @property
    def recipe(self) -> Step:
        """How the network was trained; of late fusion, the motion stream."""
        return recipe_of(self.config, self.step)


def _choose(workspace: Workspace, config: Config) -> _Task:
    chosen = choose_run(workspace, config.run, config.step)
    run, step = chosen.run, chosen.step
    return _Task(run, run.config(), step, config.protocols(step), chosen.warning, scores_folder(workspace, run))


def _require_writable(workspace: Workspace, task: _Task, test: TestVideos) -> None:
    """Raises `StorageError` before anything is scored where the scores cannot be written."""
    folders = [task.scores / protocol.name for protocol in task.protocols]
    # Of all protocols: at least 4 bytes for each video and class.
    room = 4 * len(folders) * len(test.videos) * len(task.config.classes)
    require_writable(workspace.root, *folders, room=room)


# ------------------------------------------------------------------ what is left


def _leave(
    workspace: Workspace,
    config: Config,
    task: _Task,
    test: TestVideos,
    logits: "dict[int, list[Logits]]",
    failures: list[Failure],
    started: float,
) -> Result:
    """Records what could not be scored and writes what could."""
    remove_left_over_temporary_files(workspace.root, below=False)
    remove_left_over_temporary_files(task.scores)
    scored = [("evaluate", test.videos[i].class_name, test.videos[i].video) for i in logits]
    record_outcomes(workspace, failed=failures, succeeded=scored)
    if not logits:
        raise _nothing_scored(workspace, task, test, failures)
    unscored = {"missing": test.missing, "failed": [f"{failure.class_name}/{failure.video}" for failure in failures]}
    if left_out := task.config.excluded_classes:
        unscored["excluded_classes"] = list(left_out)
    provenance = _provenance(workspace, config, task, test)
    evaluations = []
    # The first last: `stres report` takes the newest where the paper's protocol is not among them.
    for number, protocol in reversed(list(enumerate(task.protocols))):
        folder = task.scores / protocol.name
        scores = _gather({i: of_protocols[number] for i, of_protocols in logits.items()}, test, task)
        evaluations.append(Evaluation(folder, _write(folder, scores, protocol, provenance, unscored | test.document())))
    return Result(
        task.run.name,
        evaluations[::-1],
        test.missing,
        len(failures),
        time.monotonic() - started,
        left_out=dict(test.left_out),
    )


def _nothing_scored(workspace: Workspace, task: _Task, test: TestVideos, failures: list[Failure]) -> MissingError:
    return MissingError(
        f"no test video of run {task.run.name} could be scored: {test.why_none(failures)}; run "
        f"`stres extract-frames` and `stres extract-flow` on them in {workspace.root}"
    )


def _provenance(workspace: Workspace, config: Config, task: _Task, test: TestVideos) -> dict[str, Any]:
    """What scores carry of where they come from, beside their protocol."""
    folder = task.run.folder.resolve()
    elsewhere = {} if folder.parent == workspace.runs.resolve() else {"run_folder": str(folder)}
    other = {"dataset": "other"} if test.is_other else {}
    return {
        **elsewhere,
        **other,
        "run": task.run.name,
        "split": task.config.split,
        "precision": config.precision,
        "weights_sha256": task.run.weights_sha256(task.step),
    }


def _attributes(protocol: Protocol, provenance: dict[str, Any]) -> dict[str, Any]:
    return provenance | protocol.document() | {"step": protocol.step}


def _gather(logits: "dict[int, Logits]", test: TestVideos, task: _Task) -> "Scores":
    """One table of all videos."""
    import numpy as np
    import torch

    from pipelines.evaluation.scores import Scores
    from pipelines.evaluation.scoring import with_fused

    order = sorted(logits)
    streams = with_fused({name: torch.stack([logits[i][name] for i in order]).numpy() for name in logits[order[0]]})
    return Scores(
        videos=[test.videos[i].id for i in order],
        labels=np.array([test.labels[i] for i in order], dtype=np.int64),
        classes=list(task.config.classes),
        sources=[test.videos[i].origin for i in order],
        **{name: value.astype(np.float32) for name, value in streams.items()},
    )


def _write(
    folder: Path,
    scores: "Scores",
    protocol: Protocol,
    provenance: dict[str, Any],
    unscored: dict[str, Any],
) -> dict[str, Any]:
    """Writes `scores.h5` and `results.json`; returns the latter's content."""
    from pipelines.evaluation.metrics import results_document
    from pipelines.evaluation.scores import write_scores

    results = results_document(protocol.document(), provenance["split"], provenance["run"], scores)
    results |= {"step": protocol.step} | unscored
    results |= {name: provenance[name] for name in ("run_folder", "weights_sha256") if "run_folder" in provenance}
    write_scores(folder / "scores.h5", scores, _attributes(protocol, provenance))
    write_json(folder / "results.json", results)
    return results


# ------------------------------------------------------------------ dry run


def _estimate(workspace: Workspace, config: Config, task: _Task, test: TestVideos, measured: "Measured") -> "Estimate":
    """What scoring all test videos will take, from what was measured on some. Raises `MissingError` without any."""
    from pipelines.evaluation.estimation import Estimate
    from pipelines.evaluation.scores import size_of_scores

    if not test.videos:
        raise _nothing_scored(workspace, task, test, test.damaged)
    bytes_of_scores = 0
    if measured.logits is not None:
        scores = _gather(dict.fromkeys(range(len(test.videos)), measured.logits), test, task)
        provenance = _provenance(workspace, config, task, test)
        bytes_of_scores = sum(size_of_scores(scores, _attributes(p, provenance)) for p in task.protocols)
    recalibrated = min(config.recalibrate_bn, len(test.training))
    return Estimate.of(len(test.videos), recalibrated, measured, bytes_of_scores)
