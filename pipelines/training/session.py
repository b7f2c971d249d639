"""One call of `train`: the run is prepared, then its steps are trained one after the other, or measured.

Under torchrun every process has a session; rank 0 alone writes.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pipelines.datasets.class_balance import class_weights
from pipelines.datasets.loading import make_loader
from pipelines.datasets.sampler import StepSampler
from pipelines.datasets.samples import Batch, TrainingSamples
from pipelines.datasets.sampling import TemporalSampling
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.protocols import IMPORTED
from pipelines.interface.options import Precision
from pipelines.models import STResNet, load_pretrained, load_streams
from pipelines.models.weights import read_pretrained
from pipelines.runtime.devices import loader_workers, memory_errors
from pipelines.runtime.progress import OnProgress, note
from pipelines.runtime.ranks import ranks
from pipelines.runtime.signals import stop_requests
from pipelines.storage.atomic import free_gigabytes, remove_left_over_temporary_files, require_writable
from pipelines.storage.workspace import Workspace
from pipelines.training.compilation import compiles, worthwhile
from pipelines.training.data import TrainingData
from pipelines.training.data_parallel import DataParallelPlan, uses_sync_bn
from pipelines.training.estimation import Estimate, StepEstimate, measure
from pipelines.training.findings import finding
from pipelines.training.fine_tuning import (
    SourceStep,
    find_source,
    find_source_steps,
    find_teacher,
    flow_difference,
    network_of_weights,
    tested_before,
)
from pipelines.training.loop import Diverged, StepTrainer
from pipelines.training.metrics_log import MetricsLog, read_records
from pipelines.training.recipes import STEPS, Step, StepName
from pipelines.training.run_config import RunConfig, weights_digest
from pipelines.training.runs import (
    Run,
    archive,
    describe_base,
    find_run,
    load_network,
    only_trainer,
    with_known_weights,
    write_or_compare,
)
from pipelines.training.step_files import StepFiles, StepResult
from pipelines.training.validation import held_out_measure

VALIDATE_EVERY = 100  # updates


@dataclass(frozen=True)
class PreparedRun:
    """A run that may be trained: nothing that its steps need is missing."""

    run: Run
    base_run: Run
    """The run whose streams joint1 starts from: another one with `--base-run`."""
    data: TrainingData
    config: RunConfig
    """With the steps of this call, in the order of training, and no others."""
    source_steps: Mapping[StepName, SourceStep]
    """Of the steps that begin with another run's weights: which."""

    @property
    def teacher(self) -> tuple[Run, StepName]:
        """The joint network that the student learns from."""
        teacher = self.config.steps["student"].teacher
        assert teacher is not None
        return self.base_run if teacher.sha256 else self.run, teacher.step

    @property
    def steps(self) -> list[Step]:
        """The steps to train, in order."""
        return [step.step for step in self.config.steps.values()]


