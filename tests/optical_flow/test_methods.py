"""Every method: the numbers of the library behind it, the right direction, options that are checked."""

import importlib
import subprocess
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch

from pipelines.errors import UsageError, VideoError
from pipelines.optical_flow import TVL1Parameters, tvl1_flow
from pipelines.optical_flow.methods import METHODS, make_method

ON_CPU = ("tvl1", "tvl1-opencv", "farneback", "dis")
OPENCVS = ("tvl1-opencv", "farneback", "dis")
QUICK_TVL1 = {"warps": "2", "outer_iterations": "2"}
FAST = {"tvl1": QUICK_TVL1, "tvl1-opencv": QUICK_TVL1, "farneback": {}, "dis": {}}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # DIS depends on their number
    yield
    cv2.setNumThreads(before)


def shifted_pair(dx: int, dy: int, height: int = 64, width: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """A smooth texture, and the same moved by (dx, dy) pixels: grey uint8 [H, W]."""
    noise = np.random.default_rng(0).normal(0, 1, (height + 40, width + 40))
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    moved = texture[20 - dy : 20 - dy + height, 20 - dx : 20 - dx + width]
    return texture[20 : 20 + height, 20 : 20 + width].copy(), moved.copy()


def batch(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures))


@pytest.mark.parametrize("name", ON_CPU)
def test_a_texture_moved_right_and_down_flows_right_and_down(name: str) -> None:
    before, after = shifted_pair(3, 1)
    flow = make_method(name, FAST[name]).flow(batch(before), batch(after))
    assert flow.shape == (1, 2, 64, 80)
    assert flow.dtype == torch.float32
    middle = flow[0, :, 16:-16, 16:-16].flatten(1).median(1).values
    torch.testing.assert_close(middle, torch.tensor([3.0, 1.0]), atol=0.2, rtol=0)


def direct(name: str, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    if name == "tvl1-opencv":
        engine = cv2.optflow.createOptFlow_DualTVL1()
        engine.setWarpingsNumber(2)
        engine.setOuterIterations(2)
        return engine.calc(before, after, None)
    if name == "farneback":
        return cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, None)


@pytest.mark.parametrize("name", OPENCVS)
def test_a_batch_equals_opencv_pair_by_pair(name: str) -> None:
    pairs = [shifted_pair(2, -1), shifted_pair(-3, 2), shifted_pair(0, 0)]
    befores, afters = zip(*pairs, strict=True)
    flow = make_method(name, FAST[name]).flow(batch(*befores), batch(*afters))
    for field, (before, after) in zip(flow, pairs, strict=True):
        assert np.array_equal(field.permute(1, 2, 0).numpy(), direct(name, before, after))


@pytest.mark.parametrize("name", ["tvl1", "tvl1-opencv"])
def test_small_frames_do_not_change_what_later_ones_give(name: str) -> None:
    large = [batch(picture) for picture in shifted_pair(3, 1)]
    method = make_method(name, FAST[name])
    alone = method.flow(*large)
    method.flow(*(picture[:, :20, :20].contiguous() for picture in large))
    assert torch.equal(method.flow(*large), alone)


def test_tvl1_flow_takes_its_parameters_and_says_where_the_result_lies() -> None:
    before, after = (batch(picture) for picture in shifted_pair(1, 1, 32, 32))
    parameters = TVL1Parameters(nscales=1, warps=1, outer_iterations=1)
    flow = tvl1_flow(before, after, parameters=parameters, device="cpu")
    by_method = make_method("tvl1", {"nscales": "1", "warps": 1, "outer_iterations": 1}).flow(before, after)
    assert torch.equal(flow, by_method)


