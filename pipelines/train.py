"""Stage: trains the two-stream residual network, step by step, on one split.

Reads `frames/` and `flow/`; leaves `runs/<name>/`. The same configuration under the same name continues where it
stopped; another one is refused.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError
from pipelines.runtime.devices import device_for, repeatable, resolve_device
from pipelines.runtime.progress import OnProgress, ignore_progress
from pipelines.runtime.ranks import ranks
from pipelines.storage.provenance import made_by
from pipelines.training.compilation import compiles
from pipelines.training.recipes import RECIPES, STEPS, Recipe, Step, StepName, override
from pipelines.training.run_config import RUN_SCHEMA, NetworkConfig, RunConfig, StepConfig, TrainVideos, digest
from pipelines.training.runs import Run
from pipelines.training.step_files import StepResult
from pipelines.workspace import Workspace, is_plain_name

if TYPE_CHECKING:
    from pipelines.training.data import TrainingData
    from pipelines.training.estimation import Estimate

STACK = 10  # L, flow fields of one motion input (paper.md 1.4)
FUSIONS = ("add", "multiply", "none")
DIRECTIONS = ("motion-to-appearance", "appearance-to-motion", "both", "none")
TEMPORAL_INITS = ("average", "centre", "random")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Config:
    """What to train, on what, and how. None: the recipe's value.

    exclude_classes   classes of the split that take no part, neither in training nor in the test
    base_run          the run whose appearance and motion joint1 starts from; None: this one
    weights           "imagenet", "none", "run:NAME[/STEP]" (training/fine_tuning.py) or a file of torchvision's format
    overrides         for each step, fields of `training.recipes.Step` that differ from the recipe's
    compile           `torch.compile` the network; None: on a GPU, in steps that are long enough for it
    checkpoint_every  minutes between two checkpoints
    sync_bn           under torchrun: whether the processes go through each micro-batch together, with batch-norm
                      statistics over all of it, rather than deal them; None: where a batch has too few to deal
    dry_run           only estimate time, disk and memory of what is still to do
    """

    workspace: Path
    split: int = 1
    name: str | None = None
    recipe: str = "paper"
    steps: tuple[str, ...] | None = None
    splits_dir: Path | None = None
    group_regex: str | None = None
    exclude_classes: tuple[str, ...] = ()
    depth: int | None = None
    width: int | None = None
    size: tuple[int, int] | None = None
    weights: str | None = None
    fusion: str = "add"
    direction: str = "motion-to-appearance"
    temporal_kernels: bool = True
    temporal_init: str = "average"
    base_run: str | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: bool | None = None
    workers: int = 0
    checkpoint_every: float = 5.0
    sync_bn: bool | None = None
    overwrite: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        _one_of("--recipe", self.recipe, RECIPES)
        _one_of("--fusion", self.fusion, FUSIONS)
        _one_of("--direction", self.direction, DIRECTIONS)
        _one_of("--temporal-init", self.temporal_init, TEMPORAL_INITS)
        _one_of("--precision", self.precision, PRECISIONS)
        for step in self.steps or ():
            _one_of("--steps", step, STEPS)
        for step in self.overrides:
            _one_of("a step's override", step, STEPS)
        if self.name is not None and not is_plain_name(self.name):
            raise UsageError(f"--name {self.name!r} is not a plain folder name")
        base_steps = {"appearance", "motion"} & set(self.selected())
        if self.base_run is not None and base_steps:
            raise UsageError(
                f"--base-run {self.base_run}: this command trains {' and '.join(sorted(base_steps))} itself; leave "
                "--base-run out, or train the joint steps alone with --steps joint1"
            )
        if self.size is not None and min(self.size) < 32:
            raise UsageError(f"--size {self.size[0]}x{self.size[1]}: the network needs at least 32 pixels a side")
        if self.width is not None and self.width < 1:
            raise UsageError(f"--width {self.width}: it must be 1 or more (64 is the paper's)")
        if not self.checkpoint_every >= 0:  # NaN is not either
            raise UsageError(f"--checkpoint-every {self.checkpoint_every}: it must be 0 or more minutes")

    @property
    def run_name(self) -> str:
        return self.name or f"split{self.split}"

    @property
    def base(self) -> Recipe:
        return RECIPES[self.recipe]

    def selected(self) -> list[StepName]:
        """The steps to train, in order."""
        chosen = self.steps or self.base.default_steps
        return [step for step in STEPS if step in chosen]

    def step(self, name: StepName) -> Step:
        """The recipe's step with this configuration's overrides."""
        return override(self.base.steps[name], self.overrides.get(name, {}))

    def network(self, num_classes: int) -> NetworkConfig:
        """The network of the joint steps."""
        return NetworkConfig(
            num_classes=num_classes,
            depth=self.depth or self.base.depth,
            width=self.width or self.base.width,
            flow_channels=2 * STACK,
            fusion=self.fusion,
            direction=self.direction,
            temporal_kernels=self.temporal_kernels,
            temporal_init=self.temporal_init,
        )

    def run_config(self, data: "TrainingData", precision: str) -> RunConfig:
        """Everything that decides what a run on `data` becomes, but the weights of other runs."""
        return RunConfig(
            **made_by(RUN_SCHEMA, "opencv", "numpy", "torch"),
            recipe=self.recipe,
            split=self.split,
            seed=self.seed,
            size=self.size or self.base.size,
            weights=self.weights or self.base.weights,
            precision=precision,
            network=self.network(len(data.classes)),
            classes=tuple(data.classes),
            train_videos=TrainVideos(len(data.videos), digest([video.id for video in data.videos])),
            flow=data.flow,
            steps={name: StepConfig(self.step(name)) for name in self.selected()},
            split_sha256=digest([data.split.train, data.split.test]),
            excluded_classes=tuple(sorted(set(self.exclude_classes))),
            compile=compiles(self.compile, resolve_device(self.device)),
        )


@dataclass(frozen=True)
class Result:
    """What training left. `failed`: training videos that could not be read (rows of `failures.csv`); `estimate`: of a
    dry run, which leaves nothing and has no `steps`."""

    run: str
    folder: Path
    steps: list[StepResult]
    train_videos: int
    missing_videos: list[str]
    failed: int
    seconds: float
    estimate: "Estimate | None" = None


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Trains the selected steps one after the other; under torchrun all ranks train together, and rank 0 writes.
    A dry run measures some updates of each instead, and writes nothing.

    Raises `UsageError` where the run of that name has another configuration, `MissingError` where frames, flow,
    weights or a base step are missing or a step diverges, `Interrupted` after a signal, with a checkpoint written.
    """
    from pipelines.training.data import find_training_data, record_unreadable
    from pipelines.training.session import PreparedRun, Session, prepare_run, resolve_precision

    started = time.monotonic()
    if not ranks().is_first:
        on_progress = ignore_progress
    workspace = Workspace(config.workspace)
    workspace.require()
    device = device_for(config.device, config.precision)
    results: list[StepResult] = []
    unreadable: dict[str, str] = {}
    failed = 0
    estimate: Estimate | None = None
    with contextlib.ExitStack() as held:

        def prepare() -> PreparedRun:
            data = find_training_data(
                workspace,
                config.split,
                splits_dir=config.splits_dir,
                seed=config.seed,
                group_regex=config.group_regex,
                overwrite_splits=config.overwrite,
                exclude=config.exclude_classes,
                write=not config.dry_run,
                on_progress=on_progress,
            )
            return prepare_run(
                workspace,
                Run(workspace.runs / config.run_name),
                data,
                config.run_config(data, resolve_precision(config.precision, device)),
                base_run=config.base_run,
                overwrite=config.overwrite,
                write=not config.dry_run,
                held=held,
                on_progress=on_progress,
            )

        prepared = ranks().broadcast_from_rank0(prepare)
        session = Session(
            prepared,
            device,
            workers=config.workers,
            compile=config.compile,
            sync_bn=config.sync_bn,
            download=not config.dry_run,
            on_progress=on_progress,
        )
        held.enter_context(ranks().process_group(device))
        held.enter_context(repeatable())
        if config.dry_run:
            estimate = session.estimate(overwrite=config.overwrite)
        else:
            for step in prepared.steps:
                result, found = session.train(step, config.checkpoint_every * 60)
                results.append(result)
                unreadable |= found
    data = prepared.data
    if not config.dry_run:
        failed = ranks().broadcast_from_rank0(lambda: record_unreadable(workspace, data, unreadable, on_progress))
    seconds = time.monotonic() - started
    return Result(
        prepared.run.name, prepared.run.folder, results, len(data.videos), data.missing, failed, seconds, estimate
    )


def _one_of(flag: str, value: str, accepted: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in accepted:
        raise UsageError(f"{flag} {value!r} is not known: give one of {', '.join(accepted)}")
