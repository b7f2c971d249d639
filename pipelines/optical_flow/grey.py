"""What the methods that OpenCV computes have in common: grey frames in, one pair at a time.

Letters: N pairs of frames, H W pixels.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch

from pipelines.errors import VideoError
from pipelines.optical_flow.methods import as_options


class OpenCVMethod:
    """A `FlowMethod` that OpenCV computes on the CPU; a class of it has `flow` and may have another batch size."""

    input: ClassVar[Literal["grey"]] = "grey"
    batch_invariant: ClassVar[bool] = True
    engine: ClassVar[str] = "opencv"
    uses_device: ClassVar[bool] = False
    batch_size = 16

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.parameters = as_options(settings)


def to_grey(picture: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] to grey [H, W], with the weights .299, .587, .114 in OpenCV's fixed-point arithmetic."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


def to_grey_on(pictures: torch.Tensor) -> torch.Tensor:
    """The same on any device: uint8 [N, H, W, 3] to [N, H, W]."""
    red, green, blue = (channel.to(torch.int32) for channel in pictures.unbind(-1))
    return ((9798 * red + 19235 * green + 3735 * blue + (1 << 14)) >> 15).to(torch.uint8)


def flow_by_pair(
    calc: Callable[[np.ndarray, np.ndarray], np.ndarray], frame0: torch.Tensor, frame1: torch.Tensor
) -> torch.Tensor:
    """Calls `calc` on each pair of frames.

    Args:
        calc: Takes two grey frames [H, W] and returns their flow [H, W, 2].
        frame0: uint8 [N, H, W].
        frame1: The frames that the flow leads to.

    Returns:
        float32 [N, 2, H, W], on the frames' device.
    """
    check_frames(frame0, frame1, channels=None)
    flow = torch.empty((len(frame0), 2, *frame0.shape[1:]), dtype=torch.float32)
    for index, (before, after) in enumerate(zip(frame0.cpu().numpy(), frame1.cpu().numpy(), strict=True)):
        field = calc(np.ascontiguousarray(before), np.ascontiguousarray(after))
        flow[index] = torch.from_numpy(field).permute(2, 0, 1)
    return flow.to(frame0.device)


def check_frames(frame0: torch.Tensor, frame1: torch.Tensor, *, channels: int | None) -> None:
    """Raises `ValueError` unless both are uint8 [N, H, W], or [N, channels, H, W], of one shape."""
    wanted = "[N, H, W]" if channels is None else f"[N, {channels}, H, W]"
    dimensions = 3 if channels is None else 4
    for frame in (frame0, frame1):
        fits = frame.ndim == dimensions and (channels is None or frame.shape[1] == channels)
        if not fits or frame.dtype != torch.uint8 or frame.shape != frame0.shape:
            shapes = f"{frame0.dtype} {tuple(frame0.shape)} and {frame1.dtype} {tuple(frame1.shape)}"
            raise ValueError(f"frames must be uint8 {wanted}, both of one shape, not {shapes}")


def require_size(frame: torch.Tensor, smallest: int, method: str) -> None:
    """Raises `VideoError` if a side of [..., H, W] is below `smallest` pixels."""
    height, width = frame.shape[-2:]
    if min(height, width) < smallest:
        raise VideoError(
            f"frames of {width}x{height} are too small for {method}, which needs {smallest} pixels a side: "
            f"use --short-side {smallest} or more, or another --method"
        )
