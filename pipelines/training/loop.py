"""The training loop: one step of a recipe from its first update to its last, on one device or many.

Letters: B videos, T frames, T' time steps of the logits, C classes.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pipelines.datasets.preparation import Prepare, reduced
from pipelines.datasets.samples import NO_CLASS, Batch
from pipelines.errors import Interrupted, MissingError
from pipelines.interface.options import Precision
from pipelines.models import StreamLogits, STResNet
from pipelines.models.dropout import VideoDropout
from pipelines.models.grouped_batch_norm import GroupedBatchNorm
from pipelines.runtime.devices import free_gpu_memory
from pipelines.runtime.progress import OnProgress, Progress, ignore_progress
from pipelines.runtime.signals import StopRequest
from pipelines.training.compilation import compiled
from pipelines.training.data_parallel import DataParallelPlan, LocalMicroBatch, joined_passes
from pipelines.training.distillation import MATCHING_LOSSES, Student, Teacher, matching_losses
from pipelines.training.metrics_log import MetricsLog
from pipelines.training.optimiser import learning_rate, make_optimiser, set_learning_rate
from pipelines.training.recipes import STEPS, Step
from pipelines.training.running_stats import RunningStats
from pipelines.training.step_state import UPDATES_PER_LOG_LINE, StepState

_SHARE_OF_MEMORY = 0.8  # of what is free, to be taken by micro-batches at once
_LOWEST_SCALE = 1e-4  # of fp16's loss; it begins at 65536, and every skipped update halves it

Validate = Callable[[STResNet, int], Mapping[str, float]]
"""Given the network in evaluation mode and the number of updates done, gives what it measured, by name."""


class Diverged(MissingError):
    """The loss or a weight is no longer a finite number.

    Args:
        at_start: The loss never was one: the weights that the step starts from give none.
    """

    def __init__(self, message: str, *, at_start: bool = False) -> None:
        super().__init__(message)
        self.at_start = at_start


class StepTrainer:
    """Trains a network by one step of a recipe; everything it needs to continue is in `state_dict()`."""

    def __init__(
        self,
        model: STResNet,
        step: Step,
        videos: int,
        device: torch.device,
        precision: Precision = "fp32",
        *,
        seed: int = 0,
        plan: DataParallelPlan | None = None,
        compile_network: bool = False,
        at_once: int | None = 1,
        class_weights: np.ndarray | None = None,
        teacher: STResNet | None = None,
    ) -> None:
        """
        Args:
            model: The network as the step begins; it is moved to `device` and put into training mode, and what the
                step freezes gets no gradients.
            step: The step's numbers.
            videos: Number of training videos.
            device: Where to compute.
            precision: Of the forward pass; weights stay float32.
            seed: Of dropout, whose draws depend on it, the step, the update and the micro-batch, and on nothing else.
            plan: This process's part, where several train together.
            compile_network: Whether to use `torch.compile`.
            at_once: Most micro-batches in a pass through the network, each with batch-norm statistics of its own; None:
                on a GPU as many as its memory has room for, on a CPU one.
            class_weights: Of the loss of each class's videos, [C]; None: all alike.
            teacher: The joint network that a student learns from; None for other steps.
        """
        self.model = model.to(device).train()
        for stream in model.streams.values():
            stream.freeze(step.freeze)
        self.step = step
        self.videos = videos
        self.total = step.updates(videos)
        self.device = device
        self.precision = precision
        self.seed = seed
        self.plan = plan or DataParallelPlan(step, videos)
        # Processes that share a micro-batch compute its statistics together; dropout draws for a micro-batch by itself.
        self.at_once = 1 if self.plan.sync_bn or step.dropout else at_once
        # One network in three wrappers: `model` holds the weights, `parallel_model` exchanges gradients where several
        # processes train, and `network` is that one, compiled where it is to be.
        self.teacher = None if teacher is None else Teacher(teacher).to(device)
        self.student = None if teacher is None else Student(model).to(device)
        trained = self.student or model
        self.parallel_model = self.plan.wrap(trained)
        self.network = compiled(self.parallel_model) if compile_network else self.parallel_model
        self.running_stats = RunningStats(model, across_processes=self.plan.deals_micro_batches)
        self.dropouts = [module for module in model.modules() if isinstance(module, VideoDropout)]
        self.batch_norms = [module for module in model.modules() if isinstance(module, GroupedBatchNorm)]
        self.prepare = Prepare(model.normalise(), reduced(precision), on_gpu=device.type == "cuda").to(device)
        self.optimiser = make_optimiser(trained, step, may_skip=precision == "fp16")
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.class_weights = None if class_weights is None else torch.tensor(class_weights).float().to(device)
        self.state = StepState()
        self.copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        # The first update whose loss was not finite; on the device, so that looking for one does not wait for it.
        self.first_not_finite = torch.full((), math.inf, dtype=torch.float64, device=device)

    def fit(
        self,
        batches: Iterable[Batch],
        *,
        log: MetricsLog | None = None,
        stop: StopRequest | None = None,
        save: Callable[[], None] | None = None,
        save_seconds: float = math.inf,
        on_validate: Validate | None = None,
        validate_every: int = UPDATES_PER_LOG_LINE,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        """Trains until the step's last update, or the last of `batches`. All processes call it alike.

        Args:
            batches: What this process loads of each batch, from that of the next update on (`local_items` of the plan).
            log: Takes a line every `UPDATES_PER_LOG_LINE` updates; of rank 0.
            stop: When set on any process, all of them save and end after the same update.
            save: Writes a checkpoint.
            save_seconds: Between two checkpoints.
            on_validate: Called between updates, on all processes after the same one. Whatever it does with the network
                and with torch's random numbers, training goes on as if it had not been called.
            validate_every: Updates between two calls, a multiple of `UPDATES_PER_LOG_LINE`; and after the last update.
            on_progress: Called after every update.

        Raises:
            Diverged: A loss or weight is not finite; before such numbers are logged or saved.
            Interrupted: `stop` was set; a checkpoint was saved.
        """
        assert validate_every % UPDATES_PER_LOG_LINE == 0
        step, state, plan = self.step, self.state, self.plan
        started = saved = time.monotonic()
        seconds_before = state.seconds
        for batch in batches:
            set_learning_rate(self.optimiser, learning_rate(step, state.iteration, self.total))
            micro_batches, number_used, videos = plan.micro_batches(batch, self.model)
            if self.at_once is None and videos:
                self.at_once = self._fitting(micro_batches)
            with self.running_stats.of_update(number_used):
                for micro_batch in joined_passes(micro_batches, self.at_once or 1):
                    with plan.taking_part(self.parallel_model, micro_batch):
                        self._seed_dropout(micro_batch)
                        # Not the compiled network for a blank: its size would be compiled for nothing.
                        network = self.network if micro_batch.videos else self.parallel_model
                        content, logits, matching = self._forward(network, micro_batch)
                        cross_entropy = loss = video_loss(
                            logits, content.labels, step.label_smoothing, self.class_weights
                        )
                        for name, value in matching.items():  # a weight is that beside one cross-entropy of many
                            loss = loss + step.terms * getattr(step, MATCHING_LOSSES[name]) * value
                        # `loss` is a sum over this pass's videos, and `videos` counts those of the whole batch: added
                        # up over passes, the gradients are those of the mean over the batch's videos. Over processes
                        # DistributedDataParallel averages them; times their number it is the sum.
                        weight = plan.size if micro_batch.videos else 0
                        self.scaler.scale(loss / videos * weight).backward()
                    self.running_stats.collect(micro_batch.share, micro_batch.count)
                    if micro_batch.videos:
                        self._measure(loss.detach(), cross_entropy.detach(), logits, content.labels)
                        for name, value in matching.items():
                            self.state.add(name, value.detach())
                        if matching:
                            self.state.add("videos_without_class", (content.labels == NO_CLASS).sum())
            if videos:
                self.scaler.step(self.optimiser)
                self.scaler.update()
            self.optimiser.zero_grad(set_to_none=True)
            state.unreadable.update(batch.bad)
            state.iteration += 1
            state.seconds = seconds_before + time.monotonic() - started

            at_end = state.iteration == self.total
            if state.iteration % UPDATES_PER_LOG_LINE == 0 or at_end:
                self._require_finite(weights=True)
                self.sync_state()
                line = state.end_line(step, self.videos, self.total)
                if on_validate is not None and (state.iteration % validate_every == 0 or at_end):
                    with undisturbed(self.model, self.device):
                        measured = on_validate(self.model, state.iteration)
                    state.validation = {f"validation_{name}": value for name, value in measured.items()}
                    line |= state.validation
                    if measured and plan.ranks.is_first:
                        state.keep_if_best(self.model)
                if log is not None:
                    log.write(state.iteration, line)
            elif self.device.type == "cpu":  # a GPU would have to be waited for
                self._require_finite()
            on_progress(Progress(f"train {step.name}", state.iteration, self.total, "updates", state.shown()))
            if at_end:
                break

            signalled = stop.signal_number if stop is not None else None
            signal_number, due = plan.max([signalled or 0, time.monotonic() - saved >= save_seconds])
            if signal_number or due:
                self._require_finite(weights=True)
                if save is not None:
                    save()
                saved = time.monotonic()
            if signal_number:
                raise Interrupted(int(signal_number))

    def _forward(
        self, network: Callable[..., Any], micro_batch: LocalMicroBatch
    ) -> tuple[Batch, StreamLogits, dict[str, torch.Tensor]]:
        """A pass forward: what it was of, on the device, its logits, and how far a student is from its teacher."""
        for norm in self.batch_norms:
            norm.groups = micro_batch.count
        content = self._on_device(micro_batch.batch)
        with autocast_of(self.device, self.precision):
            inputs = self.prepare(content.rgb, content.flow)
            if self.teacher is None:
                return content, network(*inputs), {}
            taught = self.teacher(*inputs)
            logits, features = network(*inputs)
        return content, logits, matching_losses(logits, features, taught, self.step.temperature)

    def _on_device(self, batch: Batch) -> Batch:
        """On a GPU the copying overlaps with what was begun before, whose end the host does not wait for."""
        if self.copies is None:
            return batch.to(self.device)
        with torch.cuda.stream(self.copies):
            there = batch.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.copies)
        there.record_stream(computing)
        return there

    def _fitting(self, micro_batches: list[LocalMicroBatch]) -> int:
        """How many micro-batches a pass has memory for, by what the largest takes alone; the same on all processes."""
        if self.device.type != "cuda":
            return 1
        room = math.inf
        if readable := [micro_batch for micro_batch in micro_batches if micro_batch.videos]:
            before = [buffer.clone() for buffer in self.model.buffers()]
            at_rest = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            content, logits, _ = self._forward(
                self.student or self.model, max(readable, key=lambda micro_batch: micro_batch.videos)
            )
            video_loss(logits, content.labels).backward()
            taken = torch.cuda.max_memory_allocated(self.device) - at_rest
            self.optimiser.zero_grad(set_to_none=True)
            for buffer, value in zip(self.model.buffers(), before, strict=True):
                buffer.copy_(value)
            room = _SHARE_OF_MEMORY * free_gpu_memory(self.device) // taken
        return int(max(1, min(-self.plan.max([-room])[0], len(micro_batches))))

    def _seed_dropout(self, micro_batch: LocalMicroBatch) -> None:
        """Makes its draws those for these videos of the micro-batch, whichever process computes them."""
        seed = (self.seed, STEPS.index(self.step.name), self.state.iteration, micro_batch.number)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
        for dropout in self.dropouts:
            dropout.share = (micro_batch.positions, micro_batch.size)

    def _measure(
        self, loss: torch.Tensor, cross_entropy: torch.Tensor, logits: StreamLogits, labels: torch.Tensor
    ) -> None:
        """Adds a micro-batch to what the next log line tells; does not wait for the device."""
        update = torch.full_like(self.first_not_finite, self.state.iteration + 1)
        earliest = torch.minimum(self.first_not_finite, update)
        self.first_not_finite = torch.where(torch.isfinite(loss), self.first_not_finite, earliest)
        self.state.add("loss", cross_entropy)
        self.state.add("videos", (labels != NO_CLASS).sum())
        for name, correct in correct_videos(logits, labels).items():
            self.state.add(f"{name}_accuracy", correct)

    def _require_finite(self, *, weights: bool = False) -> None:
        """Raises `Diverged`, on all processes alike, where a loss was not finite; with `weights` also where one of the
        network's tensors is not, or no scale makes fp16's gradients so."""
        tensor, stuck = "", False
        if weights:
            floats = {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}
            largest = torch.stack(torch._foreach_norm(list(floats.values()), math.inf))  # of NaN it is NaN
            if not bool(torch.isfinite(largest).all()):
                tensor = list(floats)[int((~torch.isfinite(largest)).nonzero()[0])]
            stuck = self.scaler.is_enabled() and self.scaler.get_scale() < _LOWEST_SCALE
        first, broken, scaled = self.plan.max([-float(self.first_not_finite), bool(tensor), stuck])
        number = self.state.iteration
        if first == -1:
            raise Diverged(f"{self.step.name}: the loss is not a finite number before the first update", at_start=True)
        if first > -math.inf:
            number = int(-first)
            what = f"the loss of update {number} of {self.total} is not a finite number"
        elif broken:
            what = f"after update {number} of {self.total} {tensor or 'a tensor'} holds NaN or infinity"
        elif scaled:
            what = f"until update {number} of {self.total} the gradients were not finite in fp16, however scaled"
        else:
            return
        rate = learning_rate(self.step, number - 1, self.total)
        raise Diverged(f"{self.step.name} diverged: {what}, at a learning rate of {rate:.3g}")

    # ------------------------------------------------------------------ continuing

    def sync_state(self) -> None:
        """Gives rank 0 the sums of all processes, and every process all that is known of unreadable videos."""
        if self.plan.size == 1:
            return
        own = [{name: float(value) for name, value in self.state.sums.items()}, self.state.unreadable]
        gathered = self.plan.gather(own)
        names = list(dict.fromkeys(name for sums, _ in gathered for name in sums))
        totals = {name: sum(sums.get(name, 0.0) for sums, _ in gathered) for name in names}
        self.state.unreadable = {id_: reason for _, unreadable in gathered for id_, reason in unreadable.items()}
        self.state.sums = {}
        if self.plan.ranks.is_first:
            device = self.device
            self.state.sums = {n: torch.tensor(v, dtype=torch.float64, device=device) for n, v in totals.items()}

    def state_dict(self) -> dict[str, object]:
        """Everything that continuing needs. All processes call it; rank 0's counts."""
        self.sync_state()
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "at_once": self.at_once,
            **({"student": self.student.feature_map.state_dict()} if self.student else {}),
            **self.state.to_dict(),
        }

    def load_state_dict(self, content: dict) -> None:
        """Puts `state_dict()` back, bit for bit; all processes call it with rank 0's."""
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        if self.at_once is None:
            self.at_once = int(content.get("at_once", 1) or 1)  # 1 before there was a choice
        if self.student is not None:
            self.student.feature_map.load_state_dict(content["student"])
        # Sums add up over processes: one of them continues those of all.
        self.state = StepState.from_dict(content, self.device, with_sums=self.plan.ranks.is_first)


