"""What a training will take, from some updates of each step: time, disk, memory. Writes nothing."""

import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch

from pipelines.datasets.samples import Batch
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.training.loop import StepTrainer

# Of a step, after the first update, which warms up: whichever comes first ends the measuring.
_UPDATES, _SECONDS = 20, 20.0


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


def measure(trainer: StepTrainer, batches: Iterator[Batch], on_progress: OnProgress) -> tuple[list[float], float]:
    """Trains on for up to 20 updates or 20 seconds, and one update more, which warms up and does not count where there
    is another. All processes stop after the same update.

    One update longer than 20 seconds is enough, unless that compiled the network.

    Args:
        batches: As `StepTrainer.fit` takes them.

    Returns:
        The seconds that each update took, and the most memory until then in GB (`peak_memory`), of any process.
    """
    phase, total = f"train {trainer.step.name} (dry run)", min(1 + _UPDATES, trainer.total - trainer.state.iteration)
    compiling = trainer.network is not trainer.parallel_model
    # The ends of updates: waiting for the loader is a part of the next one.
    ends: list[float] = []

    def seconds() -> list[float]:
        return [end - before for before, end in pairwise(ends)]

    def is_enough() -> bool:
        if len(ends) < 2:
            return False
        first, *others = seconds()
        return len(others) >= _UPDATES or sum(others) >= _SECONDS or (first >= _SECONDS and not compiling)

    def until_enough() -> Iterator[Batch]:
        while not trainer.plan.max([is_enough()])[0]:
            yield next(batches)
        on_progress(Progress(phase, len(seconds()), len(seconds()), "updates"))

    def end_update(_progress: Progress) -> None:
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        ends.append(time.monotonic())
        on_progress(Progress(phase, len(seconds()), total, "updates"))

    on_progress(Progress(phase, 0, total, "updates"))
    ends.append(time.monotonic())
    trainer.fit(until_enough(), on_progress=end_update)
    return seconds()[1:] or seconds(), trainer.plan.max([peak_memory(trainer.device)])[0]


def peak_memory(device: torch.device) -> float:
    """The most memory that this process has taken of a GPU, or of the machine where the CPU computes (loader processes
    not counted), in GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
