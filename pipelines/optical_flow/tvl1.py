"""TV-L1 flow (Zach, Pock, Bischof, DAGM 2007), as OpenCV's DualTVL1OpticalFlow computes it.

Letters: N pairs of frames, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import cv2
import torch

from pipelines.optical_flow.grey import flow_by_pair
from pipelines.optical_flow.methods import as_options, parse_options, require


@dataclass(frozen=True)
class TVL1Parameters:
    """OpenCV's parameters and defaults. Raises `UsageError` for values out of range."""

    tau: float = 0.25
    """Time step of the dual update."""
    lambda_: float = 0.15
    """Weight of the data term: smaller gives smoother flow."""
    theta: float = 0.3
    """How tightly the flow is tied to its auxiliary copy."""
    nscales: int = 5
    """Levels of the image pyramid; fewer are used where one would be smaller than 16 pixels."""
    warps: int = 5
    """Warpings of the second frame a level."""
    epsilon: float = 0.01
    """Stops a warp when the flow changes less than this (root mean square, pixels)."""
    inner_iterations: int = 30
    """Iterations between two median filterings."""
    outer_iterations: int = 10
    """Median filterings a warp."""
    scale_step: float = 0.8
    """Size of a level relative to the next finer one."""
    gamma: float = 0.0
    """Weight of the illumination term; 0 leaves it out."""
    median_filtering: int = 5
    """Side of the median filter: 1 (none), 3 or 5."""

    def __post_init__(self) -> None:
        require(
            self,
            tau=(0 < self.tau <= 1, "above 0 and at most 1"),
            lambda_=(0 < self.lambda_ < 1e6, "a positive number"),
            theta=(0 < self.theta < 1e6, "a positive number"),
            nscales=(1 <= self.nscales <= 100, "1..100"),
            warps=(1 <= self.warps <= 1000, "1..1000"),
            epsilon=(0 <= self.epsilon < 1e6, "0 or more"),
            inner_iterations=(1 <= self.inner_iterations <= 10000, "1..10000"),
            outer_iterations=(1 <= self.outer_iterations <= 10000, "1..10000"),
            scale_step=(0.1 <= self.scale_step < 1, "0.1 or more and below 1"),
            gamma=(0 <= self.gamma < 1e6, "0 or more"),
            median_filtering=(self.median_filtering in (1, 3, 5), "1 (none), 3 or 5"),
        )


def tvl1_flow(
    frame0: torch.Tensor,
    frame1: torch.Tensor,
    *,
    parameters: TVL1Parameters = TVL1Parameters(),
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """TV-L1 flow of grey frames: uint8 [N, H, W] twice to float32 [N, 2, H, W] in pixels, x then y.

    `device`: where the result lies; None: where the input is. OpenCV computes on the CPU.
    """
    # One object keeps buffers (it is not thread-safe), and lowers its number of scales for good when it meets small
    # frames: a new one for every call, in which all frames have one size.
    engine = _opencv_engine(parameters)
    flow = flow_by_pair(lambda before, after: engine.calc(before, after, None), frame0, frame1)
    return flow.to(device if device is not None else frame0.device)


def _opencv_engine(parameters: TVL1Parameters) -> Any:
    return cv2.optflow.DualTVL1OpticalFlow.create(
        tau=parameters.tau,
        lambda_=parameters.lambda_,
        theta=parameters.theta,
        nscales=parameters.nscales,
        warps=parameters.warps,
        epsilon=parameters.epsilon,
        innnerIterations=parameters.inner_iterations,  # OpenCV's spelling
        outerIterations=parameters.outer_iterations,
        scaleStep=parameters.scale_step,
        gamma=parameters.gamma,
        medianFiltering=parameters.median_filtering,
        useInitialFlow=False,
    )


class TVL1:
    """`tvl1_flow` as a `FlowMethod`."""

    input: ClassVar[Literal["grey"]] = "grey"
    uses_device: ClassVar[bool] = False
    batch_size = 4  # half a second to two seconds a pair at 340x256: small batches keep the progress moving

    def __init__(self, settings: TVL1Parameters) -> None:
        self.settings = settings
        self.parameters = as_options(settings)

    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        return tvl1_flow(frame0, frame1, parameters=self.settings)


def make(options: Mapping[str, str | float], device: str) -> TVL1:
    return TVL1(parse_options("tvl1", TVL1Parameters, options))
