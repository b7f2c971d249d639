"""Flow in bytes: the formula, its inverse, and the mirror."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from pipelines.errors import UsageError, VideoError
from pipelines.storage.quantise import (
    GREYS,
    LEVEL_TYPE,
    LEVELS_OF_GREYS,
    NO_MOTION,
    dequantise,
    is_clipped,
    level_tensor_type,
    mirror_x_flow,
    quantise,
    require_finite,
    step_size,
)


def naive(flow: np.ndarray, bound: float) -> np.ndarray:
    clipped = np.clip(flow.astype(np.float64), -bound, bound)
    return 255 * (clipped + bound) / (2 * bound)


@pytest.mark.parametrize("bound", [20.0, 15, 4, 3.3])
def test_bytes_are_the_papers_formula(bound: float) -> None:
    flow = np.random.default_rng(0).normal(0, bound, 200_000).astype(np.float32)
    exact = naive(flow, bound)
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-12  # rounding may take a tie to either side
    assert clear.mean() > 0.999
    assert np.array_equal(quantise(flow, bound)[clear], np.rint(exact)[clear])


def test_flow_that_is_not_finite_is_a_fault_of_the_video_not_some_motion() -> None:
    require_finite(torch.tensor(True))
    with pytest.raises(VideoError, match="NaN or infinity"):
        require_finite(torch.tensor(False))


def test_ties_go_to_the_even_byte() -> None:
    # 255 * (v + 20) / 40 of -8, 8 and 16 pixels is 76.5, 178.5 and 229.5
    assert quantise(np.float32([-8, 0, 8, 16]), 20).tolist() == [76, 128, 178, 230]


def test_no_motion_is_128_whatever_the_bound() -> None:
    for bound in [*np.arange(1, 300) / 10, *np.random.default_rng(0).uniform(0.1, 60, 500)]:
        assert quantise(np.zeros(1, np.float32), float(bound))[0] == NO_MOTION
        assert quantise(torch.zeros(1), float(bound))[0] == NO_MOTION


def test_ends_clip_and_nothing_wraps_round() -> None:
    flow = np.float32([-np.inf, -1e9, -20, 20, 1e9, np.inf, np.nan])
    assert quantise(flow, 20).tolist() == [0, 0, 0, 255, 255, 255, 128]
    assert quantise(torch.from_numpy(flow), 20).tolist() == [0, 0, 0, 255, 255, 255, 128]


def test_numpy_and_torch_agree_to_the_bit() -> None:
    flow = np.random.default_rng(0).normal(0, 12, (3, 2, 50, 60)).astype(np.float32)
    fields = quantise(flow, 20)
    assert np.array_equal(quantise(torch.from_numpy(flow), 20).numpy(), fields)
    assert np.array_equal(dequantise(torch.from_numpy(fields), 20).numpy(), dequantise(fields, 20))


def test_levels_are_of_one_type_and_pictures_of_other_programs_keep_theirs() -> None:
    flow = np.zeros((2, 3, 4), np.float32)
    assert quantise(flow, 20).dtype == LEVEL_TYPE == LEVELS_OF_GREYS.dtype
    assert quantise(torch.from_numpy(flow), 20).dtype == level_tensor_type()
    assert GREYS[LEVELS_OF_GREYS].tolist() == list(range(256))


def test_what_is_dequantised_is_half_a_step_off_at_most_and_quantises_to_itself() -> None:
    flow = np.random.default_rng(0).uniform(-20, 20, 10_000).astype(np.float32)
    fields = quantise(flow, 20)
    assert np.abs(dequantise(fields, 20) - flow).max() <= float(Fraction(20, 255)) + 1e-5
    assert dequantise(fields, 20).dtype == np.float32
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(quantise(dequantise(every, 20), 20), every)


@pytest.mark.parametrize("bound", [0, -1, float("nan"), float("inf")])
def test_bounds_must_be_positive(bound: float) -> None:
    with pytest.raises(UsageError, match="--bound"):
        quantise(np.zeros(1, np.float32), bound)


def test_mirroring_reverses_columns_and_negates_x_alone() -> None:
    fields = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6), dtype=np.uint8)
    mirrored = mirror_x_flow(fields)
    assert np.array_equal(mirrored[:, 0::2], 255 - fields[:, 0::2, :, ::-1])
    assert np.array_equal(mirrored[:, 1::2], fields[:, 1::2, :, ::-1])
    assert np.array_equal(mirror_x_flow(torch.from_numpy(fields)).numpy(), mirrored)
    assert np.array_equal(mirror_x_flow(mirrored), fields)


def test_mirroring_in_bytes_is_mirroring_in_pixels() -> None:
    flow = np.random.default_rng(0).uniform(-25, 25, (1, 2, 40, 50)).astype(np.float32)
    in_pixels = flow[..., ::-1] * np.float32([-1, 1]).reshape(2, 1, 1)
    difference = quantise(in_pixels, 20).astype(int) - mirror_x_flow(quantise(flow, 20))
    assert np.abs(difference).max() == 0


def test_flow_to_mirror_has_x_and_y() -> None:
    with pytest.raises(ValueError, match="x and y"):
        mirror_x_flow(np.zeros((3, 4, 5), np.uint8))


def test_a_vector_is_clipped_if_a_component_is_at_an_end() -> None:
    fields = np.array([[[0, 1, 128, 254, 9]], [[9, 254, 128, 1, 255]]], np.uint8)
    assert is_clipped(fields).tolist() == [[True, False, False, False, True]]
    assert is_clipped(torch.from_numpy(fields)).tolist() == is_clipped(fields).tolist()
    assert is_clipped(quantise(np.float32([[[-20, 19]], [[0, 25]]]), 20)).tolist() == [[True, True]]


def test_a_step_is_what_one_byte_more_adds() -> None:
    assert step_size(20) == pytest.approx(40 / 255)
    assert np.diff(dequantise(np.arange(256, dtype=np.uint8), 20)) == pytest.approx(step_size(20), abs=1e-5)
