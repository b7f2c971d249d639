"""The pyramid around the kernel: level by level, all pairs at once, each level in one launch.

Letters: N pairs, H W pixels of a level, L levels.
"""

import ctypes
from collections.abc import Sequence
from typing import Protocol

import torch

from pipelines.optical_flow.tvl1.cuda.shapes import AROUND, Limits, Shape, shape_for
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters, level_sizes
from pipelines.optical_flow.tvl1.reference import centered_gradient, enlarge, image_pyramid

_PATIENCE = 5.0  # seconds: a thousand times what a block takes for an iteration of the largest level
_PACKET = 16  # bytes

_Pointer, _Int, _Float = ctypes.c_uint64, ctypes.c_int32, ctypes.c_float


class LevelArguments(ctypes.Structure):
    """`Arguments` of level.cu."""

    _fields_ = (
        *((name, _Pointer) for name in ("images", "flow", "iterations", "rows", "sums", "orders", "queue", "stuck")),
        ("threshold", ctypes.c_double),
        ("patience", ctypes.c_int64),
        *((name, _Float) for name in ("limit", "theta", "dual_step")),
        *((name, _Int) for name in ("pairs", "height", "width", "blocks", "across", "down")),
        *((name, _Int) for name in ("warpings", "inner", "outer", "median", "like_cuda")),
        *((name, _Int) for name in ("data_at", "first_at", "last_at", "top_at", "bottom_at", "plane_at", "plane_size")),
    )


class Launcher(Protocol):
    """Runs level.cu: a GPU, or in tests the emulator."""

    limits: Limits

    def launch(self, shape: Shape, arguments: LevelArguments, slots: int) -> None:
        """Starts `slots * shape.blocks` blocks, which all run at once, on the current stream."""


def shapes_for(height: int, width: int, parameters: TVL1Parameters, limits: Limits) -> list[Shape] | None:
    """Of every level, the full size first; None where one of them fits no GPU like this."""
    sizes = level_sizes(height, width, parameters.nscales, parameters.scale_step)
    shapes = [shape_for(*size, limits) for size in sizes]
    return None if None in shapes else [shape for shape in shapes if shape is not None]


def solve(
    frame0: torch.Tensor,
    frame1: torch.Tensor,
    parameters: TVL1Parameters,
    shapes: Sequence[Shape],
    launcher: Launcher,
    *,
    patience: float = _PATIENCE,
) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """The flow of uint8 [N, H, W] twice: float32 [N, 2, H, W], on the frames' device.

    Also a flag, int32 [1], which is not 0 where a block waited for another for longer than `patience` seconds and the
    flow is worth nothing; and of each level, the coarsest first, how many iterations each warping took: [N, warps].
    """
    pairs = len(frame0)
    pyramid = image_pyramid(torch.cat([frame0, frame1]).float(), parameters)
    stuck = torch.zeros(1, dtype=torch.int32, device=frame0.device)
    flow = torch.zeros((pairs, 2, *pyramid[-1].shape[1:]), device=frame0.device)
    counts = []
    for images, shape in zip(reversed(pyramid), reversed(shapes), strict=True):
        if flow.shape[2:] != images.shape[1:]:
            flow = enlarge(flow.flatten(0, 1), images.shape[1:], parameters).unflatten(0, (pairs, 2)).contiguous()
        counts.append(_solve_level(images, flow, parameters, shape, launcher, stuck, patience))
    return flow, stuck, counts


def _solve_level(
    images: torch.Tensor,
    flow: torch.Tensor,
    parameters: TVL1Parameters,
    shape: Shape,
    launcher: Launcher,
    stuck: torch.Tensor,
    patience: float,
) -> torch.Tensor:
    """Improves `flow` [N, 2, H, W] in place; images: [2 N, H, W], all first frames and then all second ones."""
    before, after = images.chunk(2)
    pairs, height, width = before.shape
    gradient_x, gradient_y = centered_gradient(after)
    pixels = torch.stack([after, gradient_x, gradient_y, before], dim=-1)
    slots = min(shape.slots(launcher.limits), pairs)
    counts = torch.zeros((pairs, parameters.warps), dtype=torch.int32, device=images.device)
    # Two places for each message, which carries its number from 1 up.
    rows = slots * 2 * shape.blocks * 2 * AROUND * width
    sums, orders = slots * 2 * shape.blocks, slots
    mail = torch.zeros((rows + sums + orders + 1) * _PACKET, dtype=torch.uint8, device=images.device)
    at = mail.data_ptr()
    arguments = LevelArguments(
        images=pixels.data_ptr(),
        flow=flow.data_ptr(),
        iterations=counts.data_ptr(),
        rows=at,
        sums=at + rows * _PACKET,
        orders=at + (rows + sums) * _PACKET,
        queue=at + (rows + sums + orders) * _PACKET,
        stuck=stuck.data_ptr(),
        threshold=parameters.epsilon**2 * height * width,
        patience=int(patience * 1e9),
        limit=parameters.lambda_ * parameters.theta,
        theta=parameters.theta,
        dual_step=parameters.tau / parameters.theta,
        pairs=pairs,
        height=height,
        width=width,
        blocks=shape.blocks,
        across=shape.across,
        down=shape.down,
        warpings=parameters.warps,
        inner=parameters.inner_iterations,
        outer=parameters.outer_iterations,
        median=parameters.median_filtering,
        like_cuda=parameters.mode == "cuda",
        **shape.offsets,
    )
    launcher.launch(shape, arguments, slots)
    return counts
