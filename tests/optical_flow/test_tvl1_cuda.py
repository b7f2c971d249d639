"""The CUDA engine of TV-L1 gives the reference's flow, and stops at the reference's iterations: its kernel emulated on
the CPU, and on a GPU compiled.

What takes longer than seconds has the marker `emulate` (`make emulate`).
"""

import ctypes
import logging
import math
import shutil
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipelines.errors import UsageError
from pipelines.optical_flow import TVL1Parameters, tvl1_flow
from pipelines.optical_flow.methods import make_method
from pipelines.optical_flow.tvl1 import cuda_engine, reference
from pipelines.optical_flow.tvl1.cuda import driver
from pipelines.optical_flow.tvl1.cuda import shapes as shapes_module
from pipelines.optical_flow.tvl1.cuda.compiler import Unavailable
from pipelines.optical_flow.tvl1.cuda.self_check import check_variant
from pipelines.optical_flow.tvl1.cuda.shapes import OWN, VARIANTS, Limits, Shape, Variant, fits, shape_for
from pipelines.optical_flow.tvl1.cuda.solver import LevelArguments, shapes_for, solve
from pipelines.optical_flow.tvl1.parameters import level_sizes
from tests.optical_flow.emulator import EmulatedLauncher, build
from tests.optical_flow.test_tvl1_triton import CASES, batch, fixed, moving_texture

emulated = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
H200, A100 = Limits(132, 232448), Limits(108, 166912)
SMALL = VARIANTS[-1]  # the one whose strips have the fewest rows: small pictures have several blocks
STOPPING = {"nscales": 2, "warps": 2, "epsilon": 0.05, "inner_iterations": 6, "outer_iterations": 3}

Frames = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[Variant, Any]:
    """The kernels built so far."""
    return {"folder": tmp_path_factory.mktemp("emulator")}  # type: ignore[dict-item]


@pytest.fixture
def launcher(libraries) -> EmulatedLauncher:
    return launcher_of(SMALL, libraries)


def launcher_of(variant: Variant, libraries: dict[Any, Any], **settings: Any) -> EmulatedLauncher:
    if variant not in libraries:
        libraries[variant] = build(variant, libraries["folder"])
    return EmulatedLauncher(libraries[variant], Limits(64, 1 << 20), **settings)


def some_pairs(height: int, width: int, count: int = 3) -> Frames:
    """Pairs that stop at different iterations; the third is two identical frames."""
    shifts = [(1.3, -0.6), (0.8, 0.4), (0.0, 0.0), (2.5, -1.5), (-0.7, 1.1)]
    return batch(*[moving_texture(height, width, shift, seed) for seed, shift in enumerate(shifts[:count])])


def emulate(
    frames: Frames, options: dict[str, Any], launcher: EmulatedLauncher, variant: Variant, down: int = 1, slots: int = 2
) -> tuple[torch.Tensor, list[list[int]]]:
    """The flow, and each pair's iterations: of each level from the coarsest on the iterations of its warps."""
    parameters = TVL1Parameters(**options)
    sizes = level_sizes(*frames[0].shape[1:], parameters.nscales, parameters.scale_step)
    shapes = [shape_of(variant, *size, down) for size in sizes]
    launcher.limits = Limits(slots * max(shape.blocks for shape in shapes), 1 << 20)
    flow, stuck, counts = solve(*frames, parameters, shapes, launcher)
    assert not int(stuck)
    return flow, torch.stack(counts, 1).flatten(1).tolist()


def shape_of(variant: Variant, height: int, width: int, down: int = 1) -> Shape:
    return Shape(variant, math.ceil(width / OWN), down, math.ceil(height / (down * variant.rows)))


def expect_the_references(
    frames: Frames, options: dict[str, Any], found: tuple[torch.Tensor, list[list[int]]], most: float = 5e-6
) -> None:
    counts: list[int] = []
    expected = reference.compute_flow(*frames, TVL1Parameters(**options), counts=counts)
    assert torch.tensor(found[1]).flatten().tolist() == counts
    assert float(torch.linalg.vector_norm(found[0] - expected, dim=1).mean()) <= most


# ------------------------------------------------------------------ emulated


