"""Dense inverse search flow (Kroeger et al., ECCV 2016), through OpenCV. The fastest on a CPU.

Letters: N pairs of frames, H W pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import torch

from pipelines.optical_flow.grey import OpenCVMethod, flow_by_pair, require_size
from pipelines.optical_flow.methods import parse_options, require

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}

# OpenCV 5.0.0 crashes (segmentation fault) at many sizes with a side of 8 to 30 pixels, whatever the other side; of all
# sizes from 32x32 to 240x240 none did.
_SMALLEST_SIDE = 32


@dataclass(frozen=True)
class DISParameters:
    preset: str = "medium"
    """OpenCV's settings by name: ultrafast, fast or medium."""

    def __post_init__(self) -> None:
        require(self, preset=(self.preset in _PRESETS, f"one of {', '.join(_PRESETS)}"))


class DIS(OpenCVMethod):
    batch_size = 32

    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        require_size(frame0, _SMALLEST_SIDE, "dis")
        engine: Any = cv2.DISOpticalFlow.create(_PRESETS[self.settings.preset])
        return flow_by_pair(lambda before, after: engine.calc(before, after, None), frame0, frame1)


def make(options: Mapping[str, str | float], device: str) -> DIS:
    return DIS(parse_options("dis", DISParameters, options))
