"""The logits of one video: windows over time, views and mirrors through the network, all averaged (paper.md 4).

Letters: V views, T frames, T' time steps after pooling, L stack, C classes, h w network input.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch

from pipelines.datasets.clips import Clips, Frames
from pipelines.datasets.preparation import Prepare, reduced
from pipelines.errors import MissingError
from pipelines.interface.options import EQUAL_WEIGHTS
from pipelines.interface.wording import DIVERGED
from pipelines.models import STResNet
from pipelines.models.folding import folded
from pipelines.models.stream import Stream
from pipelines.runtime.devices import copy_to_host

Array = TypeVar("Array", np.ndarray, torch.Tensor)
Output = Callable[[Stream, torch.Tensor], torch.Tensor]
"""What to make of a stream's last feature maps [B, T', C, H', W']: float [B, ...]."""
FRAMES_AT_ONCE = 128  # of the network's input; bounds memory at 224 px and depth 50 to a few GB


def with_fused(logits: Mapping[str, Array], weight: float = EQUAL_WEIGHTS) -> dict[str, Array]:
    """The logits of the streams, and where there are both `fused`, their mean (paper.md 4.1) with that `weight` of
    appearance."""
    both = {"appearance", "motion"} <= logits.keys()
    return dict(logits) | ({"fused": weight * logits["appearance"] + (1 - weight) * logits["motion"]} if both else {})


def shortest_window(network: STResNet) -> int:
    """The least frames that a window must have: those that the network pools over."""
    pools = [stream.temporal_pool for stream in network.streams.values()]
    return max(1 if pool is None else pool.size for pool in pools)


def mean_logits(stream: Stream, maps: torch.Tensor) -> torch.Tensor:
    """[B, C]: the logits, averaged over time."""
    return stream.classify(maps).float().mean(1)


def mean_features(stream: Stream, maps: torch.Tensor) -> torch.Tensor:
    """float [B, channels]: what the classifier is given, averaged over time."""
    return stream.features(maps).float().mean(1)


class Scorer:
    """Scores one video at a time with a trained network: a copy of it on `device`, its batch norms folded."""

    def __init__(self, network: STResNet, device: torch.device, precision: str = "fp32") -> None:
        self.network = folded(network).to(device)
        self.device, self.dtype = device, reduced(precision)
        self.prepare = Prepare(network.normalise(), self.dtype, on_gpu=device.type == "cuda").to(device)

    def mean(
        self,
        rgb: Frames | None,
        flow: Frames | None,
        windows: Sequence[Sequence[int]],
        output: Output = mean_logits,
    ) -> dict[str, torch.Tensor]:
        """Puts one video through the network.

        Args:
            rgb: V views of T frames, as loaded or as uint8 [V, T, 3, h, w]; None: the network has no appearance stream.
            flow: The same of stacks, [V, T, 2L, h, w].
            windows: Index lists into T; each one goes through the network as one sequence.
            output: What is made of its last feature maps. Over space the network averages before its classifier, which
                is linear.

        Returns:
            Of each stream the mean of `output` over views and windows: float64, of logits [C], on the CPU.

        Raises:
            MissingError: They are not finite.
        """
        return self.begin(rgb, flow, windows, output)()

    @torch.inference_mode()
    def begin(
        self, rgb: Frames | None, flow: Frames | None, windows: Sequence[Sequence[int]], output: Output
    ) -> Callable[[], dict[str, torch.Tensor]]:
        """As `mean`, but gives what waits for the result: until that is called a GPU can be given the next video."""
        given = rgb if rgb is not None else flow
        assert given is not None
        # All the views of a video share its pixels: they go to the device once.
        rgb, flow = (x.to(self.device, non_blocking=True) if isinstance(x, Clips) else x for x in (rgb, flow))
        inputs = [(view, list(window)) for view in range(len(given)) for window in windows]
        at_once = max(1, FRAMES_AT_ONCE // max(len(window) for window in windows))
        sums: dict[str, torch.Tensor] = {}
        for start in range(0, len(inputs), at_once):
            part = inputs[start : start + at_once]
            prepared = self.prepare(self._take(rgb, part), self._take(flow, part))
            with torch.autocast(self.device.type, self.dtype or torch.float32, enabled=self.dtype is not None):
                maps = self.network.feature_maps(*prepared)
                outputs = {str(name): output(self.network.streams[name], of) for name, of in maps.items()}
            for name, values in outputs.items():
                sums[name] = sums.get(name, 0) + values.double().sum(0)
        arrived = copy_to_host(*sums.values())

        @torch.inference_mode()
        def wait() -> dict[str, torch.Tensor]:
            totals = dict(zip(sums, arrived(), strict=True))
            for name, total in totals.items():
                if not bool(torch.isfinite(total).all()):
                    cause = DIVERGED
                    if self.dtype == torch.float16:
                        cause = "fp16 is too coarse for it, or the training diverged; try --precision fp32"
                    raise MissingError(f"the network's {name} scores are not finite numbers: {cause}")
            return {name: total / len(inputs) for name, total in totals.items()}

        return wait

    def _take(self, clip: Frames | None, part: list[tuple[int, list[int]]]) -> Frames | None:
        if isinstance(clip, Clips):
            return Clips([clip[view].frames(window) for view, window in part])
        if clip is not None:
            return torch.stack([clip[view, window] for view, window in part]).to(self.device, non_blocking=True)
        return None
