"""TV-L1 on a GPU, by a CUDA kernel that keeps a pair on the chip for a whole pyramid level: the engine's entrance.

Where the kernel cannot be used, Triton computes instead, and a line in the log says why.

Letters: N pairs of frames, H W pixels.
"""

import gc
import logging
import threading
from collections.abc import Sequence

import torch

from pipelines.errors import UsageError
from pipelines.optical_flow.tvl1 import triton_engine
from pipelines.optical_flow.tvl1.cuda.compiler import Unavailable
from pipelines.optical_flow.tvl1.cuda.driver import GPULauncher
from pipelines.optical_flow.tvl1.cuda.self_check import check_variant
from pipelines.optical_flow.tvl1.cuda.shapes import Shape, Variant
from pipelines.optical_flow.tvl1.cuda.solver import Launcher, shapes_for, solve
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters
from pipelines.runtime.devices import copy_to_host

_BYTES_PER_PIXEL = 110  # of a pair: pyramid, packed images, flow, and what resizing takes for a moment

_log = logging.getLogger("stres")
_only_thread = threading.Lock()
_launchers: dict[torch.device, Launcher] = {}
_checked: set[tuple[torch.device, Variant]] = set()
_unusable: list[str] = []  # why this process does not use the kernel any more
_told: set[str] = set()
_last_engine = ["cuda"]


def compute_flow(frame0: torch.Tensor, frame1: torch.Tensor, parameters: TVL1Parameters) -> torch.Tensor:
    """uint8 [N, H, W] twice to float32 [N, 2, H, W], on the frames' GPU; what does not fit its memory, in parts.

    Raises `UsageError` for frames on the CPU, `torch.OutOfMemoryError` where not even one pair fits, and where Triton
    computes whatever that raises.
    """
    if not frame0.is_cuda:
        raise UsageError(f"--engine cuda needs a GPU, not {frame0.device}: use --device cuda, or --engine auto")
    with _only_thread, torch.cuda.device(frame0.device):
        flow = _flow_unless_unusable(frame0, frame1, parameters)
    return flow if flow is not None else triton_engine.compute_flow(frame0, frame1, parameters)


def last_engine() -> str:
    """What computed the last flow: `triton`, or `cuda` and the shape of every level, the full size first, such as
    `cuda 11x1x16/16 9x1x16/13`: strips of a block across and down, rows of a strip, blocks of a pair."""
    return _last_engine[0]


def _flow_unless_unusable(
    frame0: torch.Tensor, frame1: torch.Tensor, parameters: TVL1Parameters
) -> torch.Tensor | None:
    """None, and a line in the log, where the kernel cannot be used or cannot be trusted."""
    device, (height, width) = frame0.device, frame0.shape[1:]
    try:
        if _unusable:
            raise Unavailable(_unusable[0])
        if device not in _launchers:
            _launchers[device] = GPULauncher(device)
        launcher = _launchers[device]
        shapes = shapes_for(height, width, parameters, launcher.limits)
        if shapes is not None:
            for variant in {shape.variant for shape in shapes}:
                if (device, variant) not in _checked:
                    check_variant(variant, launcher, device)
                    _checked.add((device, variant))
            flow = _flow_in_parts(frame0, frame1, parameters, shapes, launcher)
            _last_engine[0] = " ".join(["cuda", *map(str, shapes)])
            return flow
        why = f"frames of {width}x{height} do not fit on this GPU's chip"
    except Unavailable as error:
        why = str(error)
        _unusable.append(why)
    if why not in _told:
        _told.add(why)
        _log.warning("--engine triton in place of cuda: %s", why)
    _last_engine[0] = "triton"
    return None


def _flow_in_parts(
    frame0: torch.Tensor,
    frame1: torch.Tensor,
    parameters: TVL1Parameters,
    shapes: Sequence[Shape],
    launcher: Launcher,
) -> torch.Tensor:
    flow = torch.empty((len(frame0), 2, *frame0.shape[1:]), device=frame0.device)
    size, start = max(min(triton_engine.MOST_PAIRS, _pairs_that_fit(frame0)), 1), 0
    while start < len(flow):
        part = slice(start, start + size)
        try:
            flow[part], stuck, _ = solve(frame0[part], frame1[part], parameters, shapes, launcher)
        except torch.OutOfMemoryError:  # others use the GPU too
            if size == 1:
                raise
            size //= 2
        else:
            (is_stuck,) = copy_to_host(stuck)()
            if int(is_stuck):
                raise Unavailable("its blocks waited for each other in vain")
            start += size
            continue
        gc.collect()  # what was allocated before the failure
        torch.cuda.empty_cache()
    return flow


def _pairs_that_fit(frames: torch.Tensor) -> int:
    return triton_engine.pairs_within_memory(frames, _BYTES_PER_PIXEL * frames[0].numel())
