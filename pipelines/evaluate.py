"""Stage: tests a run on the test videos of its split and saves every video's scores.

Reads `runs/<name>/`, `frames/` and `flow/`; leaves `scores/<run>/<protocol>/scores.h5` and `results.json`.
"""

import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.protocols import CROPS, Protocol, ProtocolSettings
from pipelines.interface import options
from pipelines.interface.options import Option, TemporalName, ViewName
from pipelines.prediction.speed import about_speed
from pipelines.runtime.progress import OnProgress, ignore_progress, note
from pipelines.runtime.ranks import ranks
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import (
    Chosen,
    choose_run,
    load_network,
    make_way,
    recipe_of,
    runs_of_splits,
    scores_folder,
    splits_left_out,
    streams_of,
    trained_with_mirrors,
)

if TYPE_CHECKING:
    from pipelines.evaluation.estimation import EvaluationEstimate
    from pipelines.training.run_config import RunConfig


@dataclass(frozen=True)
class Config(ProtocolSettings):
    """Settings of `evaluate`."""

    workspace: options.WorkspaceFolder
    run: options.RunOrFolder = None
    """A run of the workspace, by name, or the folder of any run; all, or a name with {split}, for those of every
    split."""
    step: options.UsedNetwork = None
    checkpoint: options.UsedCheckpoint = "last"
    _: KW_ONLY
    crops: Annotated[int, Option(metavar="N", minimum=1)] = CROPS
    """Frames per video, spaced evenly (25 in the paper)."""
    views: Annotated[ViewName | tuple[ViewName, ...], Option(metavar="NAME[,NAME]")] = "full"  # type: ignore[assignment]
    """full (whole frames, as in the paper), center, 3, 5, or 10 crops (5 and their mirror images), or several in one
    pass."""
    temporal: Annotated[
        TemporalName | tuple[TemporalName, ...] | None,
        Option(metavar="NAME[,NAME]", default="sequence; student: clips"),
    ] = None  # type: ignore[assignment]
    """sequence (all frames at once, as in the paper), windows (as long as in training), or both in one pass; or clips
    (frames as close together as in training)."""
    recalibrate_bn: Annotated[int, Option(metavar="N", minimum=0, group=options.RARELY)] = 0
    """Re-estimate the batch-norm statistics on N training videos under this protocol (0: off)."""
    fusion_weight: options.FusionWeight = options.EQUAL_WEIGHTS
    device: options.DeviceName = "auto"
    precision: options.TestPrecision = "fp32"
    workers: options.LoaderWorkers = 0
    force: Annotated[bool, Option(group=options.RARELY)] = False
    """Accept flow that was made with other settings than in training."""
    dry_run: options.DryRun = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recalibrate_bn and len(self.all_views) * len(self.all_temporals) > 1:
            raise UsageError(
                f"--recalibrate-bn {self.recalibrate_bn} fits the network to one protocol: give one --views and one "
                f"--temporal instead of {','.join(self.all_views)} and {','.join(map(str, self.all_temporals))}"
            )
        if "clips" in self.all_temporals and len(self.all_temporals) > 1:
            raise UsageError("--temporal clips looks at other frames than sequence and windows do: give it alone")

    @property
    def all_views(self) -> Sequence[ViewName]:
        return self.views if isinstance(self.views, tuple) else (self.views,)

    @property
    def all_temporals(self) -> Sequence[TemporalName | None]:
        return self.temporal if isinstance(self.temporal, tuple) else (self.temporal,)

    def protocols(self, step: str, *, mirrored: bool = True, crops: int = CROPS) -> list[Protocol]:
        """As those of the base class, with what only `evaluate` is asked for. Raises likewise."""
        further = {name: getattr(self, name) for name in ("recalibrate_bn", "checkpoint", "fusion_weight")}
        return [replace(one, **further) for one in super().protocols(step, mirrored=mirrored, crops=crops)]

    def protocol(self, step: str, *, mirrored: bool = True) -> Protocol:
        """The first of them."""
        return self.protocols(step, mirrored=mirrored)[0]


@dataclass(frozen=True)
class ProtocolResult:
    """What was left of one protocol."""

    folder: Path
    """Of its scores."""
    results: dict[str, Any]
    """The content of its `results.json`."""


