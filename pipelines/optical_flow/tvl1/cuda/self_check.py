"""Whether the kernel gives the reference's flow on this GPU: asked once a process and compiled variant, before any
other flow is computed with it."""

import math

import torch

from pipelines.optical_flow.tvl1 import reference
from pipelines.optical_flow.tvl1.cuda.compiler import Unavailable
from pipelines.optical_flow.tvl1.cuda.shapes import OWN, Shape, Variant
from pipelines.optical_flow.tvl1.cuda.solver import Launcher, solve
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters, level_sizes

_HEIGHT, _WIDTH = 48, 64
_ALLOWED = 1e-4  # pixels, in the mean; float32 alone gives 1e-6

_FIXED = TVL1Parameters(nscales=2, warps=2, inner_iterations=10, outer_iterations=1, epsilon=0.0)
# Whose iterations are the same with a threshold three thousandths lower or higher, and in float64.
_STOPPING = [TVL1Parameters(mode=mode, nscales=2, warps=2, epsilon=0.03) for mode in ("cpu", "cuda")]


def check_variant(variant: Variant, launcher: Launcher, device: torch.device) -> None:
    """Raises `Unavailable` where the flow or the number of iterations is not the reference's."""
    frame0, frame1 = _frames()
    for parameters in (_FIXED, *_STOPPING):
        counts: list[int] = []
        expected = reference.compute_flow(frame0, frame1, parameters, counts=counts)
        sizes = level_sizes(_HEIGHT, _WIDTH, parameters.nscales, parameters.scale_step)
        shapes = [_shape(variant, *size) for size in sizes]
        flow, stuck, found = solve(frame0.to(device), frame1.to(device), parameters, shapes, launcher)
        if int(stuck):
            raise Unavailable("its blocks waited for each other in vain")
        if torch.stack(found, 1).flatten().tolist() != counts:
            raise Unavailable("it stops at other iterations than the CPU")
        difference = float(torch.linalg.vector_norm(flow.cpu() - expected, dim=1).mean())
        if not difference <= _ALLOWED:  # NaN too
            raise Unavailable(f"its flow differs from the CPU's by {difference:.2g} pixels")


def _shape(variant: Variant, height: int, width: int) -> Shape:
    """Several blocks, and where there is room several strips of each in either direction."""
    across, down = math.ceil(width / OWN), 2 if 2 * variant.rows < height else 1
    return Shape(variant, across, down, math.ceil(height / (down * variant.rows)))


def _frames() -> tuple[torch.Tensor, torch.Tensor]:
    """Two waves that move, uint8 [2, H, W] twice, and two pictures that do not."""
    y, x = torch.meshgrid(torch.arange(_HEIGHT).double(), torch.arange(_WIDTH).double(), indexing="ij")

    def picture(shift_x: float, shift_y: float) -> torch.Tensor:
        across, down = x - shift_x, y - shift_y
        waves = (0.31 * across + 0.11 * down, 0.17 * across - 0.43 * down, 0.07 * across + 0.59 * down, 0.73 * across)
        return (127.5 + 30 * torch.stack(waves).sin().sum(0)).round().clamp(0, 255).byte()

    return torch.stack([picture(0, 0), picture(2, 1)]), torch.stack([picture(1.3, -0.6), picture(2, 1)])