@emulated
@pytest.mark.parametrize("mode", ["cpu", "cuda"])
@pytest.mark.parametrize("down", [1, 2])
def test_the_kernel_computes_what_the_reference_does_and_stops_when_it_does(launcher, mode, down):
    frames = some_pairs(20, 58, 4)
    for options in (fixed(10, mode=mode), {**STOPPING, "mode": mode}):
        found = emulate(frames, options, launcher, SMALL, down)
        expect_the_references(frames, options, found)
    flow, counts = found
    assert not flow[2].any()  # identical frames
    assert len({tuple(count) for count in counts}) > 2


@emulated
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 7), (9, 13), (33, 31), (17, 63)], ids=str)
def test_any_size_will_do(launcher, size):
    for mode in ("cpu", "cuda"):
        options = {**STOPPING, "warps": 1, "mode": mode}
        frames = some_pairs(*size, 2)
        found = emulate(frames, options, launcher, SMALL)
        expect_the_references(frames, options, found)


@emulated
def test_a_median_of_3_is_the_references(launcher):
    frames = some_pairs(21, 35)
    options = {**STOPPING, "median_filtering": 3}
    expect_the_references(frames, options, emulate(frames, options, launcher, SMALL))


@emulated
@pytest.mark.parametrize("mode", ["cpu", "cuda"])
def test_a_pair_has_the_same_flow_whatever_batch_it_stands_in(launcher, mode):
    frames, options = some_pairs(23, 40, 5), {**STOPPING, "mode": mode}
    together = emulate(frames, options, launcher, SMALL, slots=2)[0]
    for index in range(5):
        one = frames[0][index : index + 1], frames[1][index : index + 1]
        assert torch.equal(emulate(one, options, launcher, SMALL)[0][0], together[index])


def expect_the_same_bits(launcher: EmulatedLauncher, variant: Variant, seeds: range, down: int) -> None:
    """Warps in random order, one block starved until the others can do nothing without it, stores seen late."""
    for mode in ("cpu", "cuda"):
        frames, options = some_pairs(23, 40, 4), {**STOPPING, "warps": 1, "mode": mode}
        expected = emulate(frames, options, launcher, variant, down)
        for launcher.seed in seeds:
            flow, counts = emulate(frames, options, launcher, variant, down, slots=1 + launcher.seed % 3)
            assert torch.equal(flow, expected[0])
            assert counts == expected[1]
        launcher.seed = 0


@emulated
def test_every_schedule_gives_the_same_bits(launcher):
    expect_the_same_bits(launcher, SMALL, range(1, 5), down=1)


@emulated
def test_few_iterations_of_many_blocks_keep_pairs_apart(launcher):
    """No block is so far ahead that its orders for the next pair reach one that has not read those for this."""
    frames, options = some_pairs(40, 20, 5), fixed(1, mode="cuda")
    expected = emulate(frames, options, launcher, SMALL)
    for launcher.seed in range(1, 9):
        assert torch.equal(emulate(frames, options, launcher, SMALL, slots=1)[0], expected[0])


@emulated
@pytest.mark.parametrize("absent", [0, 3])
def test_a_block_that_does_not_come_ends_the_others(launcher, absent):
    launcher.absent = absent
    frames = some_pairs(20, 40)
    shape = shape_of(SMALL, 20, 40)
    launcher.limits = Limits(shape.blocks, 1 << 20)
    parameters = TVL1Parameters(nscales=1, warps=1)
    assert int(solve(*frames, parameters, [shape], launcher)[1])


@emulated
def test_the_self_check_passes_for_a_right_kernel_and_names_what_is_wrong_with_another(launcher):
    check_variant(SMALL, launcher, torch.device("cpu"))
    for change, complaint in (
        ({"theta": 0.31}, "its flow differs from the CPU's by"),
        ({"threshold": 1.0}, "it stops at other iterations than the CPU"),
    ):
        with pytest.raises(Unavailable, match=complaint):
            check_variant(SMALL, Changed(launcher, change), torch.device("cpu"))


