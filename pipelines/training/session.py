"""One call of `train`: the steps of a prepared run are trained one after the other, or measured.

Under torchrun every process has a session; rank 0 alone writes.
"""

import contextlib
import statistics
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from pipelines.datasets.class_balance import class_weights
from pipelines.datasets.loading import make_loader
from pipelines.datasets.sampler import StepSampler
from pipelines.datasets.samples import Batch, TrainingSamples
from pipelines.datasets.sampling import TemporalSampling
from pipelines.errors import Interrupted, StorageError, UsageError
from pipelines.models import STResNet, load_pretrained, load_streams
from pipelines.runtime.devices import loader_workers, memory_errors
from pipelines.runtime.progress import OnProgress, note
from pipelines.runtime.ranks import ranks
from pipelines.runtime.signals import stop_requests
from pipelines.storage.atomic import free_gigabytes, require_writable
from pipelines.training.compilation import compiles, worthwhile
from pipelines.training.data_parallel import DataParallelPlan, uses_sync_bn
from pipelines.training.estimation import Estimate, StepEstimate, measure
from pipelines.training.findings import finding
from pipelines.training.loop import Diverged, StepTrainer
from pipelines.training.metrics_log import MetricsLog, read_records
from pipelines.training.preparation import PreparedRun
from pipelines.training.recipes import STEPS, Step, StepName
from pipelines.training.runs import Run, StepResult, load_network
from pipelines.training.step_files import StepFiles
from pipelines.training.validation import held_out_measure

