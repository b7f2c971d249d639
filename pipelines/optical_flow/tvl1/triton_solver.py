"""The flow of many pairs on a GPU, each of which stops when it would alone.

The GPU is given blocks of iterations, recorded once as CUDA graphs, and decides itself which pairs still take part in
them. The host only learns when no pair is left, and one block late, so that the GPU never waits for it.

Letters: N pairs the buffers hold, H W pixels of a level, S floats from row to row.
"""

import os
from collections.abc import Iterator
from typing import Any

import torch
import triton  # type: ignore[import-untyped]

from pipelines.optical_flow.tvl1 import triton_kernels as kernels
from pipelines.optical_flow.tvl1.kernels import networks
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters, level_sizes
from pipelines.optical_flow.tvl1.reference import resize_samples

# Derived from the compiler's report for sm_90, not yet measured.
BLOCK = 10  # iterations between two polls of the active pairs; at the end of a warp one or two blocks find none
TILE = {"ROWS": 8, "COLUMNS": 64}  # by 4 warps: 4 pixels a thread, loaded 16 bytes at a time, in 128 registers
TILE_OF_WARP = {"ROWS": 4, "COLUMNS": 64}  # the weights of 16 pixels take many registers
_PROGRAMS_PER_MULTIPROCESSOR = 4  # that many times 4 warps fit with 128 registers
_ALIGNMENT = 32  # floats: every row begins at a cache line

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton then runs kernels on the CPU, slowly: for tests."""
_LAUNCH: dict[str, Any] = {} if INTERPRETED else {"enable_fp_fusion": True}


def bytes_per_pair(height: int, width: int) -> int:
    """The memory of a pair: 21 fields of the full size (u and p twice among them), and 2 images a level."""
    pyramid = 2 / (1 - 0.8**2)
    return int(4 * height * _stride(width) * (21 + pyramid))


def _stride(width: int) -> int:
    return triton.cdiv(width, _ALIGNMENT) * _ALIGNMENT


class _Level:
    """The size of a level, its two images [N, H, S], and the change per iteration below which a pair is done."""

    def __init__(self, height: int, width: int, pairs: int, epsilon: float, device: torch.device) -> None:
        self.height, self.width, self.stride = height, width, _stride(width)
        self.images = [torch.empty((pairs, height, self.stride), device=device) for _ in range(2)]
        self.threshold = torch.full((1,), epsilon**2 * height * width, dtype=torch.float64, device=device)

    @property
    def geometry(self) -> tuple[int, int, int]:
        return self.height, self.width, self.stride

    def tiles(self, tile: dict[str, int] = TILE) -> tuple[int, int]:
        """(in a row, in all)."""
        across = triton.cdiv(self.width, tile["COLUMNS"])
        return across, across * triton.cdiv(self.height, tile["ROWS"])


class Solver:
    """Buffers for `capacity` pairs of frames of one size, and the graphs that work on them.

    `is_full`: whether memory holds no more pairs.
    """

    def __init__(self, frames: torch.Tensor, capacity: int, parameters: TVL1Parameters, *, is_full: bool) -> None:
        device = frames.device
        self.is_full = is_full
        height, width = frames.shape[1:]
        self.parameters, self.capacity, self.device = parameters, capacity, device
        sizes = level_sizes(height, width, parameters.nscales, parameters.scale_step)
        self.levels = [_Level(*size, capacity, parameters.epsilon, device) for size in sizes]
        full = height * _stride(width)
        self.planes = torch.empty(capacity * 3 * full, device=device)
        self.data = torch.empty(capacity * 4 * full, device=device)
        self.u = torch.empty(2 * capacity * 2 * full, device=device)
        self.p = torch.empty(2 * capacity * 4 * full, device=device)
        self.coarser = torch.empty(capacity * 2 * full, device=device)
        self.changes = torch.empty(capacity * max(level.tiles()[1] for level in self.levels), device=device)
        self.u_at, self.p_at, self.count = (self._integers(capacity) for _ in range(3))
        self.done = self._integers(capacity) + 1
        self.credit = torch.zeros(capacity, dtype=torch.float64, device=device)
        self.active, self.active_count = self._integers(capacity), self._integers(1)
        self.tables: dict[tuple[float, ...], tuple[torch.Tensor, ...]] = {}
        on_gpu = device.type == "cuda"
        multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count if on_gpu else 1
        self.programs = _PROGRAMS_PER_MULTIPROCESSOR * multiprocessors
        self.poll = _ActivePoll(self.active_count)
        self.graphs = self._record_blocks() if on_gpu else {}

    def solve(self, frame0: torch.Tensor, frame1: torch.Tensor, flow: torch.Tensor) -> None:
        """The flow of up to `capacity` pairs of frames into `flow`."""
        pairs = len(frame0)
        self.poll.wait_for_last_call()
        self._build_pyramid(frame0, frame1, pairs)
        for index in reversed(range(len(self.levels))):
            level = self.levels[index]
            self._start_level(index, pairs)
            self._launch(kernels.image_and_gradient, level, pairs, level.images[1], self.planes, *level.geometry)
            for _ in range(self.parameters.warps):
                self._solve_warp(index, pairs)
            target = flow if index == 0 else self.coarser
            self._launch(
                kernels.collect_flow, level, 2 * pairs, self.u, self.u_at, target, self.capacity, *level.geometry
            )
        self.poll.end_call()

    def _build_pyramid(self, frame0: torch.Tensor, frame1: torch.Tensor, pairs: int) -> None:
        scale = 1 / self.parameters.scale_step
        for k, frames in enumerate((frame0, frame1)):
            self.levels[0].images[k][:pairs, :, : self.levels[0].width].copy_(frames)
            for finer, level in zip(self.levels, self.levels[1:], strict=False):
                source = (finer.images[k], finer.height, finer.width, finer.stride)
                self._resize(source, level, level.images[k], pairs, (scale, scale), 1.0)

    def _start_level(self, index: int, pairs: int) -> None:
        """The coarser level's flow, or zero, into the first buffer of u; zero into that of p."""
        level = self.levels[index]
        plane = level.height * level.stride
        self.u_at.zero_()
        self.p_at.zero_()
        self.p[: pairs * 4 * plane].zero_()
        if index == len(self.levels) - 1:
            self.u[: pairs * 2 * plane].zero_()
            return
        coarse = self.levels[index + 1]
        ratios = (coarse.height / level.height, coarse.width / level.width)
        source = (self.coarser, coarse.height, coarse.width, coarse.width)
        self._resize(source, level, self.u, 2 * pairs, ratios, 1 / self.parameters.scale_step)

    def _solve_warp(self, index: int, pairs: int) -> None:
        level = self.levels[index]
        arguments = (self.planes, level.images[0], self.u, self.u_at, self.data, self.capacity, *level.geometry)
        across, tiles = level.tiles(TILE_OF_WARP)
        like_cuda = self.parameters.mode == "cuda"
        kernels.linearise[(tiles, pairs)](*arguments, across, LIKE_CUDA=like_cuda, **TILE_OF_WARP, **_LAUNCH)
        kernels.begin_warp[(1,)](
            *(self.done, self.count, self.credit, self.active, self.active_count, pairs, self.capacity),
            BLOCK=triton.next_power_of_2(self.capacity),
            **_LAUNCH,
        )
        self.poll.begin()
        for iterations, median in _plan(self.parameters):
            if self.graphs:
                self.graphs[index, iterations, median].replay()
            else:
                self._block(index, iterations, median)
            if self.poll.none_left():
                break

    # -------------------------------------------------------------- blocks of iterations

    def _record_blocks(self) -> dict[tuple[int, int, bool], torch.cuda.CUDAGraph]:
        """A graph for each kind of block of each level."""
        graphs = {}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for index in range(len(self.levels)):
                for iterations, median in sorted(set(_plan(self.parameters))):
                    self._block(index, iterations, median)  # compiles; computes nothing, as no pair is active yet
                    graph = torch.cuda.CUDAGraph()
                    graph.capture_begin(capture_error_mode="thread_local")  # other threads may allocate meanwhile
                    self._block(index, iterations, median)
                    graph.capture_end()
                    graphs[index, iterations, median] = graph
        torch.cuda.current_stream().wait_stream(stream)
        return graphs

    def _block(self, index: int, iterations: int, median: bool) -> None:
        """A block: a median filtering or none, then iterations, of the active pairs."""
        level = self.levels[index]
        block = triton.next_power_of_2(self.capacity)
        if median:
            self._filter(level)
            kernels.turn_flow[(1,)](self.u_at, self.done, self.capacity, BLOCK=block, **_LAUNCH)
        p = self.parameters
        across, tiles = level.tiles()
        weights = (p.lambda_ * p.theta, p.theta, p.tau / p.theta)
        for _ in range(iterations):
            kernels.iterate[(min(self.programs, tiles * self.capacity),)](
                *(self.data, self.u, self.p, self.changes, self.u_at, self.p_at),
                *(self.done, self.active, self.active_count),
                *(self.capacity, *level.geometry, across, tiles, *weights),
                **TILE,
                **_LAUNCH,
            )
            kernels.finish_iteration[(self.capacity,)](
                *(self.changes, level.threshold, self.done, self.count, self.credit, self.u_at, self.p_at, tiles),
                LIKE_CUDA=p.mode == "cuda",
                BLOCK=128,
                num_warps=1,
                **_LAUNCH,
            )
        kernels.list_active[(1,)](self.done, self.active, self.active_count, self.capacity, BLOCK=block, **_LAUNCH)

    def _filter(self, level: _Level) -> None:
        side = self.parameters.median_filtering
        sort, select = (
            (networks.SORT_5, networks.MEDIAN_OF_COLUMNS_5)
            if side == 5
            else (networks.SORT_3, networks.MEDIAN_OF_COLUMNS_3)
        )
        across, tiles = level.tiles()
        kernels.median_filter[(min(self.programs, 2 * tiles * self.capacity),)](
            *(self.u, self.u_at, self.done, self.active, self.active_count),
            *(self.capacity, *level.geometry, across, tiles),
            SORT=sort,
            SORT_LENGTH=len(sort),
            SELECT=select,
            SELECT_LENGTH=len(select),
            MEDIAN_AT=networks.MEDIAN_AT,
            SIDE=side,
            **TILE,
            **_LAUNCH,
        )

    # -------------------------------------------------------------- other launches

    def _launch(self, kernel: Any, level: _Level, planes: int, *arguments: Any) -> None:
        """A kernel with one program for each tile of each plane."""
        across, tiles = level.tiles()
        kernel[(tiles, planes)](*arguments, across, **TILE, **_LAUNCH)

    def _resize(
        self,
        source: tuple[torch.Tensor, int, int, int],
        level: _Level,
        target: torch.Tensor,
        planes: int,
        scales: tuple[float, float],
        factor: float,
    ) -> None:
        values, height, width, stride = source
        across, tiles = level.tiles()
        kernels.resize[(tiles, planes)](
            *(values, target, height * stride, stride, level.height * level.stride, *level.geometry, across),
            *self._table(width, level.width, scales[1]),
            *self._table(height, level.height, scales[0]),
            factor,
            **TILE,
            **_LAUNCH,
        )

    def _table(self, source: int, target: int, scale: float) -> tuple[torch.Tensor, ...]:
        """`resize_samples` on the device, made once."""
        key = (source, target, scale)
        if key not in self.tables:
            low, high, weight = resize_samples(source, target, scale, self.parameters.mode)
            self.tables[key] = (low.int().to(self.device), high.int().to(self.device), weight.to(self.device))
        return self.tables[key]

    def _integers(self, count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.int32, device=self.device)


