"""`tvl1_flow`, and the engines that compute it.

Letters: N pairs of frames, H W pixels.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Protocol, cast

import torch

from pipelines.optical_flow.grey import check_frames
from pipelines.optical_flow.methods import check_engine
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters


@dataclass(frozen=True)
class _Engine:
    module: str
    """Has `compute_flow` as `EngineModule` declares it; loaded when first used."""
    device_types: tuple[str, ...]
    """Where it computes; frames on other devices are moved to the CPU."""
    package: str
    """What it needs beside PyTorch."""


_ENGINES = {
    "numba": _Engine("pipelines.optical_flow.tvl1.numba_engine", ("cpu",), "numba"),
    # Triton on the CPU: interpreted, for tests.
    "triton": _Engine("pipelines.optical_flow.tvl1.triton_engine", ("cuda", "cpu"), "triton"),
    "cuda": _Engine("pipelines.optical_flow.tvl1.cuda_engine", ("cuda",), "triton"),  # which computes what it does not
    "reference": _Engine("pipelines.optical_flow.tvl1.reference", ("cpu", "cuda"), "torch"),
}
# `methods.ENGINES`, which can be read without PyTorch, names them and `auto`, which is the first of these that is
# installed. On a GPU the reference launches some hundred thousand small kernels per pair: the CPU is faster. `cuda` is
# to be the first there once it has been measured on one (docs/gpu.md).
_BEST = {"cpu": ("numba",), "cuda": ("triton", "numba")}
_DEFAULTS = TVL1Parameters()


class EngineModule(Protocol):
    def compute_flow(self, frame0: torch.Tensor, frame1: torch.Tensor, parameters: TVL1Parameters) -> torch.Tensor:
        """uint8 [N, H, W] twice, on one of the engine's devices, to float32 [N, 2, H, W] on the same."""


def tvl1_flow(
    frame0: torch.Tensor,
    frame1: torch.Tensor,
    *,
    parameters: TVL1Parameters = _DEFAULTS,
    device: torch.device | str | None = None,
    engine: str | None = None,
) -> torch.Tensor:
    """TV-L1 flow of grey frames: what is at p in frame0 is at p + flow in frame1.

    A pair's flow does not depend on the others of its batch. All engines give the same flow but for rounding.

    Args:
        frame0: uint8 [N, H, W].
        frame1: The same.
        parameters: Of the method.
        device: Where to compute and to return the flow; None: where the frames are.
        engine: One of `methods.ENGINES`; None is `auto`, the fastest for the device.

    Returns:
        float32 [N, 2, H, W]: pixels, x then y.

    Raises:
        UsageError: The engine is unknown.
        ValueError: The frames have another type or shape.
    """
    check_frames(frame0, frame1, channels=None)
    target = torch.device(device) if device is not None else frame0.device
    chosen = resolve_engine(engine, target)
    where = target if computes_on(chosen, target) else torch.device("cpu")
    if frame0.numel() == 0:
        return torch.zeros((len(frame0), 2, *frame0.shape[1:]), device=target)
    module = cast(EngineModule, importlib.import_module(_ENGINES[chosen].module))
    return module.compute_flow(frame0.to(where), frame1.to(where), parameters).to(target)


def resolve_engine(engine: str | None, device: torch.device) -> str:
    """The engine's name; for `auto` or None the best one for the device."""
    asked = engine or "auto"
    check_engine("tvl1", asked)
    if asked != "auto":
        return asked
    best = _BEST.get(device.type, ())
    return next((name for name in best if importlib.util.find_spec(_ENGINES[name].package)), "reference")


def computes_on(engine: str, device: torch.device) -> bool:
    return device.type in _ENGINES[engine].device_types
