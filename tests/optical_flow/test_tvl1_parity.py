"""TV-L1: the numbers of OpenCV 5 from every engine, and from every engine the same.

Where an iteration is fixed, engines agree to rounding. Run to their ends, they differ in a few pixels: the L1 data term
and the median filter make those jump at the least disturbance, OpenCV's own as well; so it is the measure there.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipelines.optical_flow import TVL1Parameters, tvl1_flow
from pipelines.optical_flow.grey import to_grey
from pipelines.optical_flow.tvl1 import reference
from pipelines.optical_flow.tvl1_opencv import opencv_tvl1_flow
from pipelines.video.decoding import VideoReader

DATA = Path(__file__).resolve().parents[3] / "shared/data"
ENGINES = ["numba", "reference"]
CLIPS = ["ucf101/Punch/v_Punch_g03_c01.avi", "ucf101/Basketball/v_Basketball_g01_c01.avi"]
PICTURES = ["RubberWhale", "Hydrangea", "Grove2", "Urban2"]

Pair = tuple[torch.Tensor, torch.Tensor]

on_opencv_5 = pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV 4 rounds positions to 1/32")
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real clips are not here")


# ------------------------------------------------------------------ pictures


def synthetic_pair(height: int = 72, width: int = 96, seed: int = 0) -> Pair:
    """A smooth texture, and the same shifted and slightly turned."""
    noise = np.random.default_rng(seed).normal(0, 1, (height + 40, width + 40))
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    moved = cv2.warpAffine(texture, np.array([[1, 0.02, 2], [-0.02, 1, -1]]), texture.shape[::-1])
    return as_batch(texture[20:-20, 20:-20]), as_batch(moved[20:-20, 20:-20])


def as_batch(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture))[None]


def clip_pair(name: str) -> Pair:
    """Two frames from the middle of a clip, the middle of each."""
    frames = [to_grey(frame) for frame in VideoReader(DATA / name, 256, allow_truncated=True)]
    at = len(frames) // 2
    before, after = (frame[60:180, 90:250] for frame in frames[at : at + 2])
    return as_batch(before), as_batch(after)


def middlebury(name: str) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """A pair, and its true flow [2, H, W] with NaN where that is unknown: the middle of them."""
    window = np.s_[120:264, 200:376]
    frames = [cv2.imread(str(DATA / "middlebury" / name / f"frame{n}.png"), cv2.IMREAD_GRAYSCALE) for n in (10, 11)]
    raw = np.fromfile(DATA / "middlebury" / name / "flow10.flo", np.float32)
    width, height = raw[1:3].view(np.int32)
    truth = raw[3:].reshape(height, width, 2).transpose(2, 0, 1)[:, *window]
    return as_batch(frames[0][window]), as_batch(frames[1][window]), np.where(np.abs(truth) > 1e9, np.nan, truth)


# ------------------------------------------------------------------ comparing


def fixed(iterations: int, **others: object) -> TVL1Parameters:
    """No early stop: one round of so many iterations a warp."""
    settings = {"inner_iterations": iterations, "outer_iterations": 1, "epsilon": 0.0, **others}
    return TVL1Parameters(**settings)  # type: ignore[arg-type]


def difference(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """End-point difference of each pixel, in pixels."""
    return torch.linalg.vector_norm(one.double() - other.double(), dim=1)


def opencv_flow_of_floats(before: np.ndarray, after: np.ndarray) -> torch.Tensor:
    """OpenCV's flow of pictures of grey levels between the whole numbers: of floats it expects 0..1."""
    engine = cv2.optflow.createOptFlow_DualTVL1()
    flow = engine.calc((before / 255).astype(np.float32), (after / 255).astype(np.float32), None)
    return torch.from_numpy(flow).permute(2, 0, 1)[None]


def opencv_under_noise(pair: Pair, unharmed: torch.Tensor) -> list[torch.Tensor]:
    """How far OpenCV's flow moves when its input does by 1e-3 grey levels: three trials."""
    trials = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        noisy = [frame[0].numpy() + generator.normal(0, 1e-3, frame[0].shape) for frame in pair]
        trials.append(difference(opencv_flow_of_floats(*noisy), unharmed))
    return trials


def assert_within_opencvs_own_noise(pair: Pair, engine: str) -> None:
    theirs = opencv_tvl1_flow(*pair, parameters=TVL1Parameters())
    ours = difference(tvl1_flow(*pair, engine=engine), theirs)
    noise = opencv_under_noise(pair, theirs)
    for statistic in (torch.mean, torch.median):
        assert statistic(ours) <= 1.1 * max(statistic(trial) for trial in noise)


