"""`tvl1_flow` as one of the methods of `extract-flow`."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch

from pipelines.optical_flow.methods import as_options, parse_options
from pipelines.optical_flow.tvl1.flow import computes_on, resolve_engine, tvl1_flow
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters

_PAIRS_ON_A_GPU = 256  # as many as the engines for a GPU compute at once
_PAIRS_A_THREAD = 8  # a second or two at 340x256: long enough to keep all threads busy, short enough to show progress


class TVL1:
    """`tvl1_flow` as a `FlowMethod`."""

    input: ClassVar[Literal["grey"]] = "grey"

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