@contextlib.contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Puts `model` into evaluation mode, without gradients; afterwards its mode and torch's random state are as before.

    Running statistics do not move in evaluation mode.
    """
    training = [module for module in model.modules() if module.training]
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


def autocast_of(device: torch.device, precision: Precision) -> torch.autocast:
    """The context of a forward pass in that precision."""
    return torch.autocast(device.type, reduced(precision) or torch.bfloat16, enabled=precision != "fp32")


def video_loss(
    logits: StreamLogits,
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The cross-entropies of both streams at every time step, summed (paper.md 2.4).

    Args:
        logits: Each [B, T', C], or None.
        labels: int64 [B], the same for all time steps of a video; a video of `NO_CLASS` adds nothing.
        label_smoothing: Probability given to all classes alike, from 0 to below 1.
        class_weights: What the cross-entropy of a video of each class is multiplied by, [C].

    Returns:
        The sum over videos, a scalar. Dividing the sum of all micro-batches by the batch's videos gives the mean.
    """
    total = labels.new_zeros((), dtype=torch.float32)
    for stream in logits:
        if stream is not None:
            steps = stream.shape[1]
            each = labels.repeat_interleave(steps)
            losses = F.cross_entropy(
                stream.flatten(0, 1).float(),
                each,
                label_smoothing=label_smoothing,
                reduction="sum" if class_weights is None else "none",
            )
            total = total + (losses if class_weights is None else (losses * class_weights[each.clamp_min(0)]).sum())
    return total


def correct_videos(logits: StreamLogits, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """How many videos each stream classifies correctly by its logits averaged over time, and both streams together.

    Args:
        logits: Each [B, T', C], or None.
        labels: int64 [B].

    Returns:
        By stream, and as `fused` by the sum of both, a scalar on the logits' device, which need not be waited for.
    """
    means = {name: stream.detach().float().mean(1) for name, stream in logits._asdict().items() if stream is not None}
    if len(means) == 2:
        means["fused"] = means["appearance"] + means["motion"]
    return {name: (mean.argmax(1) == labels).sum() for name, mean in means.items()}
