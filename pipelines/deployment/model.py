"""What an exported file computes: from bytes at the network's size to probabilities.

Letters: B videos, T frames, L flow fields of a stack, C classes, h w the network's input.
"""

import torch
from torch import Tensor, nn

from pipelines.evaluation.scoring import with_fused
from pipelines.interface.options import EQUAL_WEIGHTS
from pipelines.models import STResNet
from pipelines.models.normalise import INPUTS


class Deployed(nn.Module):
    """Normalisation, network, and the means that `evaluate` takes.

    rgb [B, T, 3, h, w] and flow [B, T, 2L, h, w], both as stored, to a dictionary of float32 [B, C]: `appearance` and
    `motion`, each stream's logits averaged over time, and `probabilities`, the softmax of the mean of both with
    `fusion_weight` of appearance. Averaging logits over views of a video and taking the softmax then is what `evaluate`
    does with more views.
    A network of one stream takes one input and gives that stream's logits.
    """

    def __init__(self, network: STResNet, fusion_weight: float = EQUAL_WEIGHTS) -> None:
        super().__init__()
        self.fusion_weight = fusion_weight
        self.normalise = network.normalise()
        self.network = network

    @property
    def inputs(self) -> dict[str, int]:
        """The inputs in order, and how many channels each has."""
        channels = {"appearance": ("rgb", 3), "motion": ("flow", self.network.flow_channels)}
        return dict(channels[stream] for stream in self.network.streams)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("probabilities", *self.network.streams)

    @property
    def fewest_frames(self) -> int:
        """The least T: what temporal pooling needs to leave two time steps, since exporters take one for a constant."""
        pools = [stream.temporal_pool for stream in self.network.streams.values()]
        return max(1 if pool is None else pool.size + pool.stride for pool in pools)

    def _outputs(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        logits = self.network(*self.normalise(rgb, flow))
        means = {name: value.mean(1) for name, value in logits._asdict().items() if value is not None}
        headline = list(with_fused(means, self.fusion_weight).values())[-1]
        return {"probabilities": headline.softmax(1), **means}


class _TwoStreams(Deployed):
    def forward(self, rgb: Tensor, flow: Tensor) -> dict[str, Tensor]:
        return self._outputs(rgb, flow)


class _Appearance(Deployed):
    def forward(self, rgb: Tensor) -> dict[str, Tensor]:
        return self._outputs(rgb, None)


class _Motion(Deployed):
    def forward(self, flow: Tensor) -> dict[str, Tensor]:
        return self._outputs(None, flow)


def deployed(network: STResNet, fusion_weight: float = EQUAL_WEIGHTS) -> Deployed:
    """The module of these streams, in evaluation mode: exporters need to know the inputs' names."""
    kinds: dict[tuple[str, ...], type[Deployed]] = {("appearance",): _Appearance, ("motion",): _Motion}
    return kinds.get(tuple(network.streams), _TwoStreams)(network, fusion_weight).eval()


def random_inputs(model: Deployed, size: tuple[int, int], videos: int, frames: int) -> tuple[Tensor, ...]:
    """Any pixels, in the order of `model.inputs`."""
    generator = torch.Generator().manual_seed(0)

    def pixels(name: str, channels: int) -> Tensor:
        stored, shape = INPUTS[name], (videos, frames, channels, *size)
        return torch.randint(stored.largest + 1, shape, dtype=stored.type, generator=generator)

    return tuple(pixels(name, channels) for name, channels in model.inputs.items())
