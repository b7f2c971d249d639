"""The learning rate of every iteration, as a pure function."""

import math

from pipelines.datasets.order import batches_per_epoch
from pipelines.training.recipes import Step

WARM_UP = 0.05  # of all iterations, for the cosine schedule


def total_iterations(step: Step, videos: int) -> int:
    """Updates of the whole step, for that many training videos."""
    return step.iterations or step.epochs * batches_per_epoch(videos, step.factor, step.batch_size)


def learning_rate(step: Step, iteration: int, total: int) -> float:
    """The filters' rate at update `iteration` (from 0) of `total`.

    A list of factors is spread evenly: with as many epochs as factors, one factor an epoch (paper.md 3.3).
    """
    if step.schedule == "cosine":
        warm_up = max(1, round(WARM_UP * total))
        if iteration < warm_up:
            return step.lr * (iteration + 1) / warm_up
        return step.lr * 0.5 * (1 + math.cos(math.pi * (iteration - warm_up) / max(1, total - warm_up)))
    return step.lr * step.schedule[iteration * len(step.schedule) // total]
