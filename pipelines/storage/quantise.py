"""Flow in pixels to bytes and back, which bytes are clipped, and the one rule by which stored flow is mirrored.

A byte is `round(255 * (v + bound) / (2 * bound))` of the value v clipped to [-bound, bound] (paper.md 1.2): 0 stands
for -bound, 255 for +bound, and no motion, which falls on 127.5, is 128. One step is 2 * bound / 255 pixels, 0.157 at
the usual bound of 20. Every function takes NumPy arrays and PyTorch tensors alike and returns the kind it was given.

No other module knows these numbers, or that a level is a byte: whatever depends on them uses the names below. Levels of
10 bits would be `MAX_LEVEL = 1023` and `LEVEL_TYPE = int16`, with which PyTorch computes as it hardly does with uint16.

Whoever changes any of it raises `FLOW_SCHEMA`, or old and new flow mix unnoticed, and has `FlowSettings` tell it, or a
network trained on the one is given the other.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipelines.errors import UsageError, VideoError

if TYPE_CHECKING:
    import torch

MAX_LEVEL = 255
"""The level of +bound; that of -bound is 0."""
LEVELS = MAX_LEVEL + 1
"""How many levels there are."""
NO_MOTION = round(MAX_LEVEL / 2)
"""The level of zero: half to even, as `quantise` rounds."""
LEVEL_TYPE = np.dtype(np.uint8)
"""What levels are stored as."""
GREYS = np.rint(np.arange(LEVELS) * (255 / MAX_LEVEL)).astype(np.uint8)
"""The brightness that shows a level in a picture: uint8 [LEVELS]."""
LEVELS_OF_GREYS = np.rint(np.arange(256) * (MAX_LEVEL / 255)).astype(LEVEL_TYPE)
"""The level that other programs mean by a brightness: [256]."""
Array = TypeVar("Array", "np.ndarray", "torch.Tensor")


def quantise(flow: Array, bound: float) -> Array:
    """Clips `flow` (floats, pixels, any shape) to [-bound, bound] and maps it to levels, rounding half to even.

    Computed in float64 as `v * (127.5 / bound) + 127.5`, the formula above rearranged so that zero is exactly 127.5,
    and therefore `NO_MOTION`, whatever the bound. NaN counts as no motion.
    Raises `UsageError` unless bound > 0.
    """
    _check_bound(bound)
    center = MAX_LEVEL / 2
    scale = center / bound
    if isinstance(flow, np.ndarray):
        known = np.nan_to_num(flow.astype(np.float32, copy=False), nan=0.0, posinf=bound, neginf=-bound)
        return np.rint(np.clip(known, -bound, bound).astype(np.float64) * scale + center).astype(LEVEL_TYPE)
    import torch

    known_tensor = flow.to(torch.float32).nan_to_num(nan=0.0, posinf=bound, neginf=-bound).clamp_(-bound, bound)
    return known_tensor.to(torch.float64).mul_(scale).add_(center).round_().to(level_tensor_type())


def level_tensor_type() -> "torch.dtype":
    """`LEVEL_TYPE` in PyTorch."""
    import torch

    return getattr(torch, LEVEL_TYPE.name)


def require_finite(finite: "torch.Tensor | bool") -> None:
    """Raises `VideoError` unless all flow of a method is: bytes would show NaN and infinity as some motion."""
    if not bool(finite):
        raise VideoError("the flow method gave NaN or infinity: its parameters or weights do not suit this video")


def step_size(bound: float) -> float:
    """Pixels between one level and the next."""
    return 2 * bound / MAX_LEVEL


def dequantise(fields: Array, bound: float) -> Array:
    """The flow in pixels (float32) that levels stand for; off by at most half a step from what was quantised.

    `NO_MOTION` gives half a step rather than 0, as the linear map has it. Raises `UsageError` unless bound > 0.
    """
    _check_bound(bound)
    step = step_size(bound)
    if isinstance(fields, np.ndarray):
        return fields.astype(np.float32) * np.float32(step) - np.float32(bound)
    import torch

    return fields.to(torch.float32) * step - bound


def is_clipped(fields: Array) -> Array:
    """Which vectors have a component at an end of the range, where clipping puts it: [..., 2, H, W] -> bool
    [..., H, W]."""
    return ((fields == 0) | (fields == MAX_LEVEL)).any(-3)


def mirror_x_flow(fields: Array) -> Array:
    """Mirrors quantised flow left-right: reverses the columns and turns x components round, `MAX_LEVEL - value`.

    `fields`: [..., 2L, H, W] with channels x, y, x, y, ... (also [F, 2, H, W]); y components keep their values.
    Returns a new array of the same shape. What stands still stays at 127 or 128, half a step from zero on either side.
    """
    if fields.ndim < 3 or fields.shape[-3] % 2:
        raise ValueError(f"flow to mirror must be [..., 2L, H, W] with x and y in turn, not {tuple(fields.shape)}")
    if isinstance(fields, np.ndarray):
        mirrored = fields[..., ::-1].copy()
    else:
        mirrored = fields.flip(-1)
    mirrored[..., 0::2, :, :] = MAX_LEVEL - mirrored[..., 0::2, :, :]
    return mirrored


def _check_bound(bound: float) -> None:
    if not 0 < bound < float("inf"):
        raise UsageError(f"--bound must be a positive number of pixels, not {bound}")
