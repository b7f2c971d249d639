"""The plain way to train two streams, and how it is timed: what `train.py` and `gpu.py` compare with.

Letters: B videos, T frames, L flow fields of a stack.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.resnet import Bottleneck, ResNet

from pipelines.datasets.samples import Batch
from pipelines.models import STResNet

CLASSES = 101
BLOCKS = {26: [2, 2, 2, 2], 50: [3, 4, 6, 3]}


def resnet(depth: int, width: int, channels: int) -> ResNet:
    """torchvision's ResNet for pictures of so many channels. Its `width_per_group` widens the 3x3 convolutions only, so
    that for another width than 64 the stages are made again, by its own function."""
    network = ResNet(Bottleneck, BLOCKS[depth], num_classes=CLASSES)
    network.inplanes = width
    network.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
    network.bn1 = nn.BatchNorm2d(width)
    for stage, blocks in enumerate(BLOCKS[depth]):
        layer = network._make_layer(Bottleneck, width << stage, blocks, stride=1 if stage == 0 else 2)
        setattr(network, f"layer{stage + 1}", layer)
    network.fc = nn.Linear(Bottleneck.expansion * 8 * width, CLASSES)
    return network


class PlainTwoStreams:
    """Two torchvision ResNets, eager float32, one after the other, frames flattened into the batch."""

    def __init__(self, device: torch.device, depth: int, width: int = 64) -> None:
        self.appearance, self.motion = (resnet(depth, width, channels).to(device) for channels in (3, 20))
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(3, 1, 1)
        self.deviation = torch.tensor([0.229, 0.224, 0.225], device=device).view(3, 1, 1)
        parameters = [*self.appearance.parameters(), *self.motion.parameters()]
        self.optimiser = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def update(self, batch: Batch) -> None:
        rgb, flow = (batch.rgb.float() / 255 - self.mean) / self.deviation, (batch.flow.float() - 128) / 57.6
        labels = batch.labels.repeat_interleave(rgb.shape[1])
        for network, inputs in ((self.appearance, rgb), (self.motion, flow)):
            cross_entropy(network(inputs.flatten(0, 1)), labels).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


def random_clip(videos: int, frames: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    rgb = torch.randint(0, 256, (videos, frames, 3, height, width), dtype=torch.uint8)
    flow = torch.randint(0, 256, (videos, frames, 20, height, width), dtype=torch.uint8)
    return rgb, flow


def random_batch(videos: int, frames: int, height: int, width: int) -> Batch:
    return Batch(
        *random_clip(videos, frames, height, width), torch.arange(videos) % CLASSES, indices=torch.arange(videos)
    )


def training_flops(network: STResNet | ResNet, *inputs: Tensor) -> int:
    """Floating-point operations of convolutions and matrix products in one training step: two a multiplication, and
    the backward pass twice the forward one (the first layer's, which needs no gradient of its input, once).

    Counted on the meta device, where nothing is computed.
    """
    with FlopCounterMode(display=False) as counter:
        logits = network.to("meta")(*(x.to("meta") for x in inputs))
        sum(x.sum() for x in (logits if isinstance(logits, tuple) else [logits])).backward()
    return counter.get_total_flops()


def in_turns(runs: list[Callable[[], object]], device: torch.device, repeats: int, warm_up: int = 2) -> list[float]:
    """Median seconds of each, measured alternately after a warm-up."""
    times: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + warm_up):
        for run, found in zip(runs, times, strict=True):
            seconds = once(run, device)
            if repeat >= warm_up:
                found.append(seconds)
    return [statistics.median(found) for found in times]


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    run()
    return statistics.median(once(run, device) for _ in range(repeats))


def once(run: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    started = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
