"""The flow of one batch of frames: made ready, computed, quantised and counted on the method's device.

Letters: N pairs of frames, H W pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from pipelines.errors import VideoError
from pipelines.optical_flow.displacement import count_lengths
from pipelines.optical_flow.grey import to_grey, to_grey_on
from pipelines.optical_flow.methods import FlowMethod
from pipelines.runtime.devices import copy_to_host, mark_on_gpu, seconds_between
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.quantise import quantise, require_finite
from pipelines.video.resize import resize_on

_PREPARED_AT_ONCE = 32  # frames


class BatchFlow(NamedTuple):
    """What is made of a batch."""

    fields: torch.Tensor
    """Levels [N, 2, H, W], on the CPU."""
    lengths: torch.Tensor
    """How long the vectors of each field are: what `count_lengths` gives, on the CPU."""
    engine: str
    """What computed it, as `FlowMethod.engine`."""
    gpu_seconds: float
    """For which it kept a GPU busy; 0 where none computed."""

    def piece(self, start: int, stop: int) -> "BatchFlow":
        """What is made of the pairs start..stop-1."""
        share = (stop - start) / len(self.fields)
        return BatchFlow(self.fields[start:stop], self.lengths[start:stop], self.engine, share * self.gpu_seconds)


def begin_batch(
    batch: torch.Tensor, method: FlowMethod, settings: FlowSettings, device: torch.device, size: tuple[int, int] | None
) -> Callable[[], BatchFlow]:
    """Gives the device the flow of all pairs of a batch to compute, without waiting for it where it is a GPU.

    Args:
        batch: Frames on the CPU: for a method on the CPU as `method_input` gives them, [N + step, ...]; for one on a
            GPU as they are decoded, uint8 [N + step, H, W, 3].
        settings: Whose step and bound to use.
        device: Where the method computes.
        size: Height and width to which a GPU resizes the frames; None: they have their size.

    Returns:
        What waits for the flow to arrive. Raises `VideoError` where that is not finite.

    Raises:
        VideoError: The GPU has too little memory, or the frames are too small for the method.
    """
    try:
        begin = mark_on_gpu(device)
        run = batch.to(device, non_blocking=True)
        if device.type != "cpu":
            run = method_input_on(run, method, size)
        flow = method.flow(run[: -settings.step], run[settings.step :])
        made = quantise(flow, settings.bound), count_lengths(flow, settings.bound), torch.isfinite(flow).all()
    except torch.OutOfMemoryError as error:
        raise VideoError("not enough memory on the GPU for this video's flow: use fewer --workers") from error
    arriving = copy_to_host(*made)
    end, engine = mark_on_gpu(device), method.engine

    def wait() -> BatchFlow:
        fields, lengths, finite = arriving()
        require_finite(finite)
        return BatchFlow(fields, lengths, engine, seconds_between(begin, end))

    return wait


def work_on(device: torch.device) -> None:
    """Makes a GPU this thread's current one: each thread has its own, by default the first GPU, of which it would take
    half a GB."""
    if device.index is not None:
        torch.cuda.set_device(device)


def method_input(frame: np.ndarray, method: FlowMethod) -> np.ndarray:
    """An RGB frame uint8 [H, W, 3] as the method takes it: [H, W] or [3, H, W]."""
    return to_grey(frame) if method.input == "grey" else frame.transpose(2, 0, 1)


def method_input_on(frames: torch.Tensor, method: FlowMethod, size: tuple[int, int] | None) -> torch.Tensor:
    """RGB frames uint8 [N, H, W, 3] resized, and as the method takes them, on their device: what `resize` and
    `method_input` make of each, bit for bit."""
    height, width = size or frames.shape[1:3]
    parts = [resize_on(part, width, height) for part in frames.split(_PREPARED_AT_ONCE)]
    return torch.cat([to_grey_on(part) if method.input == "grey" else part.permute(0, 3, 1, 2) for part in parts])
