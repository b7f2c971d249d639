"""Temporal sampling on index lists worked out by hand (paper.md 1.4, 3.5 and 4.1)."""

import numpy as np
import pytest

from pipelines.datasets.sampling import (
    TemporalSampling,
    contiguous_runs,
    flow_indices,
    sample_centers,
    spaced_centers,
    valid_centers,
    windows,
)


class Scripted:
    """A generator whose integers are given; notes the bounds it was asked for."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)
        self.asked = []

    def integers(self, low, high=None):
        self.asked.append((0, low) if high is None else (low, high))
        return self.numbers.pop(0)


@pytest.mark.parametrize(
    ("length", "centers"), [(30, range(5, 25)), (12, range(5, 7)), (11, range(5, 6)), (10, range(0)), (1, range(0))]
)
def test_valid_centers_are_5_to_n_minus_6(length, centers):
    assert list(valid_centers(length)) == list(centers)


@pytest.mark.parametrize("stack", [1, 2, 5, 10])
@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("length", [1, 9, 13, 14, 40])
def test_valid_centers_are_exactly_those_whose_stack_lies_inside(length, step, stack):
    fields = length - step
    inside = [t for t in range(length) if t - stack // 2 >= 0 and t - stack // 2 + stack - 1 <= fields - 1]
    assert list(valid_centers(length, stack, step)) == inside


def test_stride_and_start_are_drawn_from_all_that_fit():
    rng = Scripted(7, 3)
    centers = sample_centers(50, TemporalSampling(5, (5, 15)), rng)
    assert rng.asked == [(5, 16), (0, 40 - 4 * 7)]  # centers 5..44 are valid: 40; five at stride 7 span 29
    assert centers.tolist() == [8, 15, 22, 29, 36]
    assert centers.dtype == np.int64


def test_a_stride_that_just_fits_leaves_one_start():
    rng = Scripted(5, 0)
    assert sample_centers(31, TemporalSampling(5, (5, 5)), rng).tolist() == [5, 10, 15, 20, 25]
    assert rng.asked[-1] == (0, 1)


def test_too_short_for_the_stride_spreads_over_the_valid_centers():
    assert sample_centers(30, TemporalSampling(5, (15, 15)), Scripted(15)).tolist() == [5, 10, 14, 19, 24]
    # 5, 9.75, 14.5, 19.25, 24: halves go to the even number
    assert sample_centers(13, TemporalSampling(5, (5, 15)), Scripted(9)).tolist() == [5, 6, 6, 6, 7]
    assert sample_centers(11, TemporalSampling(5, (1, 1)), Scripted(1)).tolist() == [5] * 5


def test_shorter_than_a_stack_spreads_over_the_whole_video():
    assert sample_centers(10, TemporalSampling(5, (1, 1)), Scripted(1)).tolist() == [0, 2, 4, 7, 9]
    assert sample_centers(2, TemporalSampling(5, (1, 3)), Scripted(2)).tolist() == [0, 0, 0, 1, 1]
    assert sample_centers(1, TemporalSampling(3, (1, 3)), Scripted(2)).tolist() == [0, 0, 0]


def test_a_single_frame_is_any_valid_center_or_any_frame_of_a_short_video():
    rng = Scripted(1, 13)
    assert sample_centers(30, TemporalSampling(1), rng).tolist() == [18]
    assert rng.asked[-1] == (0, 20)
    rng = Scripted(1, 6)
    assert sample_centers(8, TemporalSampling(1), rng).tolist() == [6]
    assert rng.asked[-1] == (0, 8)


def test_strides_and_starts_come_out_equally_often():
    rng = np.random.default_rng(0)
    drawn = [sample_centers(31, TemporalSampling(2, (1, 3)), rng) for _ in range(6000)]
    strides = np.bincount([int(centers[1] - centers[0]) for centers in drawn], minlength=4)[1:] / 6000
    assert np.abs(strides - 1 / 3).max() < 0.03
    starts = np.bincount([int(centers[0]) for centers in drawn if centers[1] - centers[0] == 3])[5:]
    assert len(starts) == 18  # 21 valid centers, the last one 3 behind the first
    assert np.abs(starts / starts.sum() - 1 / 18).max() < 0.02


def test_the_flow_step_shortens_what_is_valid():
    assert sample_centers(13, TemporalSampling(1), Scripted(1, 0), flow_step=3).tolist() == [5]
    assert list(valid_centers(13, 10, 3)) == [5]


def test_a_video_without_frames_has_no_sample():
    with pytest.raises(ValueError, match="0 frames"):
        sample_centers(0, TemporalSampling(1), Scripted())


def test_test_centers_run_from_the_first_valid_to_the_last():
    assert spaced_centers(59).tolist() == list(range(5, 54, 2))
    assert spaced_centers(35).tolist() == list(range(5, 30))
    centers = spaced_centers(200)
    assert (len(centers), centers[0], centers[-1]) == (25, 5, 194)
    assert set(np.diff(centers)) == {7, 8}
    assert spaced_centers(30, 3).tolist() == [5, 14, 24]  # 14.5 goes to the even number
    assert spaced_centers(12, 5).tolist() == [5, 5, 6, 6, 6]
    assert spaced_centers(9, 3).tolist() == [0, 4, 8]
    assert spaced_centers(30, 1).tolist() == [14]


def test_a_stack_is_five_fields_before_and_four_after_clamped_to_the_video():
    assert flow_indices(5, 29).tolist() == list(range(10))
    assert flow_indices(24, 29).tolist() == list(range(19, 29))
    assert flow_indices(0, 7).tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 3, 4]
    assert flow_indices(7, 7).tolist() == [2, 3, 4, 5, 6, 6, 6, 6, 6, 6]
    assert flow_indices(3, 9, 4).tolist() == [1, 2, 3, 4]


def test_windows_cover_the_sequence_with_the_trainings_length():
    assert windows(25, 5) == [list(range(start, start + 5)) for start in (0, 5, 10, 15, 20)]
    assert [window[0] for window in windows(25, 11)] == [0, 7, 14]
    assert [window[0] for window in windows(7, 5)] == [0, 2]
    assert windows(5, 5) == [[0, 1, 2, 3, 4]]
    assert windows(3, 5) == [[0, 1, 2]]
    assert windows(3, 1) == [[0], [1], [2]]


def test_neighbouring_stacks_are_read_as_one_slice():
    stacks = np.stack([flow_indices(center, 100) for center in (10, 20, 25, 50)])
    assert contiguous_runs(stacks) == [(5, 30), (45, 55)]
    assert contiguous_runs([3]) == [(3, 4)]
    assert contiguous_runs([]) == []


@pytest.mark.parametrize("length", [12, 40, 41, 200])
def test_clips_of_the_test_are_close_frames_spread_over_the_video(length):
    valid = list(valid_centers(length))
    clips = spaced_centers(length, 25, clip=(5, 2)).reshape(5, 5)
    if len(valid) < 9:
        assert (clips == np.rint(np.linspace(valid[0], valid[-1], 5))).all()
        return
    assert (np.diff(clips, axis=1) == 2).all()
    assert (clips[0, 0], clips[-1, -1]) == (valid[0], valid[-1])
    assert np.ptp(np.diff(clips[:, 0])) <= 1