@dataclass(frozen=True)
class Result:
    """What was left."""

    run: str
    evaluations: list[ProtocolResult]
    """One for each protocol, in the order of `Config.protocols`."""
    missing_videos: list[str]
    """Ids of the test videos without what the network needs, frames or flow."""
    failed: int
    """How many others could not be read (rows of `failures.csv`); of a dry run those known, and those it met."""
    seconds: float
    estimate: "EvaluationEstimate | None" = None
    """Of a dry run, which leaves nothing and has no `evaluations`."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Of another data set than the run's split: classes that the run does not know, with their numbers of videos."""

    @property
    def folder(self) -> Path:
        """Of the first protocol."""
        return self.evaluations[0].folder

    @property
    def results(self) -> dict[str, Any]:
        """Of the first protocol."""
        return self.evaluations[0].results


@dataclass(frozen=True)
class SplitsResult:
    """What testing the runs of all splits left."""

    runs: list[Result]
    """Of each run that could be tested, in the order of the splits."""
    unusable: dict[str, str]
    """Of the others: why, by the run's name."""
    seconds: float


def run_splits(config: Config, on_progress: OnProgress = ignore_progress) -> SplitsResult:
    """Tests the runs of all splits, one after the other, as `run` does. Those that were tested so already stay, and one
    without a network or videos to test, or held-out videos to choose a weight on, does not stop the others.

    Raises as `run`.
    """
    from pipelines.evaluation.fusion_weight import require_both_streams
    from pipelines.evaluation.videos import find_test_videos, held_out_videos

    started = time.monotonic()
    on_progress = ranks().speaker(on_progress)
    workspace = Workspace(config.workspace)

    def choose() -> tuple[list[str], dict[str, str]]:
        runs = runs_of_splits(workspace, str(config.run))
        unusable = {}
        for one in runs.values():
            try:
                chosen = choose_run(workspace, one.name, config.step, config.checkpoint)
                require_both_streams(chosen, config.fusion_weight)
                trained_as = chosen.run.config()
                streams = streams_of(trained_as, chosen.step)
                test = find_test_videos(
                    workspace, chosen.run, trained_as, config.force, streams=streams, write=not config.dry_run
                )
                if config.fusion_weight == options.HELD_OUT:
                    held_out_videos(test, chosen.run, trained_as)
            except MissingError as error:
                unusable[one.name] = str(error)
        if len(unusable) == len(runs):
            raise MissingError(next(iter(unusable.values())))
        usable = [one for one in runs.values() if one.name not in unusable]
        if left := splits_left_out(workspace, usable[0].config().split_set, runs):
            splits = "split" if len(left) == 1 else "splits"
            on_progress(note(f"no run yet of {splits} {', '.join(map(str, left))}: see `stres train --split all`"))
        return [one.name for one in usable], unusable

    names, unusable = ranks().broadcast_from_rank0(choose)
    for name, reason in unusable.items():
        on_progress(note(f"run {name} is left out: {reason}"))
    results = []
    for name in names:
        on_progress(note(f"run {name}"))
        results.append(run(replace(config, run=name), on_progress, keep=True))
    return SplitsResult(results, unusable, time.monotonic() - started)


