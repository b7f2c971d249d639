"""What a training will take, from some updates of each step: time, disk, memory. Writes nothing."""

import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from pipelines.datasets.samples import Batch
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.training.loop import StepTrainer

# Of a step, after the first update, which warms up: whichever comes first ends the measuring.
_UPDATES, _SECONDS = 20, 20.0


@dataclass(frozen=True)
class Measured:
    """Some updates of a step."""

    seconds: list[float]
    """Of each."""
    memory: float
    """The most taken until then, in GB (`peak_memory`)."""


@dataclass(frozen=True)
class StepEstimate:
    """What the rest of a step will take."""

    step: str
    videos: int
    """Training videos."""
    updates: int
    """Still to do."""
    done: int
    """Updates that its checkpoint has."""
    batch_size: int
    """Videos of an update."""
    seconds_per_update: float
    """The median of `measured_updates`."""
    measured_updates: int
    hours: float
    weights_gigabytes: float
    """Of the file that the finished step leaves."""
    checkpoint_gigabytes: float
    """Of the file that continues it; while it is replaced there are two."""
    memory_gigabytes: float
    """`peak_memory` until the end of its measuring."""

    @classmethod
    def of(
        cls, trainer: StepTrainer, begin: int, measured: Measured, *, weights_bytes: int, checkpoint_bytes: int
    ) -> Self:
        """Of a step that continues at update `begin`, of whose updates some were measured."""
        seconds = statistics.median(measured.seconds)
        updates = trainer.total - begin
        return cls(
            step=trainer.step.name,
            videos=trainer.videos,
            updates=updates,
            done=begin,
            batch_size=min(trainer.step.batch_size, trainer.videos * trainer.step.passes(trainer.videos)),
            seconds_per_update=seconds,
            measured_updates=len(measured.seconds),
            hours=seconds * updates / 3600,
            weights_gigabytes=weights_bytes / 1e9,
            checkpoint_gigabytes=checkpoint_bytes / 1e9,
            memory_gigabytes=measured.memory,
        )


@dataclass(frozen=True)
class Estimate:
    """What a run will take until its selected steps are finished."""

    steps: list[StepEstimate]
    finished: list[str]
    """Selected steps that there is nothing to do for."""
    hours: float
    gigabytes: float
    """Of the weights that the others leave."""
    peak_gigabytes: float
    """The most that there is of their weights and checkpoints at once."""
    memory_gigabytes: float
    """The most that measuring took (`peak_memory`)."""
    free_gigabytes: float = 0.0
    """On the run's disk; 0: not known."""

    @classmethod
    def of(cls, steps: Sequence[StepEstimate], finished: Sequence[str], free_gigabytes: float = 0.0) -> Self:
        """Of steps in the order of training."""
        weights = peak = 0.0
        for step in steps:
            peak = max(peak, weights + 2 * step.checkpoint_gigabytes)
            weights += step.weights_gigabytes
        return cls(
            steps=list(steps),
            finished=list(finished),
            hours=sum(step.hours for step in steps),
            gigabytes=weights,
            peak_gigabytes=max(peak, weights),
            memory_gigabytes=max((step.memory_gigabytes for step in steps), default=0.0),
            free_gigabytes=free_gigabytes,
        )


def measure(trainer: StepTrainer, batches: Iterator[Batch], on_progress: OnProgress) -> Measured:
    """Trains on for up to 20 updates or 20 seconds, and one update more, which warms up and does not count where there
    is another. All processes stop after the same update.

    One update longer than 20 seconds is enough, unless that compiled the network.

    Args:
        trainer: Of the step.
        batches: As `StepTrainer.fit` takes them.
        on_progress: Is told of every update.
    """
    laps = _Laps(trainer, on_progress)
    trainer.fit(laps.until_enough(batches), on_progress=laps.end)
    memory = trainer.plan.max([peak_memory(trainer.device)])[0]
    return Measured(laps.seconds[1:] or laps.seconds, memory)


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has taken of a GPU, or of the machine where the CPU computes (loader processes
    not counted), in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


class _Laps:
    """Takes the time from the end of one update to that of the next: waiting for the loader is a part of it."""

    def __init__(self, trainer: StepTrainer, on_progress: OnProgress) -> None:
        self.trainer, self.on_progress = trainer, on_progress
        self.compiling = trainer.network is not trainer.parallel_model
        self.total = min(1 + _UPDATES, trainer.total - trainer.state.iteration)
        self.seconds: list[float] = []
        self._report()
        self._last = time.monotonic()

    def until_enough(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, until on any process there have been enough of them."""

        def enough() -> bool:
            if not self.seconds:
                return False
            first, *others = self.seconds
            return len(others) >= _UPDATES or sum(others) >= _SECONDS or (first >= _SECONDS and not self.compiling)

        while not self.trainer.plan.max([enough()])[0]:
            yield next(batches)
        self.total = len(self.seconds)
        self._report()

    def end(self, _progress: Progress) -> None:
        """To be called at the end of an update."""
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)
        now = time.monotonic()
        self.seconds.append(now - self._last)
        self._last = now
        self._report()

    def _report(self) -> None:
        phase = f"train {self.trainer.step.name} (dry run)"
        self.on_progress(Progress(phase, len(self.seconds), self.total, "updates"))
