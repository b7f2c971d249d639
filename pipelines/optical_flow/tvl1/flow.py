"""`tvl1_flow`, the engines that compute it, and both as one of the methods of `extract-flow`.

Letters: N pairs of frames, H W pixels.
"""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from pipelines.optical_flow.grey import check_frames
from pipelines.optical_flow.methods import as_options, check_engine, parse_options
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters

# Where each engine computes; frames on other devices are moved to the CPU. Triton on the CPU: interpreted, for tests.
_DEVICES = {"numba": ("cpu",), "triton": ("cuda", "cpu"), "cuda": ("cuda",), "reference": ("cpu", "cuda")}
# `methods.ENGINES`, which can be read without PyTorch, names them and `auto`, which is the first of these that is
# installed. On a GPU the reference launches some hundred thousand small kernels per pair: the CPU is faster. `cuda` is
# to be the first there once it has been measured on one (docs/gpu.md). Each has the name of the package that it needs.
_BEST = {"cpu": ("numba",), "cuda": ("triton", "numba")}
_DEFAULTS = TVL1Parameters()


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
    name = chosen if chosen == "reference" else f"{chosen}_engine"
    module = importlib.import_module(f"pipelines.optical_flow.tvl1.{name}")  # loads what this engine needs
    flow: torch.Tensor = module.compute_flow(frame0.to(where), frame1.to(where), parameters)
    return flow.to(target)


def resolve_engine(engine: str | None, device: torch.device) -> str:
    """The engine's name; for `auto` or None the best one for the device."""
    asked = engine or "auto"
    check_engine("tvl1", asked)
    if asked != "auto":
        return asked
    best = _BEST.get(device.type, ())
    return next((name for name in best if importlib.util.find_spec(name)), "reference")


def computes_on(engine: str, device: torch.device) -> bool:
    return device.type in _DEVICES[engine]


# ------------------------------------------------------------------ as a method of extract-flow

_PAIRS_ON_A_GPU = 256  # as many as the engines for a GPU compute at once
_PAIRS_A_THREAD = 8  # a second or two at 340x256: long enough to keep all threads busy, short enough to show progress


class TVL1:
    """`tvl1_flow` as a `FlowMethod`."""

    input: ClassVar[Literal["grey"]] = "grey"
    batch_invariant: ClassVar[bool] = True

    def __init__(self, settings: TVL1Parameters, device: str, engine: str) -> None:
        self.settings = settings
        self.parameters = as_options(settings)
        self.device = torch.device(device)
        self._engine = resolve_engine(engine, self.device)
        self.uses_device = computes_on(self._engine, self.device)

    @property
    def engine(self) -> str:
        if self._engine != "cuda":
            return self._engine
        from pipelines.optical_flow.tvl1.cuda_engine import last_engine

        return last_engine()

    @property
    def batch_size(self) -> int:
        on_gpu = self._engine in ("triton", "cuda")
        return _PAIRS_ON_A_GPU if on_gpu else _PAIRS_A_THREAD * torch.get_num_threads()

    def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
        device = self.device if self.uses_device else None
        return tvl1_flow(frame0, frame1, parameters=self.settings, device=device, engine=self._engine)


def make(options: Mapping[str, str | float], device: str, engine: str = "auto") -> TVL1:
    return TVL1(parse_options("tvl1", TVL1Parameters, options), device, engine)
