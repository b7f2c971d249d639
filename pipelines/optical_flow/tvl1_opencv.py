"""TV-L1 flow through OpenCV's own `DualTVL1OpticalFlow`: slow; to compare with, and for its illumination term.

Letters: N pairs of frames, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import torch

from pipelines.optical_flow.grey import OpenCVMethod, flow_by_pair
from pipelines.optical_flow.methods import parse_options, require
from pipelines.optical_flow.tvl1.parameters import SharedParameters, TVL1Parameters


@dataclass(frozen=True)
class OpenCVParameters(SharedParameters):
    """OpenCV's parameters and defaults. Raises `UsageError` for values out of range."""

    median_filtering: int = 5
    """Side of the median filter: 1 (none), 3 or 5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, median_filtering=(self.median_filtering in (1, 3, 5), "1 (none), 3 or 5"))


def opencv_tvl1_flow(
    frame0: torch.Tensor, frame1: torch.Tensor, *, parameters: OpenCVParameters | TVL1Parameters
) -> torch.Tensor:
    """Grey frames uint8 [N, H, W] twice to float32 [N, 2, H, W] in pixels, x then y, where the input is."""
    # One object keeps buffers (it is not thread-safe), and lowers its number of scales for good when it meets small
    # frames: a new one for every call, in which all frames have one size.
    engine: Any = cv2.optflow.DualTVL1OpticalFlow.create(
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
    return flow_by_pair(lambda before, after: engine.calc(before, after, None), frame0, frame1)


class OpenCVTVL1(OpenCVMethod):
    """`opencv_tvl1_flow` as a `FlowMethod`."""

    batch_size = 4  # half a second to two seconds a pair at 340x256: small batches keep the progress moving

    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        return opencv_tvl1_flow(frame0, frame1, parameters=self.settings)


def make(options: Mapping[str, str | float], device: str) -> OpenCVTVL1:
    return OpenCVTVL1(parse_options("tvl1-opencv", OpenCVParameters, options))