def prepare_run(
    workspace: Workspace,
    run: Run,
    data: TrainingData,
    config: RunConfig,
    *,
    given: Mapping[str, Any],
    base_run: str | None,
    overwrite: bool,
    write: bool,
    held: contextlib.ExitStack,
    on_progress: OnProgress,
) -> PreparedRun:
    """Finds what the steps of `config` start from, and writes the run's configuration or compares it.

    Until `held` is closed, no other process trains into the run.

    Args:
        workspace: Where the run lies.
        run: The run, which may be there already.
        data: Its training videos.
        config: What the options say of it, without what other runs contribute.
        given: What of the network was asked for, whatever the weights are; None where it was not.
        base_run: Name or folder of the run whose streams joint1 starts from; None for `run` itself.
        overwrite: Archive a run of that name first.
        write: False compares only, and loads no pretrained weights from the network.
        held: Takes the lock on the run.
        on_progress: Is told what the steps start from.

    Raises:
        UsageError: The run was begun with another configuration, its name is that of imported scores, or a source of
            weights does not fit it.
        MissingError: Weights or another run are missing, or another process trains into the run.
    """
    imported = workspace.scores / run.name / IMPORTED
    if imported.exists() and not run.config_file.exists() and not overwrite:
        raise UsageError(
            f"there is no run {run.name}, but scores of another program were imported under that name ({imported}): "
            "give another --name, or --overwrite to move them aside"
        )
    base = run if base_run is None else find_run(workspace, base_run)
    finished = [] if overwrite else run.finished()
    selected = list(config.steps)
    source_steps: dict[StepName, SourceStep] = {}
    known = run.config() if run.config_file.exists() and not overwrite else None
    if "student" in selected:
        teacher = find_teacher(run, base, [*finished, *selected], known)
        own = {**(known.steps if known else {}), **config.steps}
        pool = (base.config().steps if teacher.sha256 else own)[teacher.step].step.temporal_pool
        student = replace(config.steps["student"], teacher=teacher)
        if pool is not None and student.step.frames < pool[0]:
            raise UsageError(
                f"--frames {student.step.frames} for student: its teacher {teacher.step} pools over {pool[0]} frames, "
                "give at least as many"
            )
        config = replace(config, steps={**config.steps, "student": student})
    source = find_source(config.weights, workspace)
    lender = source.run if source is not None else base if base != run else None
    config = replace(config, network=network_of_weights(config, given, lender, known))
    if source is not None:
        lent = [] if base_run is None else ["appearance", "motion"]
        source_steps = find_source_steps(source, run, [*finished, *lent], selected, config)
        begun = [step.described(name) for name, step in source_steps.items() if name not in finished]
        differences = [flow_difference(source.run, config.flow), tested_before(source, data)] if begun else []
        for text in (*begun, *differences):
            if text:
                on_progress(note(text))
        steps = {name: replace(config.steps[name], weights=step.record()) for name, step in source_steps.items()}
        config = replace(config, weights=source.text, steps={**config.steps, **steps})
    config = replace(config, weights_sha256=weights_digest(config.weights))
    if not overwrite:
        config = with_known_weights(run, config)
    if base != run:
        config = replace(config, base_run=describe_base(base, config, data.sources))
    read = config.weights != "imagenet" and not (known and known.weights == config.weights)  # by `network_of_weights`
    if not read and {"appearance", "motion"} & set(selected) - {*source_steps, *finished}:  # before hours of work
        read_pretrained(config.network.depth, config.network.width, config.weights, download=write)
    prepared = PreparedRun(run, base, data, config, source_steps)
    held_out = [video.id for video in data.validation]
    if not write:
        if not overwrite:
            write_or_compare(run, config, data.split, data.sources, held_out, write=False)
        return prepared
    if overwrite:
        archive(workspace, run)
    if to_do := [run.weights_file(name).parent for name in selected if not run.weights_file(name).exists()]:
        require_writable(workspace.root, run.folder, run.folder / "tensorboard", *to_do)
    held.enter_context(only_trainer(run))
    remove_left_over_temporary_files(workspace.root, below=False)
    remove_left_over_temporary_files(run.folder)
    write_or_compare(run, config, data.split, data.sources, held_out)
    return prepared


