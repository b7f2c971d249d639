"""Updates by paper.md 3, worked out beside the trainer: statistics, loss, gradients, rates, moments."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.datasets.samples import Batch
from pipelines.models import STResNet
from pipelines.models.normalise import Normalise
from pipelines.training.loop import StepTrainer
from pipelines.training.optimiser import learning_rate
from pipelines.training.recipes import PAPER, Step, override
from tests.helpers.reference_st_resnet import reference_logits

CLASSES, FRAMES = 3, 3
RATE = 1e-4
DECAY = 0.05  # the paper's 5e-4 would hide in the last digits; that it is 5e-4 is in test_training_recipe.py
RATE_AND_DECAY = {  # paper.md 3.1: filters; biases of the classifiers; batch norm's scale and shift
    "filter": (1, DECAY),
    "bias": (2, 0),
    "scale": (2, 0),
    "shift": (1, 0),
}


def kind(name: str) -> str:
    norm = ".bn" in name or ".downsample.1." in name
    if name.endswith("weight"):
        return "scale" if norm else "filter"
    return "shift" if norm else "bias"


def batch_of(videos: int, seed: int) -> Batch:
    rng = np.random.default_rng(seed)
    rgb, flow = (
        torch.from_numpy(rng.integers(0, 256, (videos, FRAMES, channels, 32, 32), dtype=np.uint8))
        for channels in (3, 20)
    )
    return Batch(rgb, flow, torch.from_numpy(rng.integers(0, CLASSES, videos)), torch.arange(videos))


def normalised(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """By hand: ImageNet's mean and deviation on 0..1; (value - 128) / 57.6."""
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (batch.rgb.double() / 255 - mean) / deviation, (batch.flow.double() - 128) / 57.6


@pytest.fixture
def double():
    """Makes everything in double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class ByHand:
    """The recipe's arithmetic on a state dict: sub-batches, sums, velocities, running moments."""

    def __init__(self, network: nn.Module) -> None:
        self.state = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.names = [name for name, _ in network.named_parameters()]
        self.velocity = {name: torch.zeros_like(self.state[name]) for name in self.names}

    def update(self, batch: Batch, sub_batches: list[range], rate: float) -> None:
        videos = len(batch.labels)
        gradients = dict.fromkeys(self.names, 0.0)
        moments = []
        for places in sub_batches:
            part = batch.part(places.start, places.stop)
            for name, gradient in self.gradients(part, moments).items():
                gradients[name] = gradients[name] + gradient / videos
        for name in self.names:
            factor, decay = RATE_AND_DECAY[kind(name)]
            weight = self.state[name]
            self.velocity[name] = 0.9 * self.velocity[name] + gradients[name] + decay * weight
            self.state[name] = weight - rate * factor * self.velocity[name]
        self.move(moments, [len(places) / videos for places in sub_batches])

    def gradients(self, part: Batch, moments: list) -> dict[str, torch.Tensor]:
        """Of the sum over videos, streams and time steps of -log softmax(logits)[label]."""
        leaves = {name: self.state[name].clone().requires_grad_() for name in self.names}
        moments.append({})
        logits = reference_logits({**self.state, **leaves}, *normalised(part), training=True, moments=moments[-1])
        loss = torch.zeros((), dtype=torch.float64)
        for stream in logits:
            for video, label in enumerate(part.labels):
                for step in range(FRAMES):
                    scores = stream[video, step]
                    loss = loss + scores.exp().sum().log() - scores[label]
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    def move(self, moments: list, shares: list[float]) -> None:
        """Running moments take the new batch, the mean of its sub-batches, with the weight 0.05."""
        for norm in moments[0]:
            for place, moment in enumerate(("running_mean", "running_var")):
                new = sum(share * part[norm][place] for share, part in zip(shares, moments, strict=True))
                self.state[f"{norm}.{moment}"] = 0.95 * self.state[f"{norm}.{moment}"] + 0.05 * new