# ------------------------------------------------------------------ against OpenCV


@on_opencv_5
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("parameters", "most"),
    [
        (fixed(10, nscales=1, warps=1), 1e-6),
        (fixed(10, nscales=1, warps=1, tau=0.2, lambda_=0.3, theta=0.2), 1e-6),
        (fixed(10, nscales=2, warps=1), 5e-6),
        (fixed(10, nscales=1, warps=2), 5e-6),
        (fixed(10, nscales=2, warps=1, scale_step=0.5), 5e-6),
        (TVL1Parameters(nscales=1, warps=2, epsilon=0, inner_iterations=3, outer_iterations=2), 5e-6),
        (TVL1Parameters(nscales=1, warps=2, epsilon=0, outer_iterations=2, median_filtering=3), 1e-4),
        (TVL1Parameters(nscales=1, warps=2, epsilon=0, outer_iterations=2, median_filtering=1), 1e-4),
        (fixed(25), 2e-3),
    ],
    ids=str,
)
def test_fixed_iterations_give_opencvs_flow(engine: str, parameters: TVL1Parameters, most: float) -> None:
    pair = synthetic_pair()
    theirs = opencv_tvl1_flow(*pair, parameters=parameters)
    assert theirs.abs().max() > 0.05
    assert difference(tvl1_flow(*pair, parameters=parameters, engine=engine), theirs).mean() <= most


@on_opencv_5
@pytest.mark.parametrize("seed", range(1, 9))
def test_they_do_for_other_pairs(seed: int) -> None:
    pair = synthetic_pair(seed=seed)
    theirs = opencv_tvl1_flow(*pair, parameters=fixed(25))
    assert difference(tvl1_flow(*pair, parameters=fixed(25)), theirs).mean() <= 2e-3


@on_opencv_5
@with_data
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("clip", CLIPS)
def test_fixed_iterations_give_opencvs_flow_of_real_clips(engine: str, clip: str) -> None:
    pair = clip_pair(clip)
    for parameters, most in ((fixed(10, nscales=1, warps=1), 1e-6), (fixed(10, nscales=2, warps=1), 5e-6)):
        theirs = opencv_tvl1_flow(*pair, parameters=parameters)
        assert difference(tvl1_flow(*pair, parameters=parameters, engine=engine), theirs).mean() <= most


@on_opencv_5
@pytest.mark.parametrize("engine", ENGINES)
def test_the_early_stop_comes_with_opencvs(engine: str) -> None:
    pair = synthetic_pair()
    parameters = TVL1Parameters(nscales=1, warps=1)
    theirs = opencv_tvl1_flow(*pair, parameters=parameters)
    assert difference(tvl1_flow(*pair, parameters=parameters, engine=engine), theirs).mean() <= 1e-5


@on_opencv_5
@pytest.mark.parametrize("engine", ENGINES)
def test_the_defaults_differ_from_opencv_no_more_than_it_from_itself_under_noise(engine: str) -> None:
    assert_within_opencvs_own_noise(synthetic_pair(), engine)


@on_opencv_5
@with_data
@pytest.mark.parametrize("clip", CLIPS)
def test_so_do_they_on_real_clips(clip: str) -> None:
    assert_within_opencvs_own_noise(clip_pair(clip), "numba")


@on_opencv_5
@with_data
@pytest.mark.parametrize("name", PICTURES)
def test_the_error_against_the_true_flow_is_opencvs(name: str) -> None:
    before, after, truth = middlebury(name)

    def error(flow: torch.Tensor) -> float:
        return float(np.nanmean(np.hypot(*(flow[0].numpy() - truth))))

    theirs = error(opencv_tvl1_flow(before, after, parameters=TVL1Parameters()))
    assert error(tvl1_flow(before, after)) == pytest.approx(theirs, rel=0.01)


@on_opencv_5
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [(2, 3), (3, 2), (9, 13), (15, 60), (16, 16), (20, 21), (37, 45), (61, 83)], ids=str)
def test_any_size_will_do(engine: str, size: tuple[int, int]) -> None:
    pair = synthetic_pair(*size)
    parameters = fixed(10, warps=1)
    theirs = opencv_tvl1_flow(*pair, parameters=parameters)
    assert difference(tvl1_flow(*pair, parameters=parameters, engine=engine), theirs).mean() <= 5e-6


