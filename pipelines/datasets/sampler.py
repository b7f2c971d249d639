"""In which order a training step meets its videos: a pure function of its seed.

An epoch goes `factor` times over all n videos, each pass in an order of its own. Item i of an epoch is its i-th place;
together with the epoch it seeds the item's draws (crop, stride, start), so that a sample depends on nothing else.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from pipelines.errors import UsageError
from pipelines.interface import options


class Item(NamedTuple):
    """One sample to make."""

    epoch: int
    i: int
    """Its position in the epoch."""
    video: int
    """Index of the video that stands there."""


def epoch_order(n: int, factor: int, batch: int, *, seed: int, step_index: int, epoch: int) -> np.ndarray:
    """The videos of one epoch: int64 [n * factor], every video `factor` times, once in each pass.

    A video counts once in a batch where n allows it: a batch that reaches over the end of a pass takes from the next
    one videos that it does not hold yet.
    """
    rng = np.random.default_rng((seed, step_index, epoch))
    order = np.empty(n * factor, dtype=np.int64)
    for start in range(0, n * factor, n):
        videos = rng.permutation(n)
        begun = start % batch
        if 0 < begun <= n:  # the rest of that batch takes, in order, videos that it does not hold, as far as there are
            others = videos[~np.isin(videos, order[start - begun : start])]
            first = others[: batch - begun]
            videos = np.concatenate([first, videos[~np.isin(videos, first)]])
        order[start : start + n] = videos
    return order


def balanced_order(labels: Sequence[int], places: int, *, seed: int, step_index: int, epoch: int) -> np.ndarray:
    """The videos of one epoch in which all classes stand equally often: int64 [places].

    The classes come in rounds, each in an order of its own, so that their numbers differ by one at most at any place.
    Within a class its videos come pass after pass, each in an order of its own.

    Args:
        labels: The class of each video.
    """
    rng = np.random.default_rng((seed, step_index, epoch))
    classes, of_videos = np.unique(labels, return_inverse=True)
    rounds = [rng.permutation(len(classes)) for _ in range(0, places, len(classes))]
    of_places = np.concatenate(rounds)[:places]
    order = np.empty(places, dtype=np.int64)
    for index in range(len(classes)):
        videos, at = np.flatnonzero(of_videos == index), np.flatnonzero(of_places == index)
        passes = [rng.permutation(videos) for _ in range(0, len(at), len(videos))]
        order[at] = np.concatenate([videos[:0], *passes])[: len(at)]
    return order


def batches_per_epoch(n: int, factor: int, batch: int) -> int:
    """Batches of an epoch of n * factor places: the last one is smaller where they do not divide evenly; a single place
    left over goes to the batch before, since batch norm has no statistics of one."""
    full, rest = divmod(n * factor, batch)
    return max(1, full + (rest > 1))


class StepSampler:
    """Batch sampler of a whole training step: lists of `Item`, epoch after epoch, from batch number `start` on.

    The number of epochs is the trainer's to decide, so it never ends. Any start gives the batches that a run from 0
    would have given there.
    """

    def __init__(
        self,
        n: int,
        factor: int,
        batch: int,
        *,
        seed: int,
        step_index: int,
        start: int = 0,
        labels: Sequence[int] | None = None,
        share: Callable[[list[Item]], list[Item]] = lambda batch: batch,
    ) -> None:
        """
        Args:
            n: Number of training videos.
            factor: Passes over them in an epoch.
            batch: Samples of a batch.
            seed: Of the run.
            step_index: Of the training step; together with `seed` it decides the order.
            start: Number of the first batch.
            labels: The class of each video, to draw all classes equally often; None goes over all videos alike.
            share: What of each batch to make in this process.

        Raises:
            UsageError: A number is below 1.
        """
        options.require("--factor", options.Positive, factor)
        options.require("--batch-size", options.Positive, batch)
        if n < 1:
            raise UsageError("there are no training videos to draw from")
        self.n, self.factor, self.batch = n, factor, batch
        self.seed, self.step_index, self.start = seed, step_index, start
        self.labels, self.share = labels, share

    @property
    def batches_per_epoch(self) -> int:
        return batches_per_epoch(self.n, self.factor, self.batch)

    def __iter__(self) -> Iterator[list[Item]]:
        seeds = {"seed": self.seed, "step_index": self.step_index}
        begin, first = divmod(self.start, self.batches_per_epoch)
        for epoch in itertools.count(begin):
            if self.labels is None:
                order = epoch_order(self.n, self.factor, self.batch, **seeds, epoch=epoch)
            else:
                order = balanced_order(self.labels, self.n * self.factor, **seeds, epoch=epoch)
            for number in range(first, self.batches_per_epoch):
                last = number == self.batches_per_epoch - 1
                positions = range(number * self.batch, len(order) if last else (number + 1) * self.batch)
                yield self.share([Item(epoch, i, int(order[i])) for i in positions])
            first = 0
