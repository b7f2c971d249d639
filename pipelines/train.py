"""Stage: trains the two-stream residual network, step by step, on one split.

Reads `frames/` and `flow/`; leaves `runs/<name>/`. The same configuration under the same name continues where it
stopped; another one is refused.
"""

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipelines.errors import MissingError, UsageError
from pipelines.runtime.progress import OnProgress, ignore_progress, note
from pipelines.runtime.ranks import ranks
from pipelines.storage.atomic import remove_left_over_temporary_files, require_writable, storage_errors
from pipelines.storage.provenance import made_by
from pipelines.training.fine_tuning import Start, find_source, find_starts, flow_difference
from pipelines.training.recipes import RECIPES, STEPS, Recipe, Step, StepName, override
from pipelines.training.run_config import RUN_SCHEMA, NetworkConfig, RunConfig, StepConfig, TrainVideos, digest
from pipelines.training.runs import Run, find_run, only_trainer
from pipelines.training.step_files import StepFiles, StepResult
from pipelines.workspace import Workspace, is_plain_name

if TYPE_CHECKING:
    import torch

    from pipelines.datasets.samples import Batch
    from pipelines.models import STResNet
    from pipelines.training.data import TrainingData
    from pipelines.training.data_parallel import Sharing
    from pipelines.training.estimation import Estimate, StepEstimate
    from pipelines.training.loop import Precision, StepTrainer

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
    from pipelines.runtime.devices import device_for, repeatable
    from pipelines.training.data import record_unreadable

    started = time.monotonic()
    if not ranks().is_first:
        on_progress = ignore_progress
    workspace = Workspace(config.workspace)
    workspace.require()
    device = device_for(config.device, config.precision)
    precision = _precision(config.precision, device)
    this = Run(workspace.runs / config.run_name)
    results: list[StepResult] = []
    unreadable: dict[str, str] = {}
    cost: Estimate | None = None
    with contextlib.ExitStack() as held:
        data, described, starts = ranks().broadcast_from_rank0(
            lambda: _begin(this, workspace, config, precision, held, on_progress)
        )
        base = _base_run(config, workspace, this)
        _require_shareable(config, len(data.videos))
        held.enter_context(ranks().process_group(device))
        held.enter_context(repeatable())
        training = _Training(this, base, config, data, described, starts, device, precision, on_progress)
        if config.dry_run:
            cost = training.estimate()
        else:
            for name in config.selected():
                result, found = training.train(config.step(name))
                results.append(result)
                unreadable |= found
    failed = 0
    if not config.dry_run:
        failed = ranks().broadcast_from_rank0(lambda: record_unreadable(workspace, data, unreadable, on_progress))
    seconds = time.monotonic() - started
    return Result(this.name, this.folder, results, len(data.videos), data.missing, failed, seconds, cost)


def _begin(
    run: Run,
    workspace: Workspace,
    config: Config,
    precision: "Precision",
    held: contextlib.ExitStack,
    on_progress: OnProgress,
) -> "tuple[TrainingData, RunConfig, dict[StepName, Start]]":
    """Finds the training data, and what fine-tuning starts from; writes the configuration, or compares it. Until `held`
    is closed, no other process trains into the run. A dry run only compares."""
    from pipelines.training.data import find_training_data
    from pipelines.training.runs import describe_base, write_or_compare

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
    base = _base_run(config, workspace, run)
    described, starts = _with_starts(config, run, _described(config, data, precision), on_progress)
    if base != run:
        described = replace(described, base_run=describe_base(base, described, data.sources))
    _require_weights(config, run, starts, described.network)
    if config.dry_run:
        if not config.overwrite:
            write_or_compare(run, described, data.split, data.sources, write=False)
        return data, described, starts
    if config.overwrite:
        _move_aside(workspace, run)
    if to_do := [run.weights_file(name).parent for name in config.selected() if not run.weights_file(name).exists()]:
        require_writable(workspace.root, run.folder, run.folder / "tensorboard", *to_do)
    held.enter_context(only_trainer(run))
    remove_left_over_temporary_files(workspace.root, below=False)
    remove_left_over_temporary_files(run.folder)
    write_or_compare(run, described, data.split, data.sources)
    return data, described, starts