def _plan(parameters: TVL1Parameters) -> Iterator[tuple[int, bool]]:
    """The blocks of a warp that never stops: (iterations, whether a median filtering comes first)."""
    for _ in range(parameters.outer_iterations):
        median = parameters.median_filtering > 1
        for start in range(0, parameters.inner_iterations, BLOCK):
            yield min(BLOCK, parameters.inner_iterations - start), median and start == 0


class _ActivePoll:
    """Polls how many pairs are active: on a GPU at the end of the last block but one, without making it wait."""

    def __init__(self, active_count: torch.Tensor) -> None:
        self.active_count = active_count
        self.on_gpu = active_count.is_cuda
        self.block = 0
        if self.on_gpu:
            self.counts = torch.zeros(2, dtype=torch.int32, pin_memory=True)
            # Who waits sleeps: cores that spin are missing where videos are decoded.
            self.copied = [torch.cuda.Event(blocking=True) for _ in range(2)]
            self.called = torch.cuda.Event()

    def begin(self) -> None:
        self.block = 0

    def none_left(self) -> bool:
        """Whether no pair is active any more; to be called after every block."""
        if not self.on_gpu:
            return int(self.active_count) == 0
        slot, other = self.block % 2, 1 - self.block % 2
        self.counts[slot : slot + 1].copy_(self.active_count, non_blocking=True)
        self.copied[slot].record()
        self.block += 1
        if self.block == 1:
            return False
        self.copied[other].synchronize()
        return int(self.counts[other]) == 0

    def wait_for_last_call(self) -> None:
        """Waits for a call on another stream that may still use the buffers."""
        if self.on_gpu:
            torch.cuda.current_stream().wait_event(self.called)

    def end_call(self) -> None:
        if self.on_gpu:
            self.called.record()