VALIDATE_EVERY = 100  # updates


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
            uses_sync_bn(step, len(self.prepared.videos(step)), ranks().size, self.sync_bn)

    def train(self, step: Step, checkpoint_seconds: float) -> tuple[StepResult, dict[str, str]]:
        """Trains one step, from its checkpoint where there is one, and leaves its weights.

        Args:
            checkpoint_seconds: Between two checkpoints.

        Returns:
            What the step came to, and of every video that could not be read its id and the reason.

        Raises:
            MissingError: The weights of a step before it cannot be read, or it diverges.
            StorageError: Its weights have no room on the disk, or writing fails.
            Interrupted: After a signal; a checkpoint was written.
        """
        files = self._files(step)
        finished = ranks().broadcast_from_rank0(files.finished)
        if finished is not None:
            return finished
        trainer, network = self._trainer(step, files)
        # Or the last update is done before it shows that its weights have no room.
        room = sum(value.nbytes for value in trainer.model.state_dict().values())
        ranks().broadcast_from_rank0(lambda: require_writable(self.prepared.run.folder, room=room))
        log = MetricsLog(self.prepared.run.folder, step.name, trainer.state.iteration) if ranks().is_first else None

        def save() -> None:
            content = files.content(trainer)
            ranks().broadcast_from_rank0(lambda: files.save(content))

        try:
            with stop_requests() as stop, memory_errors("give a smaller --micro-batch"), self._explained(step, log):
                try:
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
                except Interrupted:
                    # Some stop a run for what its curves show, and leave it so.
                    self._warn(self._finding(step, interrupted=True))
                    raise
                trainer.sync_state()
                result = ranks().broadcast_from_rank0(lambda: self._finish(files, trainer, network))
                self._warn(result[0].finding)
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
        return replace(result, finding=self._finding(trainer.step)), unreadable

    def _finding(self, step: Step, *, interrupted: bool = False) -> str:
        """What the step's log says of it until now (`finding`)."""
        data, config = self.prepared.data, self.prepared.config
        records = read_records(self.prepared.run.folder, config).get(step.name)
        videos = Counter(data.classes[label] for label in data.labels)
        return finding(step.name, records, videos, config.balance, interrupted=interrupted) if records else ""

    def _warn(self, text: str) -> None:
        if text:
            self.on_progress(note(f"warning: {text}"))

    def estimate(self, *, overwrite: bool) -> tuple[Estimate, dict[str, str]]:
        """What the steps that are still to do will take, from some updates of each.

        Args:
            overwrite: Count nothing that the run has, since it would be archived.

        Returns:
            The estimate; and by id, why videos were unreadable in these updates, or in the steps that are finished.
        """
        run, base = self.prepared.run, self.prepared.base_run
        if overwrite:
            run = Run(run.folder / ".none" / run.name)
            base = run if base == self.prepared.run else base
        finished = ranks().broadcast_from_rank0(run.finished)
        to_do = [step for step in self.prepared.steps if step.name not in finished]
        prepared = replace(self.prepared, run=run, base_run=base)
        session = replace(self, prepared=prepared, to_come=[step.name for step in to_do])
        done = [step.name for step in self.prepared.steps if step.name in finished]
        unreadable: dict[str, str] = {}
        for name in done:
            unreadable |= run.weights(name)["bad"]
        estimates = []
        for step in to_do:
            cost, reasons = session._estimate_step(step)
            estimates.append(cost)
            unreadable |= reasons
        return Estimate.of(estimates, done, free_gigabytes(self.prepared.run.folder)), unreadable

    def _estimate_step(self, step: Step) -> tuple[StepEstimate, dict[str, str]]:
        files = self._files(step)
        trainer, network = self._trainer(step, files)
        begin = trainer.state.iteration
        with memory_errors("give a smaller --micro-batch"), self._explained(step):
            seconds, memory = measure(trainer, self._batches(trainer), self.on_progress)
        weights, checkpoint = files.sizes(trainer, network)
        updates, median = trainer.total - begin, statistics.median(seconds)
        cost = StepEstimate(
            step=step.name,
            videos=trainer.videos,
            updates=updates,
            done=begin,
            batch_size=min(step.batch_size, trainer.videos * step.passes(trainer.videos)),
            seconds_per_update=median,
            measured_updates=len(seconds),
            hours=median * updates / 3600,
            weights_gigabytes=weights / 1e9,
            checkpoint_gigabytes=checkpoint / 1e9,
            memory_gigabytes=memory,
        )
        return cost, trainer.state.unreadable

    @contextlib.contextmanager
    def _explained(self, step: Step, log: MetricsLog | None = None) -> Iterator[None]:
        """Adds to the errors of an update what to do about them: to `Diverged`, after which the run keeps its settings
        and the steps it has finished, and the log what was said, for `status`; and to batch norm's refusal of a single
        value, which becomes a `UsageError`."""
        try:
            yield
        except ValueError as error:
            if "Expected more than 1 value per channel" not in str(error):
                raise
            height, width = self.prepared.config.size
            raise UsageError(
                f"batch norm has no statistics of one picture of {height}x{width} pixels, as a batch or a part of one "
                f"is in {step.name}: give a larger --size, or at least 2 as --batch-size and --micro-batch"
            ) from error
        except Diverged as error:
            cure = self._other_start(step) if error.at_start else self._lower_rate(step)
            told = f"{error}: {cure}; no weights were written"
            if log is not None:
                with contextlib.suppress(StorageError):  # the divergence is what to tell
                    log.write_divergence(told)
            raise Diverged(told) from None

    def _lower_rate(self, step: Step) -> str:
        """How to train a step again that diverged."""
        prepared = self.prepared
        what, options = "rate", f"--name NEW --lr {step.name}={step.lr / 10:.2g}"
        if step.weight_decay > max(1.0, 1 / step.lr):  # an update takes more from a weight than it has
            what, options = "weight decay", f"--name NEW --weight-decay {step.name}={0.01 / step.lr:.2g}"
        if step.name == "joint1":
            joint = [each.name for each in prepared.steps if each.name in ("joint1", "joint2")]
            options += f" --steps {','.join(joint)} --base-run {prepared.base_run.name}"
        elif step.name == "joint2":
            options += f" --steps joint2 --weights run:{prepared.run.name}/joint1"
        elif step.name == "student":
            options += f" --steps student --base-run {prepared.teacher[0].name}"
        if prepared.config.precision != "fp32":
            options += ", or --precision fp32"
        return f"train it again with a lower {what} ({options})"

    def _other_start(self, step: Step) -> str:
        """What to do about a step whose first weights give no finite loss."""
        prepared, again = self.prepared, "train that again with a lower --lr"
        if step.name in prepared.source_steps or step.name in ("appearance", "motion"):
            cure = f"no rate helps, but other weights than --weights {prepared.config.weights}"
        elif step.name == "student":
            cure = f"it starts from run {prepared.teacher[0].name}: {again}"
        elif step.name == "joint1":
            cure = f"it starts from appearance and motion of run {prepared.base_run.name}: {again}"
        else:
            cure = f"it starts from joint1 of run {prepared.run.name}: {again}"
        return cure + ("" if prepared.config.precision == "fp32" else ", or try --precision fp32")

    def _files(self, step: Step) -> StepFiles:
        return StepFiles(self.prepared.run, step, self.prepared.config.of_step(step.name))

    def _trainer(self, step: Step, files: StepFiles) -> tuple[StepTrainer, dict[str, Any]]:
        """What trains a step from its checkpoint, or its start; and the settings that build its network again."""
        config, data, videos = self.prepared.config, self.prepared.data, len(self.prepared.videos(step))
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
            class_weights=class_weights(data.labels, len(data.classes)) if config.balance == "loss" else None,
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
                if name not in self.to_come:
                    load_streams(network, run.weights(name)["model"])
        return network, settings

    def _batches(self, trainer: StepTrainer) -> Iterator[Batch]:
        """This process's part of the batches from the next update on, the same for any number of loader processes."""
        config, step = self.prepared.config, trainer.step
        videos, labels = self.prepared.videos(step), self.prepared.labels(step)
        seeds = {"seed": config.seed, "step_index": STEPS.index(step.name)}
        samples = TrainingSamples(
            videos,
            labels,
            sampling=TemporalSampling(step.frames, step.stride, config.network.flow_channels // 2),
            scheme=step.augmentation,
            size=config.size,
            streams=step.inputs,
            mirror=step.mirror,
            color_jitter=step.color_jitter,
            # A teacher is to see the motion that its student sees.
            flow_scale=step.flow_scale if "motion" in step.streams else 1.0,
            **seeds,
        )
        sampler = StepSampler(
            len(videos),
            step.passes(len(videos)),
            step.batch_size,
            start=trainer.state.iteration,
            labels=labels if config.balance == "sampler" else None,
            share=trainer.plan.local_items,
            **seeds,
        )
        return iter(make_loader(samples, sampler, loader_workers(self.workers, self.device), self.device))
