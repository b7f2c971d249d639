"""Our own TV-L1 optical flow: OpenCV's numbers, from engines that are fast on CPU and GPU. See docs/tvl1.md."""

from pipelines.optical_flow.tvl1.flow import make, tvl1_flow
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters

__all__ = ["TVL1Parameters", "make", "tvl1_flow"]
