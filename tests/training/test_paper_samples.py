"""One sample by paper.md 1.6, 3.4 and 3.5, against all there can be: centers, strides, crops, mirrors."""

import itertools
import json
from collections import Counter
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from scipy import stats

from pipelines.datasets.augmentation import draw_crop
from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.clips import Clips
from pipelines.datasets.preparation import as_stored
from pipelines.datasets.sampler import Item
from pipelines.datasets.samples import TrainingSamples
from pipelines.datasets.sampling import TemporalSampling, flow_indices, sample_centers
from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.workspace import Workspace
from pipelines.training.recipes import PAPER

# ------------------------------------------------------------------ in time


def all_samples(length: int, frames: int, strides: range) -> dict[tuple[int, ...], float]:
    """Every sample of a video and its probability: a stride, each as likely; then a start, each as likely."""
    first, last = 5, length - 6
    chances: Counter[tuple[int, ...]] = Counter()
    for stride in strides:
        starts = [start for start in range(first, last + 1) if start + (frames - 1) * stride <= last]
        samples = [tuple(start + stride * place for place in range(frames)) for start in starts]
        if not samples:  # too short for this stride: spread evenly, rounded
            spread = [first + place * (last - first) / (frames - 1) for place in range(frames)]
            samples = [tuple(round(center) for center in spread)]
        for sample in samples:
            chances[sample] += 1 / len(strides) / len(samples)
    return dict(chances)


def assert_drawn_as(expected: dict, drawn: list, by: Callable = lambda outcome: outcome) -> None:
    """Nothing else was drawn, and what `by` makes of it is as frequent (chi-squared, rare ones together)."""
    assert set(drawn) <= set(expected)
    wanted: Counter = Counter()
    for outcome, chance in expected.items():
        wanted[by(outcome)] += chance * len(drawn)
    found = Counter(map(by, drawn))
    common = [name for name, count in wanted.items() if count >= 10]
    pairs = [(found[name], wanted[name]) for name in common]
    rare = len(drawn) - sum(pair[1] for pair in pairs)
    if rare >= 10:
        pairs.append((len(drawn) - sum(pair[0] for pair in pairs), rare))
    if len(pairs) > 1:
        observed, frequent = np.array(pairs).T
        assert stats.chisquare(observed, frequent, sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize("length", [200, 60, 25, 13, 11])
@pytest.mark.parametrize("step", PAPER.default_steps)
def test_centers_are_drawn_as_the_recipe_says(step, length):
    """From 200 frames, for which every stride fits, to 11, of which one center is valid."""
    frames, strides = {
        "appearance": (1, range(1, 2)),
        "motion": (1, range(1, 2)),
        "joint1": (5, range(5, 16)),
        "joint2": (11, range(1, 16)),
    }[step]
    recipe = PAPER.steps[step]
    rng = np.random.default_rng(length)
    sampling = TemporalSampling(recipe.frames, recipe.stride)
    drawn = [tuple(sample_centers(length, sampling, rng).tolist()) for _ in range(4000)]
    expected = all_samples(length, frames, strides)
    for by in (lambda sample: sample[-1] - sample[0], lambda sample: sample[0], lambda sample: sample[-1]):
        assert_drawn_as(expected, drawn, by)


@pytest.mark.parametrize("length", range(1, 11))
def test_a_video_without_a_valid_center_repeats_its_first_and_last_fields(length):
    """Ten fields, t-5 .. t+4, of N - 1 that there are; the centers are spread over all frames."""
    centers = sample_centers(length, TemporalSampling(5, (5, 15)), np.random.default_rng(0))
    assert centers.tolist() == [round(place * (length - 1) / 4) for place in range(5)]
    for center in centers.tolist():
        fields = max(1, length - 1)
        clamped = [min(max(field, 0), fields - 1) for field in range(center - 5, center + 5)]
        assert flow_indices(center, fields).tolist() == clamped


# ------------------------------------------------------------------ in space

PICTURE, INPUT = (256, 340), (224, 224)


def crops_of(step: str, count: int, picture: tuple[int, int] = PICTURE) -> list:
    rng = np.random.default_rng(1)
    return [draw_crop(PAPER.steps[step].augmentation, *picture, INPUT, rng) for _ in range(count)]


def test_multi_scale_corners_are_drawn_equally_often():
    """Motion: 4 heights x 4 widths x 5 places x 2 mirrors."""
    lengths = (256, 224, 192, 168)
    expected: Counter[tuple] = Counter()
    for height, width, mirror in itertools.product(lengths, lengths, (False, True)):
        down, right = 256 - height, 340 - width
        for place in ((0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)):
            expected[(*place, height, width, mirror)] += 1 / 160
    assert_drawn_as(dict(expected), [(c.top, c.left, c.height, c.width, c.mirror) for c in crops_of("motion", 8000)])


@pytest.mark.parametrize("step", ["appearance", "joint1", "joint2"])
def test_corner_jittered_lengths_are_uniform_and_independent(step):
    """224 times 0.75 to 1.25, so 168 to 280, at most the picture's 256 and 340."""
    drawn = crops_of(step, 4000)
    widths, heights = np.array([c.width for c in drawn]), np.array([c.height for c in drawn])
    assert stats.kstest(widths, stats.uniform(167.5, 113).cdf).pvalue > 1e-4
    free = heights[heights < 256]
    assert stats.kstest(free, stats.uniform(167.5, 88).cdf).pvalue > 1e-4
    assert np.mean(heights == 256) == pytest.approx((280 - 255.5) / 112, abs=0.03)
    assert abs(stats.spearmanr(widths, heights).statistic) < 0.06


def test_corner_jittered_offsets_are_on_the_20_x_20_grids_of_two_corners():
    """Each place of each grid as likely; the center half of the free range never."""
    side = 256 * 400  # so large that rounding to pixels does not blur the grid of offsets
    drawn = []
    for crop in crops_of("appearance", 16000, (side, side)):
        free_y, free_x = side - crop.height, side - crop.width
        if min(free_y, free_x) > 4000:
            y, x = crop.top / free_y, crop.left / free_x
            assert max(y, x) < 0.2502 or min(y, x) > 0.7498  # a pixel's rounding
            drawn.append(tuple(round((z - 0.75 if z > 0.5 else z) * 19 / 0.25) + 100 * (z > 0.5) for z in (y, x)))
    corners = [range(20), range(100, 120)]
    expected = {place: 1 / 800 for corner in corners for place in itertools.product(corner, corner)}
    assert_drawn_as(expected, drawn)


@pytest.mark.parametrize("step", list(PAPER.steps))
def test_half_of_the_samples_are_mirrored_whatever_their_crop(step):
    drawn = crops_of(step, 4000)
    mirrored = np.array([crop.mirror for crop in drawn])
    assert stats.binomtest(int(mirrored.sum()), len(drawn)).pvalue > 1e-4
    assert abs(stats.spearmanr(mirrored, [crop.left for crop in drawn]).statistic) < 0.06


# ------------------------------------------------------------------ pixels

HEIGHT, WIDTH, FRAMES = 40, 50, 60


@pytest.fixture
def ramps(tmp_path) -> Workspace:
    """One video that stands still and tells where a pixel comes from: red and x-flow grow from left to right by 4 and
    1 a pixel, green and y-flow from top to bottom."""
    workspace = Workspace(tmp_path / "work")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([np.zeros_like(rows), 4 * rows, 4 * columns], axis=-1).astype(np.uint8)  # OpenCV's order
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111])[1]
    about = {"fps": 25.0, "source": "a.avi", "source_sha256": "a", "source_frames": FRAMES, "short_side": HEIGHT}
    about |= {"width": WIDTH, "height": HEIGHT}
    with new_frames_file(workspace.frames_file("a", "a")) as frames:
        for _ in range(FRAMES):
            frames.append(jpeg)
        frames.finish(about)
    field = np.stack([columns, rows]).astype(np.uint8)
    with new_flow_file(workspace.flow_file("a", "a")) as flow:
        flow.append(np.broadcast_to(field, (FRAMES - 1, 2, HEIGHT, WIDTH)))
        settings = {"method": "tvl1", "method_parameters": json.dumps({}), "bound": 20.0, "step": 1}
        flow.finish(about | settings | {"flow_input": "video"})
    return workspace