def _require_weights(config: Config, run: Run, starts: Collection[str], network: NetworkConfig) -> None:
    """Raises `MissingError` before a run is begun where a base step's weights are not to be had."""
    from pipelines.models.weights import read_pretrained

    finished = [] if config.overwrite else run.finished()
    if {"appearance", "motion"} & set(config.selected()) - {*starts, *finished}:
        source = config.weights or config.base.weights
        read_pretrained(network.depth, network.width, source, download=not config.dry_run)


def _require_shareable(config: Config, videos: int) -> None:
    """Raises `UsageError` before anything is trained where a step leaves processes without work."""
    from pipelines.training.data_parallel import goes_together

    for name in config.selected():
        goes_together(config.step(name), videos, ranks().size, config.sync_bn)


def _described(config: Config, data: "TrainingData", precision: str) -> RunConfig:
    """Everything that decides what the run becomes but the weights of other runs."""
    from pipelines.runtime.devices import resolve_device
    from pipelines.training.compilation import compiles

    return RunConfig(
        **made_by(RUN_SCHEMA, "opencv", "numpy", "torch"),
        recipe=config.recipe,
        split=config.split,
        seed=config.seed,
        size=config.size or config.base.size,
        weights=config.weights or config.base.weights,
        precision=precision,
        network=_network(config, data.classes),
        classes=tuple(data.classes),
        train_videos=TrainVideos(len(data.videos), digest([video.id for video in data.videos])),
        flow=data.flow,
        steps={name: StepConfig(config.step(name)) for name in config.selected()},
        split_sha256=digest([data.split.train, data.split.test]),
        excluded_classes=tuple(sorted(set(config.exclude_classes))),
        compile=compiles(config.compile, resolve_device(config.device)),
    )


def _network(config: Config, classes: Sequence[str]) -> NetworkConfig:
    return NetworkConfig(
        num_classes=len(classes),
        depth=config.depth or config.base.depth,
        width=config.width or config.base.width,
        flow_channels=2 * STACK,
        fusion=config.fusion,
        direction=config.direction,
        temporal_kernels=config.temporal_kernels,
        temporal_init=config.temporal_init,
    )


def _base_run(config: Config, workspace: Workspace, this: Run) -> Run:
    """The run that holds the streams joint1 starts from."""
    return this if config.base_run is None else find_run(workspace, config.base_run)


def _with_starts(
    config: Config, this: Run, described: RunConfig, on_progress: OnProgress
) -> tuple[RunConfig, dict[StepName, Start]]:
    """What the steps begin with that begin with another run's weights, which is told; and the run with it."""
    source = find_source(described.weights, Workspace(config.workspace))
    if source is None:
        return described, {}
    finished = [] if config.overwrite else this.finished()
    lent = [] if config.base_run is None else ["appearance", "motion"]
    starts = find_starts(source, this, [*finished, *lent], config.selected(), described)
    begun = [start.described(name) for name, start in starts.items() if name not in finished]
    for text in (*begun, flow_difference(source, described.flow) if begun else ""):
        if text:
            on_progress(note(text))
    begin = {name: replace(described.steps[name], weights=start.record()) for name, start in starts.items()}
    return replace(described, weights=source.text, steps={**described.steps, **begin}), starts


def _move_aside(workspace: Workspace, run: Run) -> None:
    """The run, and its scores under the same name: they must not pass for the new run's."""
    folders = [run.folder, workspace.scores / run.name]
    if not any(folder.exists() for folder in folders):
        return
    with only_trainer(run), storage_errors(run.folder):
        names = (f"{run.name}.old{number}" for number in range(1, 10_000))
        free = next(name for name in names if not any(folder.with_name(name).exists() for folder in folders))
        for folder in folders:
            if folder.exists():
                folder.rename(folder.with_name(free))