class Changed:
    """A launcher of a kernel that computes something else."""

    def __init__(self, launcher: EmulatedLauncher, change: dict[str, float]) -> None:
        self.launcher, self.change, self.limits = launcher, change, launcher.limits

    def launch(self, shape: Shape, arguments: LevelArguments, slots: int) -> None:
        for name, value in self.change.items():
            if name != "threshold" or arguments.threshold > 0:
                setattr(arguments, name, value)
        self.launcher.launch(shape, arguments, slots)


# ------------------------------------------------------------------ the engine around it


@pytest.fixture
def engine(launcher, monkeypatch) -> Iterator[EmulatedLauncher]:
    """The engine, with the emulator for its GPU."""
    monkeypatch.setattr(shapes_module, "VARIANTS", (SMALL,))
    shape_for.cache_clear()
    launcher.limits = Limits(20, 1 << 17)
    monkeypatch.setattr(cuda_engine, "_launchers", {torch.device("cpu"): launcher})
    checked = {(torch.device("cpu"), SMALL)}
    for name, value in (("_checked", checked), ("_unusable", []), ("_told", set()), ("_last_engine", ["cuda"])):
        monkeypatch.setattr(cuda_engine, name, value)
    yield launcher
    shape_for.cache_clear()


def engine_flow(frames: Frames, **options: Any) -> torch.Tensor | None:
    return cuda_engine._flow_unless_unusable(*frames, TVL1Parameters(**options))


@emulated
def test_the_engine_checks_itself_once_and_says_in_what_shape_it_computed(engine, monkeypatch):
    monkeypatch.setattr(cuda_engine, "_checked", set())
    frames = some_pairs(24, 40)
    flow = engine_flow(frames, **STOPPING)
    expected = reference.compute_flow(*frames, TVL1Parameters(**STOPPING))
    assert flow is not None
    assert float((flow - expected).abs().mean()) <= 1e-5
    assert cuda_engine.last_engine() == "cuda 2x6x4/1 2x5x4/1"
    assert len(engine.launched) == 3 * 2 + 2
    assert torch.equal(engine_flow(frames, **STOPPING), flow)  # type: ignore[arg-type]
    assert len(engine.launched) == 3 * 2 + 2 + 2


@emulated
def test_a_batch_that_does_not_fit_the_memory_is_split(engine, monkeypatch):
    frames = some_pairs(24, 40, 5)
    whole = engine_flow(frames, **STOPPING)
    monkeypatch.setattr(cuda_engine, "_pairs_that_fit", lambda frames: 2)
    assert torch.equal(engine_flow(frames, **STOPPING), whole)  # type: ignore[arg-type]


@emulated
def test_frames_that_do_not_fit_the_chip_are_tritons_and_smaller_ones_are_not(engine, caplog):
    with caplog.at_level(logging.WARNING, "stres"):
        assert engine_flow(some_pairs(30, 900, 1), **STOPPING) is None
        assert engine_flow(some_pairs(30, 900, 1), **STOPPING) is None
    assert cuda_engine.last_engine() == "triton"
    assert [record.message for record in caplog.records] == [
        "--engine triton in place of cuda: frames of 900x30 do not fit on this GPU's chip"
    ]
    assert engine_flow(some_pairs(24, 40, 1), **STOPPING) is not None


@emulated
def test_a_kernel_that_computes_something_else_is_not_used(engine, monkeypatch, caplog):
    monkeypatch.setattr(cuda_engine, "_checked", set())
    changed = Changed(engine, {"theta": 0.31})
    monkeypatch.setattr(cuda_engine, "_launchers", {torch.device("cpu"): changed})
    with caplog.at_level(logging.WARNING, "stres"):
        assert [engine_flow(some_pairs(24, 40, 1), **STOPPING) for _ in range(2)] == [None, None]
    assert len(caplog.records) == 1
    assert caplog.records[0].message.startswith("--engine triton in place of cuda: its flow differs from the CPU's by")


@emulated
def test_flow_of_blocks_that_waited_in_vain_is_not_used(engine, monkeypatch, caplog):
    monkeypatch.setattr(cuda_engine, "copy_to_host", lambda flag: lambda: (torch.ones(1),))
    with caplog.at_level(logging.WARNING, "stres"):
        assert engine_flow(some_pairs(24, 40, 1), **STOPPING) is None
    assert caplog.records[0].message.endswith("its blocks waited for each other in vain")


