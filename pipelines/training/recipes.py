"""The training recipes as data: the table of paper.md 3.3, one for fine-tuning pretrained weights, and one for training
from scratch on small data.

A recipe has five named steps, and every setting of a step can be overridden (`override`). Batch sizes count videos,
whatever T is. Learning rates are those of the convolution filters; `optimiser.py` derives the others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pipelines.errors import UsageError
from pipelines.interface import options
from pipelines.interface.options import (
    BOTH_STREAMS,
    Augmentation,
    Depth,
    Direction,
    Fusion,
    Option,
    ResNetForm,
    StreamName,
    TemporalInit,
)

StepName = Literal["appearance", "motion", "joint1", "joint2", "student"]
STEPS: tuple[StepName, ...] = get_args(StepName)
RecipeName = Literal["paper", "finetune", "small"]
MANY_CLIPS = 5000
"""From so many on, and with a GPU, the paper's schedules are worth their time: UCF101 has 13,320, HMDB51 6,766."""


@dataclass(frozen=True)
class Step:
    """One training step. Every field with a docstring below it is an option of `train`, which may differ by step."""

    name: StepName
    lr: Annotated[float, Option(above=0)]
    """Learning rate of the convolution filters where the schedule is 1."""
    schedule: Annotated[
        tuple[float, ...] | Literal["cosine"],
        Option(minimum=0, separator=":", wanted="cosine, or factors such as 1:1:0.1"),
    ]
    """Factors of the learning rate, one per epoch, such as 1:1:0.1 (stretched over more epochs); or cosine: 5 % linear
    warm-up, then half a cosine to zero."""
    epochs: Annotated[int, Option(minimum=1)]
    """Epochs to train."""
    factor: Annotated[int, Option(minimum=1)]
    """Passes over the training videos in one epoch."""
    batch_size: Annotated[int, Option(minimum=1)]
    """Videos per update."""
    micro_batch: Annotated[int, Option(minimum=1)]
    """Videos per forward pass, over which batch norm takes its statistics; gradients accumulate up to the batch."""
    frames: Annotated[int, Option(minimum=1)] = 1
    """RGB frames, and flow stacks, per sample."""
    stride: Annotated[
        tuple[int, int],
        Option(minimum=1, separator="-", broadcast=True, wanted="N or LOW-HIGH of at least 1 frame, such as 5-15"),
    ] = (1, 1)
    """Distance between the frames of a sample: N, or LOW-HIGH to draw one for each sample."""
    dropout: options.Probability = 0.0
    """Dropout before the classifiers."""
    augmentation: Annotated[Augmentation, Option(old_flag="--crops")] = "corner-jittered"
    """Random crops of the training samples."""
    mirror: bool = True
    """Mirror half of the samples left-right (yes/no)."""
    temporal_pool: Annotated[
        tuple[int, int] | None,
        Option(minimum=1, separator="/", wanted="SIZE/STRIDE of at least 1 frame each, such as 5/2"),
    ] = None
    """Max pooling over time before the classifiers: SIZE/STRIDE in frames."""
    iterations: Annotated[int | None, Option(minimum=1)] = None
    """Updates to train instead of epochs, each of a full batch."""
    momentum: options.Probability = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov momentum (yes/no)."""
    weight_decay: Annotated[float, Option(minimum=0)] = 5e-4
    """Weight decay of the convolution filters."""
    label_smoothing: options.Probability = 0.0
    """Label smoothing of the cross-entropy."""
    _: KW_ONLY  # what follows came after stres 0.1: `config.json` has it only where it is not as usual
    feature_weight: Annotated[float, Option(minimum=0)] = 0.0
    """Of the student: weight of matching the joint network's motion features, beside the cross-entropy's 1."""
    logit_weight: Annotated[float, Option(minimum=0)] = 0.0
    """Of the student: weight of matching the joint network's class probabilities."""
    temperature: Annotated[float, Option(above=0)] = 1.0
    """Of the student: what both networks' logits are divided by before their probabilities are matched."""
    color_jitter: options.Probability = 0.0
    """Change brightness, contrast and saturation of each training sample by factors drawn from 1 - X to 1 + X."""
    freeze: Annotated[int, Option(minimum=0, maximum=5)] = 0
    """Keep the filters and batch norms' scales and shifts of the first so many of conv1, conv2_x, ..., conv5_x as the
    step begins with them; kernels over time are trained in any case."""
    flow_scale: Annotated[float, Option(minimum=1)] = 1.0
    """Multiply each training sample's flow by one factor, drawn log-uniformly between 1/X and X; never what a student's
    teacher sees."""

    def __post_init__(self) -> None:
        options.check(self, f" for {self.name}")
        if self.name != "student" and (self.feature_weight or self.logit_weight):
            given = "feature" if self.feature_weight else "logit"
            raise UsageError(f"--{given}-weight for {self.name}: only the student has a teacher; give student=VALUE")
        if self.nesterov and not self.momentum:
            raise UsageError(f"--nesterov for {self.name} needs a momentum: give one, or --nesterov no")
        low, high = self.stride
        if low > high:
            raise UsageError(f"--stride {low}-{high} for {self.name}: give LOW-HIGH with LOW <= HIGH")
        if self.temporal_pool and self.frames < self.temporal_pool[0]:
            raise UsageError(
                f"--frames {self.frames} for {self.name}: its temporal pooling needs at least {self.temporal_pool[0]}"
            )

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """The streams that this step trains."""
        if self.name == "student":
            return ("appearance",)
        return (self.name,) if self.name == "appearance" or self.name == "motion" else BOTH_STREAMS

    @property
    def inputs(self) -> tuple[StreamName, ...]:
        """The streams whose input its training needs: the student's teacher is given flow."""
        return BOTH_STREAMS if self.name == "student" else self.streams

    @property
    def terms(self) -> int:
        """The number of cross-entropies in a video's loss: one per stream and time step (paper.md 2.4)."""
        size, stride = self.temporal_pool or (1, 1)
        return len(self.streams) * ((self.frames - size) // stride + 1)

    @property
    def mirrors(self) -> bool:
        """Whether half of the samples are mirrored."""
        return self.mirror and self.augmentation != "center"

    def passes(self, videos: int) -> int:
        """How many passes over `videos` training videos are shuffled and cut into batches together.

        With epochs these are the `factor` passes of one epoch, which ends in a smaller batch. With `iterations` they
        are as many as it takes to fill every batch: a small last batch in every pass spoils training from scratch on
        little data. Of 38 videos, the 6 left over by batches of 32 made half of all updates, with batch-norm statistics
        over 6 videos, and halved the accuracy (docs/ablation.md).
        """
        return self.factor if self.iterations is None else math.lcm(videos, self.batch_size) // videos

    def updates(self, videos: int) -> int:
        """Updates of the whole step, for that many training videos."""
        from pipelines.datasets.sampler import batches_per_epoch  # loads NumPy, which --help can do without

        return self.iterations or self.epochs * batches_per_epoch(videos, self.factor, self.batch_size)


@dataclass(frozen=True)
class Recipe:
    """The steps for one kind of data, and the network and input that suit it."""

    name: RecipeName
    steps: Mapping[StepName, Step]
    default_steps: tuple[StepName, ...]
    depth: Depth
    width: int
    size: tuple[int, int]
    """Height and width of the input in pixels; but for `fixed_size` the long side follows the stored pictures."""
    weights: str
    validation: float = 0.1
    """Share of the training groups that is held out, where every class has enough of them."""
    fixed_size: bool = False
    videos: int | None = None
    """The number of training videos that the numbers of updates are for (`for_videos`); None: for any."""
    stem_width: int | None = None
    resnet: ResNetForm | None = None
    fusion: Fusion = "add"
    direction: Direction = "motion-to-appearance"
    temporal_kernels: bool = True
    temporal_init: TemporalInit = "average"

    def for_videos(self, videos: int) -> "Recipe":
        """This recipe for so many training videos: the numbers of updates grow with the square root of their number,
        from `self.videos` on."""
        if self.videos is None or videos <= self.videos:
            return self
        grown = {
            name: replace(step, iterations=step.iterations and round(step.iterations * math.sqrt(videos / self.videos)))
            for name, step in self.steps.items()
        }
        return replace(self, steps=grown, videos=videos)


def _recipe(name: RecipeName, steps: Iterable[Step], **network: Any) -> Recipe:
    return Recipe(name=name, steps={step.name: step for step in steps}, **network)


# Of a student, which is no step of the paper's (docs/training.md, "A student without flow").
MATCHING: dict[str, Any] = {"feature_weight": 1.0, "logit_weight": 1.0, "temperature": 2.0}


def _long(name: StepName, lr: float, schedule: tuple[float, ...], factor: int, **changes: Any) -> Step:
    """An epoch for each factor of the rate. Batch-norm statistics are taken over 4 videos of T frames, or 32 images."""
    defaults: dict[str, Any] = {"epochs": len(schedule), "batch_size": 128, "micro_batch": 4}
    return Step(name, lr, schedule, factor=factor, **(defaults | changes))


# paper.md 3.2 and 3.3.
PAPER = _recipe(
    "paper",
    (
        _long("appearance", 1e-2, (1, 1, 0.1, 0.1, 0.01, 0.01), 10, batch_size=256, micro_batch=32),
        _long(
            "motion", 1e-2, (1, 0.1, 0.01, 0.001), 100, micro_batch=32, dropout=0.8, augmentation="multi-scale-corner"
        ),
        _long("joint1", 1e-3, (1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01), 10, frames=5, stride=(5, 15)),
        _long("joint2", 1e-4, (1, 0.1), 1, frames=11, stride=(1, 15), temporal_pool=(5, 2)),
        _long("student", 1e-3, (1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01), 10, frames=5, stride=(2, 2), **MATCHING),
    ),
    default_steps=STEPS[:4],
    depth=50,
    width=64,
    size=(224, 224),
    weights="imagenet",
    validation=0.0,
    fixed_size=True,
)


def _short(name: StepName, lr: float, iterations: int, batch_size: int, **changes: Any) -> Step:
    defaults: dict[str, Any] = {
        "schedule": "cosine",
        "epochs": 1,
        "factor": 1,
        "micro_batch": batch_size,
        "iterations": iterations,
        "dropout": 0.5,
        "augmentation": "mild",
        "nesterov": True,
        "label_smoothing": 0.1,
    }
    return Step(name, lr=lr, batch_size=batch_size, **(defaults | changes))


# For hundreds of clips and no pretrained weights.
SMALL = _recipe(
    "small",
    (
        _short("appearance", 0.05, 400, 32),
        _short("motion", 0.05, 700, 32),
        _short("joint1", 0.005, 300, 8, frames=5, stride=(1, 5)),
        _short("joint2", 0.001, 100, 8, frames=11, stride=(1, 5), temporal_pool=(5, 2)),
        _short("student", 0.01, 600, 8, frames=5, stride=(2, 2), **MATCHING),
    ),
    default_steps=("appearance", "motion", "joint1"),
    depth=26,
    width=16,
    size=(64, 64),
    weights="none",
)

# For pretrained weights and hundreds to thousands of clips, on a CPU or one GPU. Rates and numbers of updates were
# chosen on training groups held out (docs/pretrained.md), and so were the distance of a student's frames and that it
# matches features alone; its rate and joint2's are not tuned.
FINETUNE = _recipe(
    "finetune",
    (
        _short("appearance", 0.005, 120, 32, color_jitter=0.5),
        _short("motion", 0.01, 200, 32),
        _short("joint1", 0.0005, 240, 8, frames=5, stride=(1, 5), color_jitter=0.5, freeze=3),
        _short("joint2", 0.0001, 60, 8, frames=11, stride=(1, 5), temporal_pool=(5, 2), freeze=3),
        _short("student", 0.002, 240, 8, frames=5, stride=(4, 4), **MATCHING | {"logit_weight": 0.0}),
    ),
    default_steps=("appearance", "motion", "joint1"),
    depth=50,
    width=64,
    size=(112, 112),
    weights="imagenet",
    videos=100,
    temporal_init="center",
)

RECIPES: Mapping[RecipeName, Recipe] = {"paper": PAPER, "finetune": FINETUNE, "small": SMALL}


def pick(weights: str | None, on_gpu: bool, clips: int) -> tuple[RecipeName, str]:
    """The recipe where none is asked for, and why, in words.

    Args:
        weights: The initial weights that were asked for; None where none were.
        on_gpu: Whether there is a GPU to train on.
        clips: How many the workspace holds.
    """
    if weights == "none":
        return "small", "--weights none trains from scratch"
    if weights is None and not on_gpu:
        return "small", "there are neither --weights nor a GPU"
    if on_gpu and clips >= MANY_CLIPS:
        return "paper", f"there are a GPU and {clips} clips"
    given = "there is a GPU" if weights is None else "--weights are given"
    return "finetune", f"{given} and {'there are' if on_gpu else 'there is no GPU for'} {'only ' * on_gpu}{clips} clips"


def override(step: Step, changes: Mapping[str, Any]) -> Step:
    """`step` with some settings changed.

    A micro-batch larger than the batch is cut to it, so that `--batch-size 8` alone is enough. Epochs replace a number
    of iterations.

    Args:
        changes: New values by field name; None keeps the old one.

    Raises:
        UsageError: A value is out of range, or both epochs and iterations are given.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    if {"epochs", "iterations"} <= changes.keys():
        raise UsageError(
            f"--epochs {changes['epochs']} and --iterations {changes['iterations']} both say how long {step.name} is "
            "trained: give one of them"
        )
    if "epochs" in changes:
        changes.setdefault("iterations", None)
    batch_size = changes.get("batch_size", step.batch_size)
    changes.setdefault("micro_batch", min(step.micro_batch, batch_size))
    return replace(step, **changes)