@dataclass(frozen=True)
class Session:
    """What the steps of one call share."""

    prepared: PreparedRun
    device: torch.device
    workers: int
    """Loader processes; 0: as many as suit the device."""
    compile: bool | None
    """Whether to compile the network; None: on a GPU, in steps long enough to gain."""
    sync_bn: bool | None
    """Whether processes share each micro-batch; None: in steps that have too few to deal out."""
    at_once: int | None
    """Most micro-batches in a pass through the network; None: as many as a GPU has memory for, one on a CPU."""
    download: bool
    """Whether pretrained weights may be downloaded; without them a network stays random."""
    on_progress: OnProgress
    to_come: Collection[StepName] = ()
    """Steps whose weights are not there yet, but will be when the others need them."""

    def __post_init__(self) -> None:
        """Raises `UsageError` where a step leaves processes without work."""
        for step in self.prepared.steps:
            uses_sync_bn(step, len(self.prepared.data.videos), ranks().size, self.sync_bn)

    def train(self, step: Step, checkpoint_seconds: float) -> tuple[StepResult, dict[str, str]]:
        """Trains one step, from its checkpoint where there is one, and leaves its weights.

        Args:
            step: The step.
            checkpoint_seconds: Between two checkpoints.

        Returns:
            What the step came to, and of every video that could not be read its id and the reason.

        Raises:
            MissingError: A step before it is missing, or it diverges.
            Interrupted: After a signal; a checkpoint was written.
        """
        files = self._files(step)
        finished = ranks().broadcast_from_rank0(files.finished)
        if finished is not None:
            return finished
        trainer, network = self._trainer(step, files)
        log = MetricsLog(self.prepared.run.folder, step.name, trainer.state.iteration) if ranks().is_first else None

        def save() -> None:
            content = files.content(trainer)
            ranks().broadcast_from_rank0(lambda: files.save(content))

        try:
            with stop_requests() as stop, memory_errors("give a smaller --micro-batch"), self._divergence(step):
                trainer.fit(
                    self._batches(trainer),
                    log=log,
                    stop=stop,
                    save=save,
                    save_seconds=checkpoint_seconds,
                    on_validate=held_out_measure(self.prepared.data, self.prepared.config, trainer, self.workers),
                    validate_every=VALIDATE_EVERY,
                    on_progress=self.on_progress,
                )
                trainer.sync_state()
                result = ranks().broadcast_from_rank0(lambda: self._finish(files, trainer, network))
                if text := result[0].finding:
                    self.on_progress(note(f"warning: {text}"))
                stop.check()  # a signal during the last update: the step is done and saved
        finally:
            if log is not None:
                log.close()
        return result

    def _finish(
        self, files: StepFiles, trainer: StepTrainer, network: dict[str, Any]
    ) -> tuple[StepResult, dict[str, str]]:
        """Writes what the step leaves, and says how it went."""
        result, unreadable = files.finish(trainer, network)
        data, config = self.prepared.data, self.prepared.config
        records = read_records(self.prepared.run.folder, config).get(result.step)
        videos = Counter(data.classes[label] for label in data.labels)
        text = finding(result.step, records, videos, config.balance) if records else ""
        return replace(result, finding=text), unreadable

    def estimate(self, *, overwrite: bool) -> Estimate:
        """What the steps that are still to do will take, from some updates of each.

        Args:
            overwrite: Count nothing that the run has, since it would be archived.
        """
        run, base = self.prepared.run, self.prepared.base_run
        if overwrite:
            run = Run(run.folder / ".none" / run.name)
            base = run if base == self.prepared.run else base
        finished = ranks().broadcast_from_rank0(run.finished)
        to_do = [step for step in self.prepared.steps if step.name not in finished]
        prepared = replace(self.prepared, run=run, base_run=base)
        session = replace(self, prepared=prepared, to_come=[step.name for step in to_do])
        estimates = [session._estimate_step(step) for step in to_do]
        done = [step.name for step in self.prepared.steps if step.name in finished]
        return Estimate.of(estimates, done, free_gigabytes(self.prepared.run.folder))

    def _estimate_step(self, step: Step) -> StepEstimate:
        files = self._files(step)
        trainer, network = self._trainer(step, files)
        begin = trainer.state.iteration
        with memory_errors("give a smaller --micro-batch"), self._divergence(step):
            measured = measure(trainer, self._batches(trainer), self.on_progress)
        weights, checkpoint = files.sizes(trainer, network)
        return StepEstimate.of(trainer, begin, measured, weights_bytes=weights, checkpoint_bytes=checkpoint)

    @contextlib.contextmanager
    def _divergence(self, step: Step) -> Iterator[None]:
        """Adds to `Diverged` what to do about it: the run keeps its settings and the steps it has finished."""
        try:
            yield
        except Diverged as error:
            options = f"--name NEW --lr {step.name}={step.lr / 10:.2g}"
            if step.name == "joint1":
                options += f" --steps joint1,joint2 --base-run {self.prepared.base_run.name}"
            elif step.name == "joint2":
                options += f" --steps joint2 --weights run:{self.prepared.run.name}/joint1"
            elif step.name == "student":
                options += f" --steps student --base-run {self.prepared.teacher[0].name}"
            if self.prepared.config.precision != "fp32":
                options += ", or --precision fp32"
            raise Diverged(f"{error}: train it again with a lower rate ({options}); no weights were written") from None

    def _files(self, step: Step) -> StepFiles:
        return StepFiles(self.prepared.run, step, self.prepared.config.of_step(step.name))

    def _trainer(self, step: Step, files: StepFiles) -> tuple[StepTrainer, dict[str, Any]]:
        """What trains a step from its checkpoint, or its start; and the settings that build its network again."""
        config, videos = self.prepared.config, len(self.prepared.data.videos)
        torch.manual_seed(config.seed * 1_000_003 + STEPS.index(step.name))
        network, settings = ranks().rank0_first(lambda: self._starting_network(step))
        plan = DataParallelPlan(step, videos, self.sync_bn)
        trainer = StepTrainer(
            network,
            step,
            videos,
            self.device,
            config.precision,
            seed=config.seed,
            plan=plan,
            class_weights=self._class_weights(),
            at_once=self.at_once,
            compile_network=compiles(self.compile, self.device) and worthwhile(self.compile, step, videos),
            teacher=self._teacher() if step.name == "student" else None,
        )
        content = plan.broadcast_from_rank0(files.saved() if ranks().is_first else None)
        if content is not None:
            files.restore(trainer, content)
        return trainer, settings

    def _teacher(self) -> STResNet:
        run, name = self.prepared.teacher
        if name not in self.to_come:
            return load_network(run, name)
        settings = asdict(self.prepared.config.network)
        return STResNet(**settings, temporal_pool=self.prepared.config.steps[name].step.temporal_pool)

    def _class_weights(self) -> np.ndarray | None:
        config, data = self.prepared.config, self.prepared.data
        return class_weights(np.array(data.labels), len(data.classes)) if config.balance == "loss" else None

    def _starting_network(self, step: Step) -> tuple[STResNet, dict[str, Any]]:
        """The network as `step` begins, and the settings that build it again."""
        settings = asdict(self.prepared.config.network) | {
            "dropout": step.dropout,
            "temporal_pool": step.temporal_pool,
            "streams": step.streams,
        }
        is_base = step.name in ("appearance", "motion")
        if is_base:
            settings |= {"temporal_kernels": False}
        if len(step.streams) == 1:
            settings |= {"fusion": "none", "direction": "none"}
        network = STResNet(**settings)
        source = self.prepared.source_steps.get(step.name)
        if source is not None:
            source.fill(network)
        elif is_base:
            load_pretrained(network, self.prepared.config.weights, download=self.download)
        elif step.name == "student":
            run, name = self.prepared.teacher
            if name not in self.to_come:
                weights = run.weights(name)["model"]
                load_streams(network, {key: value for key, value in weights.items() if key.startswith("appearance.")})
        else:
            before: list[tuple[Run, StepName]] = [(self.prepared.run, "joint1")]
            if step.name == "joint1":
                before = [(self.prepared.base_run, "appearance"), (self.prepared.base_run, "motion")]
            for run, name in before:
                if name in self.to_come:
                    continue
                if not run.weights_file(name).exists():
                    raise MissingError(
                        f"{step.name} starts from {name}, which run {run.name} has not finished: add it to --steps"
                    )
                load_streams(network, run.weights(name)["model"])
        return network, settings

    def _batches(self, trainer: StepTrainer) -> Iterator[Batch]:
        """This process's part of the batches from the next update on, the same for any number of loader processes."""
        config, data, step = self.prepared.config, self.prepared.data, trainer.step
        seeds = {"seed": config.seed, "step_index": STEPS.index(step.name)}
        samples = TrainingSamples(
            data.videos,
            data.labels,
            sampling=TemporalSampling(step.frames, step.stride, config.network.flow_channels // 2),
            scheme=step.augmentation,
            size=config.size,
            streams=step.inputs,
            mirror=step.mirror,
            **seeds,
        )
        sampler = StepSampler(
            len(data.videos),
            step.passes(len(data.videos)),
            step.batch_size,
            start=trainer.state.iteration,
            labels=data.labels if config.balance == "sampler" else None,
            share=trainer.plan.local_items,
            **seeds,
        )
        return iter(make_loader(samples, sampler, loader_workers(self.workers, self.device), self.device))


def resolve_precision(asked: str, device: torch.device, recipe: str = "") -> Precision:
    """The precision to compute in.

    Args:
        asked: `auto` stands for bf16 on a GPU, fp16 on one that cannot compute bf16, fp32 on a CPU.
        device: Where to compute.
        recipe: With `finetune`, `auto` is bf16 on a CPU that is quick at it, too.
    """
    if asked != "auto":
        return cast(Precision, asked)
    if device.type != "cuda":
        about = Path("/proc/cpuinfo")  # on Linux
        is_quick = device.type == "cpu" and about.is_file() and "avx512_bf16" in about.read_text(errors="replace")
        return "bf16" if recipe == "finetune" and is_quick else "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