@on_opencv_5
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("grey", [lambda noise: 255 * (noise > 0), lambda noise: 255 * (noise > 2)])
def test_black_and_white_give_opencvs_flow(engine: str, grey: Callable[[np.ndarray], np.ndarray]) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(0, 1, (41, 50)), (0, 0), 2) * 8
    before, after = as_batch(grey(noise[:-1, :-2]).astype(np.uint8)), as_batch(grey(noise[1:, 2:]).astype(np.uint8))
    parameters = fixed(10, nscales=1, warps=1)
    theirs = opencv_tvl1_flow(before, after, parameters=parameters)
    assert difference(tvl1_flow(before, after, parameters=parameters, engine=engine), theirs).mean() <= 1e-6


@pytest.mark.parametrize("mode", ["cpu", "cuda"])
def test_flat_surroundings_give_no_infinite_flow(mode: str) -> None:
    # Flow spreads into them in ever smaller amounts, at which the warped gradient's square is below all floats.
    before, after = np.full((2, 100, 170), 16, np.uint8)
    before[40:52, 60:75], after[41:53, 62:77] = 200, 200
    parameters = TVL1Parameters(mode=mode, warps=2)
    flows = [tvl1_flow(as_batch(before), as_batch(after), parameters=parameters, engine=e) for e in ENGINES]
    assert all(flow.isfinite().all() for flow in flows)


# ------------------------------------------------------------------ against one another


@pytest.mark.parametrize("mode", ["cpu", "cuda"])
@pytest.mark.parametrize("size", [(7, 5), (48, 64), (61, 83)], ids=str)
def test_rounding_moves_no_engine_far_from_the_reference_in_float64(mode: str, size: tuple[int, int]) -> None:
    pair = synthetic_pair(*size)
    for parameters, most in ((fixed(10, nscales=1, warps=1, mode=mode), 1e-6), (fixed(10, warps=2, mode=mode), 1e-4)):
        exact = reference.compute_flow(*pair, parameters, dtype=torch.float64)
        for engine in ENGINES:
            assert difference(tvl1_flow(*pair, parameters=parameters, engine=engine), exact).mean() <= most


def test_the_engines_agree_on_the_whole_of_mode_cuda() -> None:
    pair = synthetic_pair()
    parameters = TVL1Parameters(mode="cuda")
    flows = [tvl1_flow(*pair, parameters=parameters, engine=engine) for engine in ENGINES]
    assert difference(*flows).mean() <= 1e-4


@pytest.mark.parametrize("mode", ["cpu", "cuda"])
@pytest.mark.parametrize("engine", ENGINES)
def test_identical_frames_have_no_flow_at_all(engine: str, mode: str) -> None:
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 33, 40), dtype=np.uint8))
    noise[1], noise[2] = 0, 255
    assert tvl1_flow(noise, noise, parameters=TVL1Parameters(mode=mode), engine=engine).abs().max() == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_pairs_flow_does_not_depend_on_its_batch(engine: str, threads: int) -> None:
    pairs = [synthetic_pair(33, 47, seed) for seed in range(3)]
    before, after = (torch.cat(frames) for frames in zip(*pairs, strict=True))
    parameters = TVL1Parameters(warps=2, outer_iterations=2)
    usual = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = tvl1_flow(before, after, parameters=parameters, engine=engine)
        for flow, pair in zip(together, pairs, strict=True):
            assert torch.equal(flow, tvl1_flow(*pair, parameters=parameters, engine=engine)[0])
    finally:
        torch.set_num_threads(usual)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1)], ids=str)
def test_pictures_one_pixel_wide_have_no_gradient_that_way(size: tuple[int, int]) -> None:
    # No parity here: OpenCV reads what lies beside them.
    pair = synthetic_pair(*size)
    flows = [tvl1_flow(*pair, parameters=fixed(10, warps=1), engine=engine) for engine in ENGINES]
    assert difference(*flows).mean() <= 1e-6
    assert flows[0][:, [side == 1 for side in size[::-1]]].abs().max() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_parts_of_larger_tensors_and_no_pairs_at_all_will_do(engine: str) -> None:
    before, after = synthetic_pair(40, 50)
    parameters = fixed(5, warps=1)
    part = tvl1_flow(before[:, 3:35, 5:45], after[:, 3:35, 5:45], parameters=parameters, engine=engine)
    copied = tvl1_flow(
        before[:, 3:35, 5:45].clone(), after[:, 3:35, 5:45].clone(), parameters=parameters, engine=engine
    )
    assert torch.equal(part, copied)
    assert tvl1_flow(before[:0], after[:0], engine=engine).shape == (0, 2, 40, 50)