@pytest.mark.parametrize("step", ["joint1", "joint2"])
def test_crop_scale_and_mirror_are_the_same_for_all_frames_and_both_streams(ramps, step):
    recipe = PAPER.steps[step]
    samples = TrainingSamples(
        load_catalogue(ramps).videos,
        [0],
        sampling=TemporalSampling(recipe.frames, recipe.stride),
        scheme=recipe.augmentation,
        size=(32, 32),
        seed=0,
        step_index=2,
    )
    mirrors = 0
    for place in range(12):
        sample = samples[Item(0, place, 0)]
        bytes_of = as_stored(Clips([sample.rgb]), Clips([sample.flow]))
        rgb, flow = (x[0].numpy().astype(int) for x in bytes_of)
        assert rgb.shape == (recipe.frames, 3, 32, 32)
        assert flow.shape == (recipe.frames, 20, 32, 32)
        assert (rgb == rgb[0]).all()
        assert (flow[:, 0::2] == flow[0, 0]).all()  # all ten fields of all stacks, x and y interleaved
        assert (flow[:, 1::2] == flow[0, 1]).all()
        mirrored = rgb[0, 0, 16, 0] > rgb[0, 0, 16, -1]
        mirrors += mirrored
        columns = 255 - flow[0, 0] if mirrored else flow[0, 0]
        np.testing.assert_allclose(rgb[0, 0] / 4, columns, atol=1.5)
        np.testing.assert_allclose(rgb[0, 1] / 4, flow[0, 1], atol=1.5)
    assert 0 < mirrors < 12
