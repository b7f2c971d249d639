"""Stage: trains the two-stream residual network, step by step, on one split, or on each.

Reads `frames/` and `flow/`, and writes `runs/<name>/`. The same configuration under the same name continues where it
stopped; another one is refused.
"""

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines.errors import MissingError, UsageError
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.prediction.speed import keep_speed
from pipelines.runtime.devices import device_for, repeatable
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress, note
from pipelines.runtime.ranks import ranks
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import DEFAULT_RUNS, Run, StepResult
from pipelines.training.settings import TrainingSettings, settle

if TYPE_CHECKING:
    from pipelines.training.estimation import Estimate


@dataclass(frozen=True)
class Config(TrainingSettings):
    """Settings of `train`."""

    checkpoint_every: Annotated[float, Option(metavar="MINUTES", minimum=0, group=options.RARELY)] = 5.0
    """Minutes between checkpoints."""
    sync_bn: Annotated[
        bool | None, Option(group=options.RARELY, default="if a batch has fewer micro-batches than there are processes")
    ] = None
    """Under torchrun, share each micro-batch and its batch-norm statistics between the processes, instead of dealing
    out whole micro-batches."""
    at_once: Annotated[
        int | None,
        Option(metavar="N", minimum=1, group=options.RARELY, default="as many as fit into a GPU's memory, 1 on a CPU"),
    ] = None
    """Micro-batches in one pass through the network, each with its own batch-norm statistics: equal to rounding."""
    repeatable: Annotated[bool, Option(group=options.RARELY)] = True
    """On a GPU, restrict cuDNN to deterministic algorithms, so that an interrupted training continues bit for bit."""
    dry_run: options.DryRun = False


@dataclass(frozen=True)
class Result:
    """What training left in the run's folder."""

    run: str
    folder: Path
    steps: list[StepResult]
    """Empty after a dry run."""
    train_videos: int
    missing_videos: list[str]
    """Ids of training videos without frames or flow."""
    failed: int
    """Training videos that could not be read (rows of `failures.csv`); of a dry run those known, and those it met."""
    seconds: float
    estimate: "Estimate | None" = None
    """Of a dry run."""


@dataclass(frozen=True)
class SplitsResult:
    """What training on all splits left."""

    runs: list[Result]
    """Of each split whose run did not diverge, in order."""
    diverged: dict[str, str]
    """Of the others: why, by the run's name."""
    named: str
    """The runs' names, with `{split}` for the split's number."""
    seconds: float


def run_splits(config: Config, on_progress: OnProgress = ignore_progress) -> SplitsResult:
    """Trains the run of each split, one after the other, as `run` does. One that diverges does not stop the others.

    What would stop a later split is found before the first is trained.

    Raises as `run`.
    """
    workspace = Workspace(config.workspace)
    _require_videos(workspace)
    from pipelines.training import data, loop, preparation

    started = time.monotonic()
    on_progress = ranks().speaker(on_progress)
    said: set[str] = set()

    def once(progress: Progress) -> None:
        if progress.phase or progress.message not in said:
            said.add(progress.message)
            on_progress(progress)

    def prepare() -> tuple[str, list[Config], list[str]]:
        """The runs' names, the settings of each, and the names of those that are trained already."""
        common = config.named()
        _, splits = data.find_splits(common, write=not config.dry_run, tell=lambda text: once(note(text)))
        runs, done, size = [], [], config.size
        for split in splits:
            one = replace(common.of_split(split.number), all_alike=True)
            is_new = config.overwrite or not Run(workspace.runs / one.run_name).config_file.exists()
            one = replace(one, size=size if is_new else config.size)  # whatever the shape of most of its pictures
            with contextlib.ExitStack() as held:
                known, reason = settle(one)
                device = device_for(known.device, known.precision)
                prepared = preparation.prepare_run(known, reason, device, held, ignore_progress, write=False)
            size = size or prepared.config.size
            if not is_new and all(prepared.run.weights_file(step.name).exists() for step in prepared.steps):
                done.append(one.run_name)
            runs.append(one)
        return common.name or DEFAULT_RUNS, runs, done

    named, runs, done = ranks().broadcast_from_rank0(prepare)
    results: list[Result] = []
    diverged: dict[str, str] = {}
    for one in runs:
        if one.run_name in done:
            on_progress(note(f"run {one.run_name} is already trained"))
        else:
            on_progress(note(f"split {one.split} of {len(runs)}: run {one.run_name}"))
        try:
            results.append(run(one, ignore_progress if one.run_name in done else once))
        except loop.Diverged as error:
            diverged[one.run_name] = str(error)
            on_progress(note(f"run {one.run_name}: {error}"))
    return SplitsResult(results, diverged, named, time.monotonic() - started)


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Trains the selected steps one after the other; under torchrun all ranks train together, and rank 0 writes.

    A dry run measures some updates of each step instead, and writes nothing.

    Raises:
        UsageError: The run of that name has another configuration, or all splits are asked for (`run_splits`).
        MissingError: Frames, flow, weights or a base step are missing, or a step diverges.
        Interrupted: After a signal, with a checkpoint written.
    """
    if isinstance(config.split, str):
        raise UsageError("one split is trained at a time: run_splits trains all")
    workspace = Workspace(config.workspace)
    _require_videos(workspace)
    from pipelines.training import data, preparation, session

    started = time.monotonic()
    on_progress = ranks().speaker(on_progress)
    results: list[StepResult] = []
    unreadable: dict[str, str] = {}
    estimate: Estimate | None = None
    settings, reason = ranks().broadcast_from_rank0(lambda: settle(config))
    device = device_for(settings.device, settings.precision)
    with contextlib.ExitStack() as held:
        prepared = ranks().broadcast_from_rank0(
            lambda: preparation.prepare_run(settings, reason, device, held, on_progress, write=not config.dry_run)
        )
        steps = session.Session(
            prepared,
            device,
            workers=config.workers,
            compile=settings.compile,
            sync_bn=config.sync_bn,
            at_once=config.at_once,
            download=not config.dry_run,
            on_progress=on_progress,
        )
        held.enter_context(ranks().process_group(device))
        if config.repeatable:
            held.enter_context(repeatable())
        if config.dry_run:
            estimate, unreadable = steps.estimate(overwrite=config.overwrite)
        else:
            for step in prepared.steps:
                result, reasons = steps.train(step, config.checkpoint_every * 60)
                results.append(result)
                unreadable |= reasons
            if "student" in (step.name for step in prepared.steps):
                ranks().broadcast_from_rank0(
                    lambda: keep_speed(prepared.run, prepared.teacher, prepared.data.videos, device, on_progress)
                )
    failed = ranks().broadcast_from_rank0(
        lambda: data.record_unreadable(workspace, prepared.data, unreadable, on_progress, write=not config.dry_run)
    )
    return Result(
        run=prepared.run.name,
        folder=prepared.run.folder,
        steps=results,
        train_videos=len(prepared.data.videos),
        missing_videos=prepared.data.missing,
        failed=failed,
        seconds=time.monotonic() - started,
        estimate=estimate,
    )


def _require_videos(workspace: Workspace) -> None:
    """Raises `MissingError` where there is nothing to train on, which is known before torch is loaded."""
    from pipelines.datasets.catalogue import artifact_paths

    workspace.require()
    if not any(any(artifact_paths(folder)) for folder in (workspace.frames, workspace.flow)):
        raise MissingError(
            f"there are neither frames nor flow in {workspace.root}: run `stres extract-frames VIDEOS` and `stres "
            "extract-flow` first, or name another workspace with --workspace"
        )