def _one_of(flag: str, value: str, accepted: Sequence[str] | Mapping[str, Any]) -> None:
    if value not in accepted:
        raise UsageError(f"{flag} {value!r} is not known: give one of {', '.join(accepted)}")


# ------------------------------------------------------------------ the steps


@dataclass(frozen=True)
class _Training:
    """What the steps of one call share. `starts`: what those steps begin with that begin with another run's weights;
    `to_come`: in a dry run, the steps whose weights are not there."""

    run: Run
    base: Run
    config: Config
    data: "TrainingData"
    described: RunConfig
    starts: Mapping[StepName, Start]
    device: "torch.device"
    precision: "Precision"
    on_progress: OnProgress
    to_come: Collection[StepName] = ()

    def train(self, step: Step) -> tuple[StepResult, dict[str, str]]:
        """Trains one step from its checkpoint, or its start; leaves `weights.pt`. Also returns the videos that could
        not be read."""
        from pipelines.runtime.devices import memory_errors
        from pipelines.runtime.signals import stop_requests
        from pipelines.training.metrics_log import MetricsLog

        files = self._files(step)
        finished = ranks().broadcast_from_rank0(files.finished)
        if finished is not None:
            return finished
        trainer, network = self._trainer(step, files)
        log = MetricsLog(self.run.folder, step.name, trainer.state.iteration) if ranks().is_first else None

        def save() -> None:
            content = files.content(trainer)
            ranks().broadcast_from_rank0(lambda: files.save(content))

        try:
            with stop_requests() as stop, memory_errors("give a smaller --micro-batch"), self._divergence(step):
                trainer.run(
                    lambda start: self._batches(step, start, trainer.sharing),
                    log,
                    stop,
                    save,
                    self.config.checkpoint_every * 60,
                    self.on_progress,
                )
                trainer.bring_together()
                result = ranks().broadcast_from_rank0(lambda: files.finish(trainer, network))
                stop.check()  # a signal during the last update: the step is done and saved
        finally:
            if log is not None:
                log.close()
        return result

    def estimate(self) -> "Estimate":
        """What the steps that are still to do will take, from some updates of each."""
        from pipelines.training.estimation import Estimate

        run, base = self.run, self.base
        if self.config.overwrite:  # moves the run aside, so that none of its files counts
            run = Run(run.folder / ".none" / run.name)
            base = run if base == self.run else base
        finished = ranks().broadcast_from_rank0(run.finished)
        to_do = [name for name in self.config.selected() if name not in finished]
        training = replace(self, run=run, base=base, to_come=to_do)
        steps = [training.estimate_step(self.config.step(name)) for name in to_do]
        return Estimate.of(steps, [name for name in self.config.selected() if name in finished])

    def estimate_step(self, step: Step) -> "StepEstimate":
        """What a step will take; it starts from random weights where those of steps `to_come` are not there yet."""
        from pipelines.runtime.devices import memory_errors
        from pipelines.training.estimation import StepEstimate, measure

        files = self._files(step)
        trainer, network = self._trainer(step, files)
        begin = trainer.state.iteration
        with memory_errors("give a smaller --micro-batch"), self._divergence(step):
            measured = measure(trainer, lambda start: self._batches(step, start, trainer.sharing), self.on_progress)
        weights, checkpoint = files.sizes(trainer, network)
        return StepEstimate.of(trainer, begin, measured, weights_bytes=weights, checkpoint_bytes=checkpoint)

    @contextlib.contextmanager
    def _divergence(self, step: Step) -> Iterator[None]:
        """Adds to `Diverged` what to do about it: the run keeps its settings and the steps it has finished."""
        from pipelines.training.loop import Diverged

        try:
            yield
        except Diverged as error:
            options = f"--name NEW --lr {step.name}={step.lr / 10:.2g}"
            if step.name == "joint1":
                options += f" --steps joint1,joint2 --base-run {self.base.name}"
            elif step.name == "joint2":
                options += f" --steps joint2 --weights run:{self.run.name}/joint1"
            if self.precision != "fp32":
                options += ", or --precision fp32"
            raise Diverged(f"{error}: train it again with a lower rate ({options}); no weights were written") from None

    def _files(self, step: Step) -> StepFiles:
        return StepFiles(self.run, step, self.described.of_step(step.name))

    def _trainer(self, step: Step, files: StepFiles) -> "tuple[StepTrainer, dict[str, Any]]":
        """What trains a step from its checkpoint, or its start; and the settings that build its network again."""
        import torch

        from pipelines.training.compilation import compiles, worthwhile
        from pipelines.training.data_parallel import Sharing
        from pipelines.training.loop import StepTrainer

        config, videos = self.config, len(self.data.videos)
        torch.manual_seed(config.seed * 1_000_003 + STEPS.index(step.name))
        network, settings = ranks().rank0_first(lambda: self._starting_network(step))
        sharing = Sharing(step, videos, config.sync_bn)
        trainer = StepTrainer(
            network,
            step,
            videos,
            self.device,
            self.precision,
            seed=config.seed,
            sharing=sharing,
            compile_network=compiles(config.compile, self.device) and worthwhile(config.compile, step, videos),
        )
        content = sharing.from_first(files.saved() if ranks().is_first else None)
        if content is not None:
            files.restore(trainer, content)
        return trainer, settings

    def _starting_network(self, step: Step) -> "tuple[STResNet, dict[str, Any]]":
        """The network as `step` begins, and the settings that build it again. It stays random where it starts from
        steps `to_come`."""
        from pipelines.models import STResNet, load_pretrained

        config = self.config
        settings = asdict(self.described.network) | {
            "dropout": step.dropout,
            "temporal_pool": step.temporal_pool,
            "streams": step.streams,
        }
        is_base = step.name in ("appearance", "motion")
        if is_base:
            settings |= {"fusion": "none", "direction": "none", "temporal_kernels": False}
        network = STResNet(**settings)
        start = self.starts.get(step.name)
        if start is not None:
            start.fill(network)
        elif is_base:
            load_pretrained(network, config.weights or config.base.weights, download=not config.dry_run)
        else:
            self._fill_from_steps_before(network, step)
        return network, settings

    def _fill_from_steps_before(self, network: "STResNet", step: Step) -> None:
        from pipelines.models import load_streams

        before: list[tuple[Run, StepName]] = [(self.run, "joint1")]
        if step.name == "joint1":
            before = [(self.base, "appearance"), (self.base, "motion")]
        for run, name in before:
            if name in self.to_come:
                continue
            if not run.weights_file(name).exists():
                raise MissingError(
                    f"{step.name} starts from {name}, which run {run.name} has not finished: add it to --steps"
                )
            load_streams(network, run.weights(name)["model"])

    def _batches(self, step: Step, start: int, sharing: "Sharing") -> "Iterator[Batch]":
        """This rank's share of the batches of a step from number `start` on; the same ones for any number of
        workers."""
        from pipelines.datasets.loading import make_loader
        from pipelines.datasets.sampler import StepSampler
        from pipelines.datasets.samples import TrainingSamples
        from pipelines.datasets.sampling import TemporalSampling
        from pipelines.runtime.devices import loader_workers

        config, videos = self.config, len(self.data.videos)
        seeds = {"seed": config.seed, "step_index": STEPS.index(step.name)}
        samples = TrainingSamples(
            self.data.videos,
            self.data.labels,
            sampling=TemporalSampling(step.frames, step.stride, STACK),
            scheme=step.crops,
            size=self.described.size,
            streams=step.streams,
            mirror=step.mirror,
            **seeds,
        )
        sampler = StepSampler(videos, step.passes(videos), step.batch_size, start=start, share=sharing.share, **seeds)
        return iter(make_loader(samples, sampler, loader_workers(config.workers, self.device), self.device))


def _precision(asked: str, device: "torch.device") -> "Precision":
    """`auto`: bf16 on a GPU, fp16 on one that computes no bf16, fp32 on a CPU."""
    import torch

    if asked != "auto":
        return cast("Precision", asked)
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
