"""Optical flow: the methods behind one interface, and how the flow of a video is made and stored.

Light to import: the names below load PyTorch and OpenCV when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.optical_flow.tvl1 import TVL1Parameters, tvl1_flow

__all__ = ["TVL1Parameters", "tvl1_flow"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pipelines.optical_flow import tvl1

        return getattr(tvl1, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