def test_without_a_gpu_the_engine_says_what_to_do():
    frames = torch.zeros((1, 8, 8), dtype=torch.uint8)
    with pytest.raises(UsageError, match="--engine cuda needs a GPU, not cpu: use --device cuda, or --engine auto"):
        tvl1_flow(frames, frames, engine="cuda")


def test_where_cuda_cannot_be_loaded_triton_computes_and_a_line_says_why(monkeypatch, caplog):
    def refuse(device: torch.device) -> None:
        raise Unavailable("NVRTC, which torch's CUDA wheels bring, is not installed")

    for name, value in (("GPULauncher", refuse), ("_launchers", {}), ("_unusable", []), ("_told", set())):
        monkeypatch.setattr(cuda_engine, name, value)
    monkeypatch.setattr(cuda_engine, "_last_engine", ["cuda"])
    with caplog.at_level(logging.WARNING, "stres"):
        assert [engine_flow(some_pairs(24, 40, 1)) for _ in range(2)] == [None, None]
    assert [record.message for record in caplog.records] == [
        "--engine triton in place of cuda: NVRTC, which torch's CUDA wheels bring, is not installed"
    ]
    assert make_method("tvl1", engine="cuda").engine == "triton"


# ------------------------------------------------------------------ the driver


class EmulatedDriver:
    """As much of CUDA's driver as the engine calls, with the emulator for its GPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.loads: list[bytes] = []
        self.launch_error = 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, handle: Any) -> int:
        value._obj.value = {95: 1, 97: 1 << 17}[number]
        return 0

    def cuModuleLoadData(self, module: Any, code: bytes) -> int:
        self.loads.append(code)
        return 200 if code == b"damaged" else 0

    def cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> int:
        assert name == b"solve_level"
        return 0

    def cuFuncSetAttribute(self, function: Any, attribute: int, value: int) -> int:
        assert (attribute, value) == (8, 1 << 17)
        return 0

    def cuLaunchCooperativeKernel(self, function: Any, *arguments: Any) -> int:
        blocks, _, _, threads, _, _, shared_bytes, stream, parameters = arguments
        level = LevelArguments.from_address(parameters[0])
        assert threads == 32 * level.across * level.down
        assert stream.value == 5
        if not self.launch_error:
            self.library.launch_level(ctypes.byref(level), blocks, shared_bytes, ctypes.c_uint(0), -1)
        return self.launch_error

    def cuGetErrorName(self, code: int, words: Any) -> int:
        words._obj.value = b"CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"
        return 0


@emulated
def test_the_kernel_is_loaded_and_launched_through_cudas_driver(launcher, monkeypatch):
    emulated_driver, codes, forgotten = EmulatedDriver(launcher.library), [b"damaged", b"code"], []
    properties = SimpleNamespace(major=9, minor=0, name="H200", multi_processor_count=20)
    stream = SimpleNamespace(synchronize=lambda: None, cuda_stream=5)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(driver, "_driver", lambda: emulated_driver)
    monkeypatch.setattr(driver, "cached_variant", lambda variant, architecture: codes.pop(0))
    monkeypatch.setattr(driver, "forget_variant", lambda *named: forgotten.append(named))
    gpu = driver.GPULauncher(torch.device("cuda", 0))
    frames, parameters = some_pairs(24, 40), TVL1Parameters(**STOPPING)
    shapes = [shape_of(SMALL, *size) for size in level_sizes(24, 40, 2, 0.8)]
    flow, stuck, _ = solve(*frames, parameters, shapes, gpu)
    assert not int(stuck)
    assert float((flow - reference.compute_flow(*frames, parameters)).abs().mean()) <= 1e-5
    assert emulated_driver.loads == [b"damaged", b"code"]
    assert forgotten == [(SMALL, "sm_90")]
    emulated_driver.launch_error = 720
    with pytest.raises(Unavailable, match="CUDA's driver: CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"):
        solve(*frames, parameters, shapes, gpu)


# ------------------------------------------------------------------ shapes


@pytest.mark.parametrize("limits", [H200, A100], ids=["H200", "A100"])
@pytest.mark.parametrize("size", [(256, 340), (240, 320), (256, 454), (16, 16), (1, 1), (7, 301)], ids=str)
def test_every_level_of_the_usual_sizes_fits_in_some_shape(limits, size):
    shapes = shapes_for(*size, TVL1Parameters(), limits)
    assert shapes is not None
    sizes = level_sizes(*size, 5, 0.8)
    for shape, (height, width) in zip(shapes, sizes, strict=True):
        assert fits(shape, limits)
        assert shape.across * OWN >= width
        assert shape.blocks * shape.down * shape.variant.rows >= height
        assert shape.across * shape.down <= shape.variant.most_strips
        assert (shape.blocks - 1) * shape.down * shape.variant.rows < height  # no block is empty


def test_all_sizes_are_served_by_at_most_six_compilations():
    assert len(VARIANTS) <= 6


def test_frames_too_large_for_the_chip_have_no_shape():
    assert shape_for(2160, 3840, H200) is None


# ------------------------------------------------------------------ make emulate


@emulated
@pytest.mark.emulate
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("down", [1, 2])
def test_every_variant_computes_what_the_reference_does(libraries, variant, down):
    launcher = launcher_of(variant, libraries)
    check_variant(variant, launcher, torch.device("cpu"))
    for mode in ("cpu", "cuda"):
        for size in ((7, 5), (15, 60), (37, 45), (61, 83)):
            frames = some_pairs(*size, 3)
            options = {"nscales": 5, "warps": 2, "epsilon": 0.03, "mode": mode}
            expect_the_references(frames, options, emulate(frames, options, launcher, variant, down), most=1e-3)


@emulated
@pytest.mark.emulate
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_40_schedules_give_the_same_bits(libraries, variant):
    expect_the_same_bits(launcher_of(variant, libraries), variant, range(1, 41), down=1)


@emulated
@pytest.mark.emulate
def test_the_usual_size_in_the_shapes_of_an_h200_computes_what_the_reference_does(libraries):
    class All:
        limits = H200

        def launch(self, shape: Shape, arguments: LevelArguments, slots: int) -> None:
            launcher_of(shape.variant, libraries).launch(shape, arguments, slots)

    frames, parameters = some_pairs(256, 340, 2), TVL1Parameters(warps=1, epsilon=0.03)
    shapes = shapes_for(256, 340, parameters, H200)
    assert shapes is not None
    flow, stuck, found = solve(*frames, parameters, shapes, All())
    counts: list[int] = []
    expected = reference.compute_flow(*frames, parameters, counts=counts)
    assert not int(stuck)
    assert torch.stack(found, 1).flatten().tolist() == counts
    assert float((flow - expected).abs().mean()) <= 1e-3


# ------------------------------------------------------------------ on a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_the_engine_computes_the_same(name):
    frame0, frame1, options = CASES[name]
    found = tvl1_flow(frame0, frame1, parameters=TVL1Parameters(**options), device="cuda", engine="cuda").cpu()
    assert cuda_engine.last_engine().startswith("cuda ")
    expected = reference.compute_flow(frame0, frame1, TVL1Parameters(**options))
    assert float(torch.linalg.vector_norm(found - expected, dim=1).mean()) <= 5e-6


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["cpu", "cuda"])
@pytest.mark.parametrize("size", [(61, 83), (256, 340)], ids=str)
def test_on_a_gpu_a_long_batch_gives_each_pair_the_flow_it_has_alone(mode, size):
    pairs = [moving_texture(*size, (0.2 * seed, -0.1 * seed), seed) for seed in range(17)]
    frame0, frame1 = (frames.cuda() for frames in batch(*pairs))
    parameters = TVL1Parameters(mode=mode)
    together = tvl1_flow(frame0, frame1, parameters=parameters, engine="cuda")
    again = tvl1_flow(frame0, frame1, parameters=parameters, engine="cuda")
    alone = [tvl1_flow(frame0[i : i + 1], frame1[i : i + 1], parameters=parameters, engine="cuda") for i in (0, 5, 16)]
    assert cuda_engine.last_engine().startswith("cuda ")
    assert torch.equal(together, again)
    assert torch.equal(together[[0, 5, 16]], torch.cat(alone))
