"""TV-L1 on the CPU, with kernels that Numba compiles. Each thread computes one pair at a time.

Letters: N pairs of frames, H W pixels.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from pipelines.optical_flow.tvl1.buffers import kernel_arguments
from pipelines.optical_flow.tvl1.compilation import compiled_kernel
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters


def compute_flow(frame0: torch.Tensor, frame1: torch.Tensor, parameters: TVL1Parameters) -> torch.Tensor:
    """uint8 [N, H, W] twice to float32 [N, 2, H, W], on as many threads as `torch.get_num_threads()` says."""
    pairs, height, width = frame0.shape
    befores, afters = frame0.contiguous().numpy(), frame1.contiguous().numpy()
    flow = np.empty((pairs, 2, height, width), np.float32)
    kernel = compiled_kernel()
    idle = _idle_arguments(height, width, parameters)

    def compute(before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> None:
        try:
            arguments = idle.pop()
        except IndexError:
            arguments = kernel_arguments(height, width, parameters)[2:-1]
        kernel(before, after, *arguments, flow)
        idle.append(arguments)

    threads = min(pairs, torch.get_num_threads())
    if threads == 1:
        for pair in zip(befores, afters, flow, strict=True):
            compute(*pair)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(compute, befores, afters, flow))
    return torch.from_numpy(flow)


@lru_cache(maxsize=1)
def _idle_arguments(height: int, width: int, parameters: TVL1Parameters) -> list[tuple[Any, ...]]:
    """The arguments, with their buffers, that no thread is using, for frames of the last size: memory that is new to
    the process took a tenth of a pair's time."""
    return []
