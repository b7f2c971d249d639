"""The GPU engine of TV-L1 gives the reference's numbers: its kernels interpreted on the CPU, and on a GPU compiled.

Interpreted, an iteration takes a tenth of a second: pictures are small, of several tiles all the same.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from packaging.version import Version

from pipelines.errors import UsageError
from pipelines.optical_flow import TVL1Parameters, tvl1_flow
from pipelines.optical_flow.tvl1.flow import resolve_engine

SCRIPT = Path(__file__).with_name("interpret_triton.py")
PROJECT = Path(__file__).parents[2]
TRITON = importlib.util.find_spec("triton")
COMPILER = TRITON and Path(TRITON.origin or "").with_name("backends").joinpath("nvidia", "bin", "ptxas").exists()


def moving_texture(height: int, width: int, shift: tuple[float, float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth texture and the same moved by `shift` (x, y)."""
    noise = np.random.default_rng(seed).normal(0, 1, (height + 16, width + 16))
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    moved = cv2.warpAffine(texture, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), texture.shape[::-1])
    return texture[8:-8, 8:-8], moved[8:-8, 8:-8]


def batch(*pairs: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    befores, afters = zip(*pairs, strict=True)
    return torch.from_numpy(np.stack(befores)), torch.from_numpy(np.stack(afters))


def fixed(iterations: int, **others: Any) -> dict[str, Any]:
    return {"inner_iterations": iterations, "outer_iterations": 1, "epsilon": 0.0, "nscales": 1, "warps": 1, **others}


ONE = moving_texture(7, 70, (1.3, -0.6))
SMALL = moving_texture(7, 13, (0.8, 0.4), seed=1)
STILL = SMALL[0], SMALL[0]
FAST = moving_texture(7, 13, (2.5, -1.5), seed=2)
STOPPING = {"nscales": 1, "warps": 1, "epsilon": 0.16, "inner_iterations": 4, "outer_iterations": 3}
# Mode cuda never looks before its second iteration, and next when its credit is used up.
LAZY = {"nscales": 1, "warps": 1, "epsilon": 0.15, "inner_iterations": 10, "outer_iterations": 1, "mode": "cuda"}
CASES = {
    "cpu": (*batch(ONE), fixed(10)),
    "cuda": (*batch(moving_texture(7, 30, (1.3, -0.6))), fixed(5, mode="cuda")),
    "levels": (*batch(moving_texture(20, 21, (1.3, -0.6))), fixed(2, nscales=2, warps=2)),
    "levels, cuda": (*batch(moving_texture(20, 21, (1.3, -0.6))), fixed(2, nscales=2, warps=2, mode="cuda")),
    "median of 3": (*batch(SMALL), fixed(2, median_filtering=3)),
    "stopping": (*batch(SMALL, STILL, FAST), STOPPING),
    "stopping, alone": (*batch(FAST), STOPPING),
    "lazy": (*batch(SMALL, STILL, FAST), LAZY),
}
# Mean end-point difference in pixels allowed; a stop one iteration early or late makes it 1e-3 and more.
BOUNDS = {"cpu": 1e-6, "cuda": 1e-6, "levels": 5e-6, "levels, cuda": 5e-6}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The flow of every case by the interpreted kernels."""
    folder = tmp_path_factory.mktemp("triton")
    cases, flows = folder / "cases.pt", folder / "flows.pt"
    torch.save(list(CASES.values()), cases)
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, str(SCRIPT), str(cases), str(flows)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, torch.load(flows, weights_only=True), strict=True))


def by_reference(name: str) -> torch.Tensor:
    frame0, frame1, options = CASES[name]
    return tvl1_flow(frame0, frame1, parameters=TVL1Parameters(**options), engine="reference")


def mean_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(one.double() - other.double(), dim=1).mean())


interpreting = pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")


@interpreting
@pytest.mark.parametrize("name", [name for name in CASES if name != "stopping, alone"])
def test_the_kernels_compute_what_the_reference_does(interpreted, name):
    expected = by_reference(name)
    assert expected.abs().max() > 0.1
    assert mean_difference(interpreted[name], expected) <= BOUNDS.get(name, 5e-6)


@interpreting
@pytest.mark.parametrize("name", ["stopping", "lazy"])
def test_pairs_of_the_stopping_cases_stop_at_different_iterations(name):
    """Which makes those cases tell whether each pair stops when it would alone: one iteration more is seen."""
    frame0, frame1, options = CASES[name]
    longer = {**options, "epsilon": 0.0}
    endless = tvl1_flow(frame0, frame1, parameters=TVL1Parameters(**longer), engine="reference")
    differences = [mean_difference(a[None], b[None]) for a, b in zip(by_reference(name), endless, strict=True)]
    assert differences[1] == 0  # the still pair
    assert max(differences) > 1e-3


@interpreting
def test_a_pair_has_the_same_flow_whatever_batch_it_stands_in(interpreted):
    assert torch.equal(interpreted["stopping"][2:], interpreted["stopping, alone"])


@interpreting
def test_identical_frames_have_no_flow(interpreted):
    assert not interpreted["stopping"][1].any()
    assert not interpreted["lazy"][1].any()


@pytest.mark.skipif(not COMPILER, reason="no Triton with NVIDIA's assembler is installed")
@pytest.mark.parametrize("folder", ["", pytest.param("build/triton-oldest", marks=pytest.mark.emulate)])
def test_every_kernel_compiles_for_a_gpu_that_is_not_here(tmp_path, folder):
    """Which the interpreter says nothing about; by the Triton that is installed and, in `make emulate`, the oldest."""
    report = tmp_path / "report.jsonl"
    packages = os.pathsep.join(str(PROJECT / part) for part in (folder, ""))
    environment = {**os.environ, "PYTHONPATH": packages, "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, str(SCRIPT.with_name("compile_triton.py")), str(report)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    kernels = [json.loads(line) for line in report.read_text().splitlines()]
    names = {kernel["kernel"] for kernel in kernels}
    (compiler,) = {Version(kernel["triton"]) for kernel in kernels}
    assert (compiler < Version("3.7")) == bool(folder)
    of_tvl1 = {name for name, function in vars(triton_kernels()).items() if is_launched(name, function)}
    assert names == {*of_tvl1, "prepare"}  # which makes a network's input
    assert not any(kernel["spilled bytes"] for kernel in kernels)
    assert all(kernel["barriers"] <= 3 for kernel in kernels if kernel["kernel"] != "linearise")
    # Triton 3.6 moves what each pixel loads through shared memory: 171 barriers, and an estimated three times the time.
    if compiler >= Version("3.8"):
        assert not any(kernel["barriers"] for kernel in kernels if kernel["kernel"] == "linearise")
    assert sum(kernel["kernel"] == "prepare" for kernel in kernels) == 2  # RGB and flow
    # What is compiled for frames of one size serves those of others.
    assert {kernel["size"] for kernel in kernels} == {"340x256"}


def triton_kernels() -> ModuleType:
    from pipelines.optical_flow.tvl1 import triton_kernels

    return triton_kernels


def is_launched(name: str, function: Any) -> bool:
    """Whether the host calls it: the others, which kernels call, begin with an underscore."""
    return hasattr(function, "run") and not name.startswith("_")


@pytest.mark.skipif(not TRITON, reason="no Triton")
def test_videos_of_three_sizes_in_turns_share_three_solvers(monkeypatch):
    from pipelines.optical_flow.tvl1 import triton_engine

    made = []

    class Solver:
        is_full = False

        def __init__(self, frames: torch.Tensor, capacity: int, parameters: TVL1Parameters) -> None:
            self.capacity, self.poll = capacity, self
            made.append((tuple(frames.shape[1:]), capacity))

        def wait_for_last_call(self) -> None:
            pass

    monkeypatch.setattr(triton_engine, "_kept", {})
    monkeypatch.setattr(triton_engine, "_largest_solver", Solver)

    def use(height: int, pairs: int = 4) -> None:
        triton_engine._solver_for(torch.zeros((pairs, height, 50), dtype=torch.uint8), TVL1Parameters())

    for _ in range(2):
        for height in (40, 50, 60):
            use(height)
    assert made == [((height, 50), 4) for height in (40, 50, 60)]
    use(70)  # in place of that not used for longest
    use(50)
    use(60)
    assert len(made) == 4
    use(40)
    use(60, pairs=5)  # more than there is room for
    assert made[4:] == [((40, 50), 4), ((60, 50), 8)]


def test_without_a_gpu_the_engine_says_what_to_do():
    frames = torch.zeros((1, 8, 8), dtype=torch.uint8)
    with pytest.raises(UsageError, match="--engine triton needs a GPU, not cpu: use --device cuda, or --engine auto"):
        tvl1_flow(frames, frames, engine="triton")


def test_it_is_the_engine_of_a_gpu_alone():
    assert resolve_engine("auto", torch.device("cuda")) == "triton"
    assert resolve_engine("auto", torch.device("cpu")) == "numba"


# ------------------------------------------------------------------ on a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("name", [name for name in CASES if name != "stopping, alone"])
def test_compiled_for_a_gpu_the_kernels_compute_the_same(name):
    frame0, frame1, options = CASES[name]
    found = tvl1_flow(frame0, frame1, parameters=TVL1Parameters(**options), device="cuda", engine="triton")
    assert mean_difference(found.cpu(), by_reference(name)) <= BOUNDS.get(name, 5e-6)


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["cpu", "cuda"])
def test_on_a_gpu_a_long_batch_gives_each_pair_the_flow_it_has_alone(mode):
    pairs = [moving_texture(61, 83, (0.2 * seed, -0.1 * seed), seed) for seed in range(17)]
    frame0, frame1 = (frames.cuda() for frames in batch(*pairs))
    parameters = TVL1Parameters(mode=mode)
    together = tvl1_flow(frame0, frame1, parameters=parameters, engine="triton")
    again = tvl1_flow(frame0, frame1, parameters=parameters, engine="triton")
    alone = [
        tvl1_flow(frame0[i : i + 1], frame1[i : i + 1], parameters=parameters, engine="triton") for i in (0, 5, 16)
    ]
    assert torch.equal(together, again)
    assert torch.equal(together[[0, 5, 16]], torch.cat(alone))


@pytest.mark.cuda
def test_a_batch_that_does_not_fit_the_gpu_is_split(monkeypatch):
    from pipelines.optical_flow.tvl1 import triton_engine

    frame0, frame1 = (frames.cuda() for frames in batch(*[moving_texture(40, 50, (1, 0), seed) for seed in range(7)]))
    whole = tvl1_flow(frame0, frame1, engine="triton")
    monkeypatch.setattr(triton_engine, "_pairs_that_fit", lambda frames: 3)
    monkeypatch.setattr(triton_engine, "_kept", {})
    assert torch.equal(tvl1_flow(frame0, frame1, engine="triton"), whole)
