"""The logits of one video: windows over time, views and mirrors through the network, all averaged (PAPER "Testing").

Letters: V views, T frames, T' time steps after pooling, L stack, C classes, h w network input.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from pipelines.models import Normalise, STResNet

Array = TypeVar("Array", np.ndarray, torch.Tensor)
FRAMES_AT_ONCE = 128  # of the network's input; bounds memory at 224 px and depth 50 to a few GB


def with_fused(logits: Mapping[str, Array]) -> dict[str, Array]:
    """The logits of the streams, and where there are both `fused`, their mean (PAPER.md, "Testing")."""
    both = {"appearance", "motion"} <= logits.keys()
    return dict(logits) | ({"fused": (logits["appearance"] + logits["motion"]) / 2} if both else {})


class Scorer:
    """Scores one video at a time with a trained network, which it puts on `device` in evaluation mode."""

    def __init__(self, network: STResNet, device: torch.device, precision: str = "fp32") -> None:
        self.network = network.to(device).eval()
        self.normalise = Normalise().to(device)
        self.device = device
        self.dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    @property
    def shortest(self) -> int:
        """The least frames that a window must have: those that the network pools over."""
        pools = [stream.temporal_pool for stream in self.network.streams.values()]
        return max(1 if pool is None else pool.size for pool in pools)

    @torch.inference_mode()
    def score(
        self, rgb: torch.Tensor | None, flow: torch.Tensor | None, windows: Sequence[Sequence[int]]
    ) -> dict[str, torch.Tensor]:
        """Mean logits of each stream of one video: float64 [C] on the CPU.

        `rgb`: uint8 [V, T, 3, h, w], `flow`: uint8 [V, T, 2L, h, w]; `windows`: index lists into T, each one goes
        through the network as one sequence. The mean is over views, windows and time steps; over space the network
        averages before its classifier, which is linear.
        """
        given = rgb if rgb is not None else flow
        assert given is not None
        inputs = [(view, list(window)) for view in range(len(given)) for window in windows]
        at_once = max(1, FRAMES_AT_ONCE // max(len(window) for window in windows))
        sums: dict[str, torch.Tensor] = {}
        for start in range(0, len(inputs), at_once):
            part = inputs[start : start + at_once]
            for name, logits in self._forward(self._take(rgb, part), self._take(flow, part)).items():
                sums[name] = sums.get(name, 0) + logits.mean(1).double().sum(0).cpu()
        return {name: total / len(inputs) for name, total in sums.items()}

    @staticmethod
    def _take(clip: torch.Tensor | None, part: list[tuple[int, list[int]]]) -> torch.Tensor | None:
        return None if clip is None else torch.stack([clip[view, window] for view, window in part])

    def _forward(self, rgb: torch.Tensor | None, flow: torch.Tensor | None) -> dict[str, torch.Tensor]:
        rgb, flow = (None if x is None else x.to(self.device, non_blocking=True) for x in (rgb, flow))
        with torch.autocast(self.device.type, self.dtype or torch.float32, enabled=self.dtype is not None):
            logits = self.network(*self.normalise(rgb, flow))
        return {name: value.float() for name, value in logits._asdict().items() if value is not None}