@pytest.mark.parametrize(("name", "additional"), [("tvl1", {"mode": "cpu"}), ("tvl1-opencv", {})])
def test_tvl1s_defaults_are_opencvs(name: str, additional: dict[str, str]) -> None:
    engine = cv2.optflow.createOptFlow_DualTVL1()
    assert make_method(name).parameters == {
        **additional,
        "tau": engine.getTau(),
        "lambda": engine.getLambda(),
        "theta": engine.getTheta(),
        "nscales": engine.getScalesNumber(),
        "warps": engine.getWarpingsNumber(),
        "epsilon": engine.getEpsilon(),
        "inner_iterations": engine.getInnerIterations(),
        "outer_iterations": engine.getOuterIterations(),
        "scale_step": engine.getScaleStep(),
        "gamma": engine.getGamma(),
        "median_filtering": engine.getMedianFiltering(),
    }


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
def test_dis_takes_its_presets_by_name(preset: str) -> None:
    before, after = shifted_pair(2, 0)
    flow = make_method("dis", {"preset": preset}).flow(batch(before), batch(after))
    number = {"ultrafast": 0, "fast": 1, "medium": 2}[preset]
    expected = cv2.DISOpticalFlow_create(number).calc(before, after, None)
    assert np.array_equal(flow[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("name", ["tvl1", "tvl1-opencv", "farneback"])
@pytest.mark.parametrize("side", [1, 7, 20])
def test_tiny_frames_have_flow_too(name: str, side: int) -> None:
    frame = torch.zeros(1, side, side, dtype=torch.uint8)
    assert make_method(name).flow(frame, frame).abs().max() == 0


def test_dis_refuses_frames_on_which_opencv_crashes() -> None:
    frame = torch.zeros(1, 31, 200, dtype=torch.uint8)
    with pytest.raises(VideoError, match="200x31 are too small for dis, which needs 32"):
        make_method("dis").flow(frame, frame)


@pytest.mark.parametrize("name", ON_CPU)
def test_frames_of_another_kind_are_refused_with_their_shapes(name: str) -> None:
    frame = torch.zeros(1, 40, 50, dtype=torch.uint8)
    for wrong in (frame.float(), frame[0], torch.zeros(1, 40, 52, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"must be uint8 \[N, H, W\]"):
            make_method(name).flow(frame, wrong)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("tvl2", {}, "--method 'tvl2' is not known: give one of tvl1, tvl1-opencv, farneback, dis, raft"),
        ("tvl1", {"lamda": "1"}, "'lamda' is not one of tvl1's: tau, lambda, theta"),
        ("tvl1", {"lambda": "x"}, "lambda=x: must be a finite number"),
        ("tvl1", {"lambda": "nan"}, "lambda=nan: must be a finite number"),
        ("tvl1", {"tau": "inf"}, "tau=inf: must be a finite number"),
        ("tvl1", {"warps": "2.5"}, "warps=2.5: must be an integer"),
        ("tvl1", {"warps": "inf"}, "warps=inf: must be an integer"),
        ("tvl1", {"scale_step": "1"}, "scale_step=1.0: must be 0.1 or more and below 1"),
        ("tvl1", {"mode": "gpu"}, "mode=gpu: must be one of cpu, cuda"),
        (
            "tvl1",
            {"gamma": ".1"},
            "gamma=0.1: must be 0: the illumination term is computed by --method tvl1-opencv only",
        ),
        ("tvl1", {"median_filtering": "4"}, "median_filtering=4: must be 1 (none), 3 or 5"),
        ("tvl1", {"median_filtering": "5", "mode": "cuda"}, "median_filtering=5: must be 1 (none) in mode cuda"),
        ("tvl1-opencv", {"mode": "cuda"}, "'mode' is not one of tvl1-opencv's"),
        ("farneback", {"levels": "0"}, "levels=0: must be 1..30"),
        ("farneback", {"levels": None}, "levels=None: must be an integer"),  # of a damaged config.json
        ("farneback", {"pyr_scale": [1]}, "pyr_scale=[1]: must be a finite number"),
        ("dis", {"preset": "slow"}, "preset=slow: must be one of ultrafast, fast, medium"),
    ],
)
def test_wrong_options_are_named_with_what_is_accepted(name: str, options: dict[str, str], complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        make_method(name, options)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("method", "engine", "complaint"),
    [
        ("tvl1", "opencl", "--engine 'opencl' is not known: give one of auto, numba, .*reference"),
        ("dis", "numba", "--engine numba does not go with --method dis, only with tvl1"),
    ],
)
def test_engines_are_tvl1s(method: str, engine: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        make_method(method, engine=engine)


@pytest.mark.parametrize("name", METHODS)
def test_the_module_with_a_methods_name_makes_it(name: str) -> None:
    assert callable(importlib.import_module(f"pipelines.optical_flow.{name.replace('-', '_')}").make)


def test_every_method_is_named() -> None:
    assert METHODS == ("tvl1", "tvl1-opencv", "farneback", "dis", "raft")


def test_naming_the_methods_loads_none_of_them() -> None:
    code = (
        "import sys, pipelines.optical_flow, pipelines.optical_flow.methods, pipelines.extract_flow, "
        "pipelines.extract_frames; print(sorted({'torch', 'cv2', 'numpy', 'numba', 'h5py', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
