"""Farneback's flow (SCIA 2003): polynomial expansion, through OpenCV. Fast and smooth.

Letters: N pairs of frames, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from pipelines.optical_flow.grey import OpenCVMethod, flow_by_pair
from pipelines.optical_flow.methods import parse_options, require


@dataclass(frozen=True)
class FarnebackParameters:
    """OpenCV's parameters; the defaults are those of its documentation's example."""

    pyr_scale: float = 0.5
    """Size of a pyramid level relative to the next finer one."""
    levels: int = 3
    """Levels of the pyramid, the full size included."""
    winsize: int = 15
    """Averaging window, pixels: larger is smoother and finds faster motion."""
    iterations: int = 3
    """Iterations a level."""
    poly_n: int = 5
    """Neighbourhood of the polynomial expansion, pixels."""
    poly_sigma: float = 1.2
    """Deviation of the Gaussian that weights it: 1.1 suits poly_n 5, 1.5 suits 7."""
    gaussian: int = 0
    """1: average by a Gaussian window rather than a box: more accurate, slower."""

    def __post_init__(self) -> None:
        require(
            self,
            pyr_scale=(0.1 <= self.pyr_scale < 1, "0.1 or more and below 1"),
            levels=(1 <= self.levels <= 30, "1..30"),
            winsize=(3 <= self.winsize <= 999, "3..999"),
            iterations=(1 <= self.iterations <= 1000, "1..1000"),
            poly_n=(3 <= self.poly_n <= 31, "3..31"),
            poly_sigma=(0.1 <= self.poly_sigma <= 100, "0.1..100"),
            gaussian=(self.gaussian in (0, 1), "0 or 1"),
        )


class Farneback(OpenCVMethod):
    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        return flow_by_pair(self._calc, frame0, frame1)

    def _calc(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        s = self.settings
        flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN if s.gaussian else 0
        flow = np.empty((*before.shape, 2), np.float32)
        return cv2.calcOpticalFlowFarneback(
            before, after, flow, s.pyr_scale, s.levels, s.winsize, s.iterations, s.poly_n, s.poly_sigma, flags
        )


def make(options: Mapping[str, str | float], device: str) -> Farneback:
    return Farneback(parse_options("farneback", FarnebackParameters, options))
