"""TV-L1 on a GPU, with kernels that Triton compiles: the entry point, which splits what does not fit into memory.

Letters: N pairs of frames, H W pixels.
"""

import gc
import threading
from contextlib import nullcontext
from functools import lru_cache

import torch

from pipelines.errors import MissingError, UsageError
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters
from pipelines.optical_flow.tvl1.triton_solver import INTERPRETED, Solver, bytes_per_pair
from pipelines.runtime.devices import free_gpu_memory, missing_to_compile

MOST_PAIRS = 256
"""Pairs computed together: a number that is reasoned, not yet measured. Few would fit the L2 cache (8 of 340x256 in
50 MB), but then an iteration takes 10 microseconds, of which launching it takes several, and the slowest pair makes the
others wait more often."""
_SHARE_OF_FREE_MEMORY = 0.8
_MOST_KEPT = 3

_only_thread = threading.Lock()
_kept: dict[object, Solver] = {}


def compute_flow(frame0: torch.Tensor, frame1: torch.Tensor, parameters: TVL1Parameters) -> torch.Tensor:
    """uint8 [N, H, W] twice to float32 [N, 2, H, W], on the frames' GPU; in parts if they do not fit into its memory.

    Buffers and graphs for the last three sizes of frames are kept for the next call.

    Raises:
        UsageError: The frames are on the CPU, and Triton does not interpret.
        MissingError: There is no C compiler.
        torch.OutOfMemoryError: Not even one pair fits.
    """
    if not frame0.is_cuda and not INTERPRETED:
        raise UsageError(f"--engine triton needs a GPU, not {frame0.device}: use --device cuda, or --engine auto")
    _require_compiler(frame0.device)
    with _only_thread, torch.cuda.device(frame0.device) if frame0.is_cuda else nullcontext():
        flow = torch.empty((len(frame0), 2, *frame0.shape[1:]), device=frame0.device)
        start = 0
        while start < len(flow):
            solver = _solver_for(frame0[start:], parameters)
            part = slice(start, min(start + solver.capacity, len(flow)))
            solver.solve(frame0[part], frame1[part], flow[part])
            start = part.stop
    return flow


@lru_cache(maxsize=1)
def _require_compiler(device: torch.device) -> None:
    missing = "" if INTERPRETED else missing_to_compile(device)
    if missing:
        raise MissingError(f"TV-L1 on a GPU needs {missing}: install it, or compute on the CPU with --device cpu")


def _solver_for(frames: torch.Tensor, parameters: TVL1Parameters) -> Solver:
    """A solver for frames of this size with room for as many as possible: one of the last used if it will do."""
    wanted = min(len(frames), MOST_PAIRS)
    key = (frames.device, frames.shape[1:], parameters)
    if key in _kept and (_kept[key].capacity >= wanted or _kept[key].is_full):
        _kept[key] = _kept.pop(key)  # the last used is at the end
        return _kept[key]
    capacity = min(1 << (wanted - 1).bit_length(), MOST_PAIRS)
    if key in _kept:
        _drop(key)
    while len(_kept) >= _MOST_KEPT or (_kept and _pairs_that_fit(frames) < capacity):
        _drop(next(iter(_kept)))
    _kept[key] = _largest_solver(frames, capacity, parameters)
    return _kept[key]


def _drop(key: object) -> None:
    # Its memory may be given to this stream's work next.
    _kept.pop(key).poll.wait_for_last_call()


def _largest_solver(frames: torch.Tensor, wanted: int, parameters: TVL1Parameters) -> Solver:
    """A solver with room for `wanted` pairs, or for as many as fit into memory."""
    pairs = max(min(wanted, _pairs_that_fit(frames)), 1)
    while True:
        try:
            return Solver(frames, pairs, parameters, is_full=pairs < wanted)
        except torch.OutOfMemoryError:  # others use the GPU too
            if pairs == 1:
                raise
        gc.collect()  # what was allocated before the failure
        torch.cuda.empty_cache()
        pairs //= 2


def _pairs_that_fit(frames: torch.Tensor) -> int:
    return pairs_within_memory(frames, bytes_per_pair(*frames.shape[1:]))


def pairs_within_memory(frames: torch.Tensor, bytes_a_pair: int) -> int:
    """How many pairs fit into what is free on the frames' GPU; `MOST_PAIRS` on the CPU, where kernels are emulated."""
    if not frames.is_cuda:
        return MOST_PAIRS
    return int(free_gpu_memory(frames.device) * _SHARE_OF_FREE_MEMORY) // bytes_a_pair
