"""One training step from its first update to its last, through interruptions.

Letters: B videos, T frames, C classes.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from pipelines.datasets.loading import Batch
from pipelines.datasets.order import batches_per_epoch
from pipelines.datasets.preparation import Prepare
from pipelines.interruption import StopRequest
from pipelines.progress import OnProgress, Progress
from pipelines.training.checkpoints import random_state, restore_random_state
from pipelines.training.loss import correct_videos, video_loss
from pipelines.training.metrics_log import MetricsLog
from pipelines.training.optimiser import make_optimiser, set_learning_rate
from pipelines.training.recipes import Step
from pipelines.training.schedule import learning_rate, total_iterations

Precision = Literal["fp32", "bf16", "fp16"]
UPDATES_A_LOG_LINE = 10


@dataclass
class StepState:
    """How far a step has come. `sums` are since the last log line, on the device."""

    iteration: int = 0
    seconds: float = 0.0
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)


class StepTrainer:
    """Trains `model` by one recipe step; everything it needs to continue is in `state_dict()`."""

    def __init__(
        self, model: nn.Module, step: Step, videos: int, device: torch.device, precision: Precision = "fp32"
    ) -> None:
        self.model = model.to(device)
        self.step = step
        self.videos = videos
        self.total = total_iterations(step, videos)
        self.device = device
        self.precision = precision
        self.prepare = Prepare().to(device)
        self.optimiser = make_optimiser(self.model, step)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.state = StepState()

    def run(
        self,
        batches: Callable[[int], Iterator[Batch]],
        log: MetricsLog,
        stop: StopRequest,
        save: Callable[[], None],
        save_seconds: float,
        on_progress: OnProgress,
    ) -> None:
        """Goes on until the last update.

        `batches(k)` gives the batches from number k on. `save` is called every `save_seconds` and when `stop` was
        requested, in which case `Interrupted` is raised afterwards.
        """
        self.model.train()
        started = saved = time.monotonic()
        already = self.state.seconds
        for batch in batches(self.state.iteration):
            self.update(batch)
            now = time.monotonic()
            self.state.seconds = already + now - started
            if self.state.iteration % UPDATES_A_LOG_LINE == 0 or self.state.iteration == self.total:
                self._log(log)
            on_progress(
                Progress(f"train {self.step.name}", self.state.iteration, self.total, "updates", dict(self.state.last))
            )
            if self.state.iteration == self.total:
                break
            if stop.signal_number is not None or now - saved >= save_seconds:
                save()
                saved = time.monotonic()
                stop.check()

    def update(self, batch: Batch) -> None:
        """One update from one batch, in micro-batches; damaged samples are noted and left out."""
        self.state.bad.update(batch.bad)
        set_learning_rate(self.optimiser, learning_rate(self.step, self.state.iteration, self.total))
        count = len(batch.labels)
        for start, stop in _even_parts(count, self.step.micro_batch):
            self._accumulate(batch.part(start, stop), count)
        if count:
            self.scaler.step(self.optimiser)
            self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.state.iteration += 1

    def _accumulate(self, part: Batch, count: int) -> None:
        """Adds the gradients of one micro-batch of a batch of `count` videos."""
        part = part.to(self.device)
        inputs = self.prepare(part.rgb, part.flow)
        with self._autocast():
            logits = self.model(*inputs)
        loss = video_loss(logits, part.labels, self.step.label_smoothing) / count
        self.scaler.scale(loss).backward()
        self._sum("loss", loss.detach() * count)
        self._sum("videos", part.labels.new_tensor(len(part.labels)))
        for name, correct in correct_videos(logits, part.labels).items():
            self._sum(f"{name}_accuracy", correct)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def _sum(self, name: str, value: torch.Tensor) -> None:
        self.state.sums[name] = self.state.sums.get(name, 0) + value.double()

    def _log(self, log: MetricsLog) -> None:
        videos = max(1.0, float(self.state.sums.pop("videos", 0)))
        self.state.last = {name: float(value) / videos for name, value in self.state.sums.items()}
        self.state.sums = {}
        epoch = self.state.iteration / batches_per_epoch(self.videos, self.step.factor, self.step.batch_size)
        rate = learning_rate(self.step, self.state.iteration - 1, self.total)
        log.write(
            self.state.iteration,
            {**self.state.last, "lr": rate, "epoch": round(epoch, 4), "seconds": round(self.state.seconds, 3)},
        )

    def state_dict(self) -> dict[str, object]:
        """Everything that continuing needs: weights, optimiser, scaler, random state, position."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_state(),
            "iteration": self.state.iteration,
            "seconds": self.state.seconds,
            "sums": self.state.sums,
            "bad": self.state.bad,
            "last": self.state.last,
        }

    def load_state_dict(self, content: dict) -> None:
        """Puts `state_dict()` back, bit for bit."""
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        restore_random_state(content["random"])
        sums = {name: value.to(self.device) for name, value in content["sums"].items()}
        self.state = StepState(content["iteration"], content["seconds"], sums, content["bad"], content["last"])


def _even_parts(count: int, largest: int) -> list[tuple[int, int]]:
    """0..count cut into as few parts of at most `largest` as possible, of sizes that differ by one at most. No part is
    a single one where more than one is allowed, which batch norm has no statistics of: then one part fewer is cut."""
    parts = -(-count // largest)
    if largest > 1 and parts > 1 and count < 2 * parts:
        parts -= 1
    cuts = [count * part // parts for part in range(parts + 1)] if parts else []
    return list(itertools.pairwise(cuts))