@pytest.mark.parametrize(
    ("videos", "micro_batch", "at_once", "sub_batches"),
    [
        (2, 2, 1, [range(2)]),
        (4, 2, 1, [range(2), range(2, 4)]),
        (5, 3, 4, [range(2), range(2, 5)]),
        (6, 2, 2, [range(2), range(2, 4), range(4, 6)]),
        (6, 2, 3, [range(2), range(2, 4), range(4, 6)]),
    ],
)
def test_updates_are_those_worked_out_by_hand(double, videos, micro_batch, at_once, sub_batches):
    """Three updates: the second gets the first one's velocity, the third a tenth of the rate. Compared is by how much
    each tensor moved; the trainer takes the softmax in float32."""
    torch.manual_seed(0)
    network = STResNet(CLASSES, depth=26, width=2).train()
    changes = {"batch_size": videos, "micro_batch": micro_batch, "frames": FRAMES, "iterations": 3}
    changes |= {"schedule": (1, 1, 0.1), "lr": RATE, "weight_decay": DECAY}
    step = override(PAPER.steps["joint1"], changes)
    trainer = StepTrainer(network, step, videos, torch.device("cpu"), at_once=at_once)
    hand = ByHand(network)
    start = dict(hand.state)
    for seed, rate in enumerate((RATE, RATE, RATE / 10)):
        trainer.fit([batch_of(videos, seed)])
        hand.update(batch_of(videos, seed), sub_batches, rate)
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            moved = hand.state[name] - start[name]
            torch.testing.assert_close(
                value - start[name], moved, rtol=0, atol=1e-3 * float(moved.abs().max()), msg=name
            )
            assert moved.abs().max() > 0 or name.endswith("bias"), name


def test_the_loss_told_is_the_mean_over_videos_of_the_sum_over_time_steps():
    """New classifiers know nothing: log(classes) a stream and time step, whatever the sub-batches."""
    torch.manual_seed(0)
    network = STResNet(CLASSES, depth=26, width=2).train()
    for stream in network.streams.values():
        nn.init.zeros_(stream.fc.weight)
    step = override(PAPER.steps["joint1"], {"batch_size": 5, "micro_batch": 2, "frames": FRAMES})
    trainer = StepTrainer(network, step, 5, torch.device("cpu"))
    trainer.fit([batch_of(5, 0)])
    sums = trainer.state.sums
    assert float(sums["loss"] / sums["videos"]) == pytest.approx(2 * FRAMES * math.log(CLASSES), rel=1e-4)


@pytest.mark.parametrize(("step", "size"), [("appearance", 32), ("motion", 32), ("joint1", 4), ("joint2", 4)])
def test_statistics_are_of_32_images_or_of_4_videos_of_t_frames(step, size):
    """What batch norm sees of a whole batch of the paper's."""
    seen = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(1)
            self.normalise = Normalise
            self.streams = {}

        def forward(self, rgb, flow):
            frames = (rgb if rgb is not None else flow)[:, :, :1]
            seen.append(tuple(frames.shape[:2]))
            return logits_of(self.norm(frames.flatten(0, 1)).mean((1, 2, 3)).view(*frames.shape[:2], 1))

    recipe = PAPER.steps[step]
    trainer = StepTrainer(Counting(), recipe, recipe.batch_size, torch.device("cpu"))
    pixels = torch.zeros(recipe.batch_size, recipe.frames, 3, 2, 2, dtype=torch.uint8)
    labels = torch.zeros(recipe.batch_size, dtype=torch.int64)
    trainer.fit([Batch(pixels, None, labels, labels)])
    assert seen == [(size, recipe.frames)] * (recipe.batch_size // size)


def logits_of(values: torch.Tensor):
    from pipelines.models import StreamLogits

    return StreamLogits(values, None)


# ------------------------------------------------------------------ schedule


@pytest.mark.parametrize("videos", [9537, 3570])  # split 1 of UCF101, of HMDB51
@pytest.mark.parametrize(
    ("name", "rates", "factor", "batch"),
    [
        ("appearance", [1e-2, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4], 10, 256),
        ("motion", [1e-2, 1e-3, 1e-4, 1e-5], 100, 128),
        ("joint1", [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 2, 10, 128),
        ("joint2", [1e-4, 1e-5], 1, 128),
    ],
)
def test_every_update_has_its_epochs_rate(name, rates, factor, batch, videos):
    """An epoch goes `factor` times over the videos; its last batch is smaller."""
    updates = math.ceil(factor * videos / batch)
    expected = [rate for rate in rates for _ in range(updates)]
    step: Step = PAPER.steps[name]
    assert step.updates(videos) == len(expected)
    found = [learning_rate(step, iteration, len(expected)) for iteration in range(len(expected))]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
