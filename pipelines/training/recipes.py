"""The training steps as data: the table of paper.md 3.3, and what works from scratch on small data.

A recipe is four named steps; every number of a step can be overridden (`override`). A video counts once in a batch,
whatever T. A learning rate here is the one of the convolution filters; `optimiser.py` derives the others.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.errors import UsageError

StepName = Literal["appearance", "motion", "joint1", "joint2"]
StreamName = Literal["appearance", "motion"]
STEPS: tuple[StepName, ...] = ("appearance", "motion", "joint1", "joint2")
CropScheme = Literal["corner-jittered", "multi-scale-corner", "mild", "centre"]
CROP_SCHEMES: tuple[CropScheme, ...] = ("corner-jittered", "multi-scale-corner", "mild", "centre")


@dataclass(frozen=True)
class Step:
    """One training step.

    lr            learning rate of the filters at the schedule's 1.0
    schedule      factors of `lr`, one an epoch, stretched when there are more epochs; or "cosine": 5 % of the
                  iterations linear warm-up, then half a cosine to zero
    epochs        passes of `factor` times over the training videos; not read where `iterations` is given
    iterations    batches in all, each of them full; None: as many as the epochs need, of which the last may be smaller
    batch_size    videos between two updates
    micro_batch   videos that go through the network (and its batch norm) together; gradients accumulate over them
    frames        T, RGB frames and flow stacks of one sample
    stride        lowest and highest distance in frames between neighbours of a sample, one value drawn a sample
    dropout       probability before the classifiers
    crops         augmentation scheme (`datasets/augmentation.py`)
    mirror        mirror half of the samples left-right
    temporal_pool (size, stride) of the max pooling over time before the classifier, or None
    """

    name: StepName
    lr: float
    schedule: tuple[float, ...] | Literal["cosine"]
    epochs: int
    factor: int
    batch_size: int
    micro_batch: int
    frames: int = 1
    stride: tuple[int, int] = (1, 1)
    dropout: float = 0.0
    crops: CropScheme = "corner-jittered"
    mirror: bool = True
    temporal_pool: tuple[int, int] | None = None
    iterations: int | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for flag, value in (("--lr", self.lr), ("--epochs", self.epochs), ("--batch-size", self.batch_size)):
            if not 0 < value < math.inf:
                raise UsageError(f"{flag} {value} for {self.name}: it must be greater than 0")
        for flag, whole in (("--frames", self.frames), ("--micro-batch", self.micro_batch), ("--factor", self.factor)):
            if whole < 1:
                raise UsageError(f"{flag} {whole} for {self.name}: it must be 1 or more")
        if self.iterations is not None and self.iterations < 1:
            raise UsageError(f"--iterations {self.iterations} for {self.name}: it must be 1 or more")
        factors = (0.0,) if self.schedule == "cosine" else self.schedule
        if not factors or not all(0 <= factor < math.inf for factor in factors):
            raise UsageError(f"--schedule {self.schedule} for {self.name}: give cosine, or factors such as 1:0.1")
        shares = {"--dropout": self.dropout, "--momentum": self.momentum, "--label-smoothing": self.label_smoothing}
        for flag, share in shares.items():
            if not 0 <= share < 1:
                raise UsageError(f"{flag} {share} for {self.name}: it must be at least 0 and less than 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"--weight-decay {self.weight_decay} for {self.name}: it must be 0 or more")
        if self.nesterov and not self.momentum:
            raise UsageError(f"--nesterov for {self.name} needs a momentum: give one, or --nesterov no")
        if self.crops not in CROP_SCHEMES:
            raise UsageError(f"--crops {self.crops!r} for {self.name}: give one of {', '.join(CROP_SCHEMES)}")
        if not 1 <= self.stride[0] <= self.stride[1]:
            raise UsageError(f"--stride {self.stride} for {self.name}: give LOW-HIGH with 1 <= LOW <= HIGH")
        if self.temporal_pool and self.frames < self.temporal_pool[0]:
            raise UsageError(
                f"--frames {self.frames} for {self.name}: its temporal pooling needs at least {self.temporal_pool[0]}"
            )

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """The streams this step trains."""
        return (self.name,) if self.name == "appearance" or self.name == "motion" else ("appearance", "motion")

    @property
    def terms(self) -> int:
        """How many cross-entropies a video's loss adds up: those of every stream at every time step (paper.md 2.4)."""
        size, stride = self.temporal_pool or (1, 1)
        return len(self.streams) * ((self.frames - size) // stride + 1)

    def passes(self, videos: int) -> int:
        """How often an order of batches goes over that many training videos: `factor` times, which is an epoch, or
        where `iterations` counts the updates as often as it takes for every batch to be full.

        A small last batch in every pass, as an epoch ends in one, spoils training from scratch on little data: of 38
        videos the 6 left over by batches of 32 gave half of all updates, with batch-norm statistics of 6, and halved
        the accuracy (docs/ablation.md).
        """
        return self.factor if self.iterations is None else math.lcm(videos, self.batch_size) // videos


@dataclass(frozen=True)
class Recipe:
    """The steps of one kind of data, and the network and input that suit it."""

    name: str
    steps: Mapping[StepName, Step]
    default_steps: tuple[StepName, ...]
    depth: int
    width: int
    size: tuple[int, int]
    weights: str


def _recipe(name: str, steps: Iterable[Step], **network: Any) -> Recipe:
    return Recipe(name=name, steps={step.name: step for step in steps}, **network)


# paper.md 3.2 and 3.3. Batch-norm statistics are taken over 32 images, or 4 videos of T frames.
PAPER = _recipe(
    "paper",
    (
        Step("appearance", 1e-2, (1, 1, 0.1, 0.1, 0.01, 0.01), epochs=6, factor=10, batch_size=256, micro_batch=32),
        Step(
            "motion",
            1e-2,
            (1, 0.1, 0.01, 0.001),
            epochs=4,
            factor=100,
            batch_size=128,
            micro_batch=32,
            dropout=0.8,
            crops="multi-scale-corner",
        ),
        Step(
            "joint1",
            1e-3,
            (1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01),
            epochs=8,
            factor=10,
            batch_size=128,
            micro_batch=4,
            frames=5,
            stride=(5, 15),
        ),
        Step(
            "joint2",
            1e-4,
            (1, 0.1),
            epochs=2,
            factor=1,
            batch_size=128,
            micro_batch=4,
            frames=11,
            stride=(1, 15),
            temporal_pool=(5, 2),
        ),
    ),
    default_steps=STEPS,
    depth=50,
    width=64,
    size=(224, 224),
    weights="imagenet",
)


def _small(name: StepName, lr: float, iterations: int, batch_size: int, **changes: Any) -> Step:
    defaults: dict[str, Any] = {
        "schedule": "cosine",
        "epochs": 1,
        "factor": 1,
        "micro_batch": batch_size,
        "iterations": iterations,
        "dropout": 0.5,
        "crops": "mild",
        "nesterov": True,
        "label_smoothing": 0.1,
    }
    return Step(name, lr=lr, batch_size=batch_size, **(defaults | changes))


# For hundreds of clips and no pretrained weights.
SMALL = _recipe(
    "small",
    (
        _small("appearance", 0.05, 400, 32),
        _small("motion", 0.05, 700, 32),
        _small("joint1", 0.005, 300, 8, frames=5, stride=(1, 5)),
        _small("joint2", 0.001, 100, 8, frames=11, stride=(1, 5), temporal_pool=(5, 2)),
    ),
    default_steps=("appearance", "motion", "joint1"),
    depth=26,
    width=16,
    size=(64, 64),
    weights="none",
)

RECIPES: Mapping[str, Recipe] = {"paper": PAPER, "small": SMALL}


def override(step: Step, changes: Mapping[str, Any]) -> Step:
    """`step` with some numbers changed.

    A micro-batch larger than the batch is cut to it, so that `--batch-size 8` alone is enough. Giving epochs replaces
    a number of iterations. Raises `UsageError` (from `Step`) for values out of range.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if "epochs" in changes:
        changes.setdefault("iterations", None)
    batch_size = changes.get("batch_size", step.batch_size)
    changes.setdefault("micro_batch", min(step.micro_batch, batch_size))
    return dataclasses.replace(step, **changes)