def run(config: Config, on_progress: OnProgress = ignore_progress, *, keep: bool = False) -> Result:
    """Scores every test video of the run's split once; under torchrun the ranks share them, and rank 0 writes.

    A dry run scores some of them and writes nothing. With `keep` scores of the same test stay as they are.

    Raises:
        MissingError: Run, frames or flow are missing.
        UsageError: The workspace's flow contradicts what the run was trained with, or the network cannot be tested as
            asked.
    """
    started = time.monotonic()
    workspace = Workspace(config.workspace)

    def choose() -> tuple[Chosen, "RunConfig", Path]:
        chosen = choose_run(workspace, config.run, config.step, config.checkpoint)
        return chosen, chosen.run.config(), scores_folder(workspace, chosen.run)

    chosen, trained_as, folder = ranks().broadcast_from_rank0(choose)
    # These load torch, which would only delay the refusals above.
    from pipelines.evaluation.estimation import EvaluationEstimate, measure
    from pipelines.evaluation.fusion_weight import ChosenWeight, choose_weight, require_both_streams
    from pipelines.evaluation.results import Results
    from pipelines.evaluation.run import Samples, recalibrate, score_videos
    from pipelines.evaluation.scoring import Scorer, shortest_window
    from pipelines.evaluation.videos import find_test_videos, held_out_videos
    from pipelines.runtime.devices import device_for

    tested, step = chosen.run, chosen.step
    device = device_for(config.device, config.precision)
    require_both_streams(chosen, config.fusion_weight)
    network = load_network(tested, step)
    recipe, shortest = recipe_of(trained_as, step), shortest_window(network)
    asked = config.protocols(step, mirrored=trained_with_mirrors(trained_as, step))
    protocols = [(p, p.windows(recipe.frames, shortest, tested.name)) for p in asked]
    test = ranks().broadcast_from_rank0(
        lambda: find_test_videos(
            workspace, tested, trained_as, config.force, streams=list(network.streams), write=not config.dry_run
        )
    )
    results = Results(workspace, tested, trained_as, asked, config.precision, folder=folder, test=test)
    on_progress = ranks().speaker(on_progress)
    if chosen.warning:
        on_progress(note(chosen.warning))
    if faster := about_speed(tested, step):
        on_progress(note(faster))
    test.tell(on_progress)
    held_out = None
    if config.fusion_weight == options.HELD_OUT:
        held_out = ranks().broadcast_from_rank0(lambda: held_out_videos(test, tested, trained_as))
    samples = Samples.of(asked[0], trained_as.size, recipe, config.workers, device)

    if config.dry_run:

        def estimate() -> tuple[EvaluationEstimate, int]:
            scorer = Scorer(network, device, config.precision)
            seconds, logits, failures = measure(scorer, samples, protocols, test, on_progress)
            recalibrated = min(config.recalibrate_bn, len(test.training))
            further = len(held_out.videos) if held_out else 0
            cost = EvaluationEstimate.of(len(test.videos), recalibrated, further, seconds, results.size(logits))
            return cost, len(test.damaged) + len(failures)

        cost, failed = ranks().broadcast_from_rank0(estimate)
        left_out = dict(test.left_out)
        return Result(tested.name, [], test.missing, failed, time.monotonic() - started, cost, left_out)

    kept = ranks().broadcast_from_rank0(results.kept) if keep and not config.recalibrate_bn else None
    if kept is not None:
        on_progress(note(f"run {tested.name} was tested so already"))
        left = [ProtocolResult(*each) for each in kept]
        return Result(tested.name, left, test.missing, 0, time.monotonic() - started, left_out=dict(test.left_out))
    ranks().broadcast_from_rank0(results.require_writable)
    ranks().broadcast_from_rank0(lambda: make_way(workspace, tested))
    unfinished = results.unfinished(device) if ranks().is_first else None
    if config.recalibrate_bn:
        recalibrate(network, samples, *protocols[0], test.training, tested.name, on_progress)
    scorer = Scorer(network, device, config.precision)
    weights: list[ChosenWeight] = []
    if held_out is not None:
        of_held_out, unread = score_videos(
            scorer, samples, protocols, held_out, unfinished, on_progress, "choose fusion weight"
        )

        def choose_weights() -> list[ChosenWeight]:
            if not of_held_out:
                raise MissingError(f"no video held out of run {tested.name} could be read: {unread[0].reason}")
            order = sorted(of_held_out)
            labels = [held_out.labels[index] for index in order]
            return [
                choose_weight([of_held_out[index][number] for index in order], labels) for number in range(len(asked))
            ]

        weights = ranks().broadcast_from_rank0(choose_weights)
    logits, failures = score_videos(scorer, samples, protocols, test, unfinished, on_progress)

    def write() -> Result:
        left = [ProtocolResult(*each) for each in results.write(logits, failures, weights)]
        if unfinished:
            unfinished.remove()
        seconds = time.monotonic() - started
        return Result(tested.name, left, test.missing, len(failures), seconds, left_out=dict(test.left_out))

    return ranks().broadcast_from_rank0(write)
