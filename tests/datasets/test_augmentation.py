"""Crops, mirrors and views (paper.md 3.4 and 4.2)."""

import numpy as np
import pytest
import torch

from pipelines.datasets.augmentation import (
    REFERENCE,
    Crop,
    draw_crop,
    jitter_colors,
    view_crops,
)
from pipelines.errors import UsageError

PICTURE = (256, 340)
INPUT = (224, 224)


class Scripted:
    """A generator whose draws are given, in order."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def uniform(self, low, high):
        return self.draws.pop(0)

    def integers(self, *bounds):
        return self.draws.pop(0)

    def random(self):
        return self.draws.pop(0)


def crops(scheme, count=3000, picture=PICTURE, size=INPUT, **options):
    rng = np.random.default_rng(0)
    return [draw_crop(scheme, *picture, size, rng, **options) for _ in range(count)]


@pytest.mark.parametrize("scheme", REFERENCE)
@pytest.mark.parametrize(("picture", "size"), [(PICTURE, INPUT), ((64, 80), (64, 80)), ((90, 33), (16, 20))])
def test_every_crop_lies_inside_the_picture(scheme, picture, size):
    for crop in crops(scheme, 500, picture, size):
        assert 0 <= crop.top <= crop.top + crop.height <= picture[0]
        assert 0 <= crop.left <= crop.left + crop.width <= picture[1]
        assert min(crop.height, crop.width) > 0


@pytest.mark.parametrize("scheme", ["corner-jittered", "multi-scale-corner", "mild"])
def test_half_of_the_crops_are_mirrored_unless_forbidden(scheme):
    allowed, forbidden = crops(scheme), crops(scheme, mirror=False)
    assert 0.46 < np.mean([crop.mirror for crop in allowed]) < 0.54
    assert not any(crop.mirror for crop in forbidden)
    assert [(c.top, c.left, c.height, c.width) for c in allowed] == [
        (c.top, c.left, c.height, c.width) for c in forbidden
    ]


def test_corner_jittered_worked_out():
    # lengths 224 * 1.25 = 280, at most 256, and 224 * .75 = 168; bottom-right; 19/19 and 0/19 of the last quarter
    crop = draw_crop("corner-jittered", *PICTURE, INPUT, Scripted(1.25, 0.75, 1, 19, 0, 0.4))
    assert crop == Crop(top=0, left=round(0.75 * (340 - 168)), height=256, width=168, mirror=True)
    crop = draw_crop("corner-jittered", *PICTURE, INPUT, Scripted(1.0, 1.0, 0, 19, 8, 0.6))
    assert crop == Crop(top=8, left=round(0.25 * 8 / 19 * 116), height=224, width=224, mirror=False)


def test_corner_jittered_lengths_are_independent_and_uniform_up_to_the_pictures():
    drawn = crops("corner-jittered")
    heights, widths = (np.array([getattr(crop, name) for crop in drawn]) for name in ("height", "width"))
    assert (heights.min(), heights.max(), widths.min(), widths.max()) == (168, 256, 168, 280)
    assert abs(np.mean(widths) - 224) < 2
    assert abs(np.mean(heights == 256) - (280 - 255.5) / 112) < 0.03
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.05


def test_corner_jittered_offsets_lie_in_the_same_corner_quarter_for_x_and_y():
    drawn = [crop for crop in crops("corner-jittered") if crop.height < 216]
    y = np.array([crop.top / (256 - crop.height) for crop in drawn])
    x = np.array([crop.left / (340 - crop.width) for crop in drawn])
    near, far = (y < 0.27) & (x < 0.27), (y > 0.73) & (x > 0.73)
    assert (near | far).all()
    assert 0.45 < near.mean() < 0.55


def test_corner_jittered_offsets_take_20_by_20_places_a_corner():
    picture = (40_000, 40_000)  # large enough that no two places of the grid are rounded to one
    seen = {
        (
            round(19 / 0.25 * crop.top / (40_000 - crop.height), 1),
            round(19 / 0.25 * crop.left / (40_000 - crop.width), 1),
        )
        for crop in crops("corner-jittered", 14_000, picture)
        if max(crop.height, crop.width) < 38_000
    }
    grid = {float(k) for k in (*range(20), *range(57, 77))}
    assert {y for y, _ in seen} == {x for _, x in seen} == grid
    assert len(seen) == 2 * 20 * 20


def test_multi_scale_corner_takes_all_lengths_at_all_five_places():
    drawn = crops("multi-scale-corner", 6000)
    assert {crop.height for crop in drawn} == {crop.width for crop in drawn} == {256, 224, 192, 168}
    places = {(crop.top, crop.left) for crop in drawn if (crop.height, crop.width) == (192, 224)}
    assert places == {(0, 0), (0, 116), (64, 0), (64, 116), (32, 58)}
    assert abs(np.mean([crop.height == crop.width for crop in drawn]) - 0.25) < 0.03


def test_mild_keeps_the_inputs_shape_and_stays_close_to_the_whole_picture():
    drawn = crops("mild", picture=(64, 80), size=(64, 80))
    heights = [crop.height for crop in drawn]
    assert (min(heights), max(heights)) == (51, 64)
    assert all(abs(crop.width - 1.25 * crop.height) <= 1 for crop in drawn)
    tops = {crop.top for crop in drawn if crop.height == 54}
    assert tops == set(range(11))


def test_center_is_the_largest_box_of_the_inputs_shape():
    assert set(crops("center", 5)) == {Crop(0, 42, 256, 256)}
    assert set(crops("center", 5, (64, 80), (64, 80))) == {Crop(0, 0, 64, 80)}


def test_lengths_grow_with_the_short_side_and_each_axis_with_the_inputs_shape():
    at_128 = crops("multi-scale-corner", 500, (128, 170), (112, 112))
    assert {crop.height for crop in at_128} == {128, 112, 96, 84}
    oblong = crops("multi-scale-corner", 500, (64, 100), (64, 80))  # box 64 x 80
    assert {crop.height for crop in oblong} == {64, 56, 48, 42}
    assert {crop.width for crop in oblong} == {80, 70, 60, 52}  # 52.5 to the even number


SHAPES = {
    "the paper's": (PICTURE, INPUT),
    "wide, a square input": ((216, 456), (96, 96)),
    "three times as long": ((40, 120), (32, 32)),
    "a panorama": ((40, 170), (32, 32)),
    "upright, an input for wide ones": ((228, 128), (112, 200)),
    "wide, an upright input": ((60, 110), (96, 32)),
}


@pytest.mark.parametrize(("picture", "size"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scheme", ["corner-jittered", "multi-scale-corner", "mild"])
def test_crops_reach_every_row_and_column_as_the_test_does(scheme, picture, size):
    shown = np.zeros(picture, bool)
    for crop in crops(scheme, 2000, picture, size):
        shown[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width] = True
    assert shown.any(axis=0).all()
    assert shown.any(axis=1).all()


@pytest.mark.parametrize("scheme", ["corner-jittered", "multi-scale-corner"])
def test_only_a_side_longer_than_three_boxes_changes_where_corners_lie(scheme):
    drawn = [crop for crop in crops(scheme, 400, (400, 1700), (320, 320)) if crop.height < 380]
    y = {round(crop.top / (400 - crop.height), 2) for crop in drawn}
    x = [crop.left / (1700 - crop.width) for crop in drawn]
    assert not any(0.27 < place < 0.49 or 0.51 < place < 0.73 for place in y)
    assert np.histogram(x, bins=5, range=(0, 1))[0].min() > len(x) / 5 / 2


def test_colors_are_jittered_as_defined_and_all_frames_alike():
    """Worked out in float64: torchvision computes on bytes, which are cut after each of the three."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 9), np.uint8)
    weights = np.array([0.2989, 0.587, 0.114])[:, None, None]  # of ITU-R BT.601's luma
    wanted = frames.astype(np.float64)
    factors = np.random.default_rng(3)
    wanted = (wanted * factors.uniform(0.5, 1.5)).clip(0, 255)
    level = (wanted * weights).sum(1, keepdims=True).mean((2, 3), keepdims=True)
    wanted = (level + factors.uniform(0.5, 1.5) * (wanted - level)).clip(0, 255)
    gray = (wanted * weights).sum(1, keepdims=True)
    wanted = (gray + factors.uniform(0.5, 1.5) * (wanted - gray)).clip(0, 255)
    found = jitter_colors(torch.from_numpy(frames), 0.5, np.random.default_rng(3))
    assert found.dtype == torch.uint8
    assert np.abs(found.numpy() - wanted).max() < 4
    assert np.abs(found.numpy() - frames.astype(float)).mean() > 10


def test_an_unknown_scheme_is_echoed_with_the_known_ones():
    with pytest.raises(UsageError, match=r"'random'.*corner-jittered, multi-scale-corner, mild, center"):
        draw_crop("random", *PICTURE, INPUT, np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"'7'.*full, center, 3, 5, 10"):
        view_crops(*PICTURE, "7", INPUT)


# ------------------------------------------------------------------ views


def test_the_full_view_of_the_papers_sizes_is_the_stored_picture():
    assert view_crops(*PICTURE, "full", INPUT) == ([Crop(0, 0, 256, 340)], PICTURE)
    assert view_crops(128, 170, "full", (112, 112)).size == (128, 170)
    assert view_crops(256, 340, "full", (112, 112)).size == (128, 170)


def test_the_full_view_of_small_data_is_the_whole_picture_at_the_inputs_size():
    assert view_crops(64, 80, "full", (64, 80), reference=REFERENCE["mild"]) == ([Crop(0, 0, 64, 80)], (64, 80))
    assert view_crops(128, 160, "full", (64, 80), reference=1.0).size == (64, 80)


def test_crops_of_the_older_protocols():
    center = Crop(16, 58, 224, 224)
    corners = [Crop(0, 0, 224, 224), Crop(0, 116, 224, 224), Crop(32, 0, 224, 224), Crop(32, 116, 224, 224)]
    assert view_crops(*PICTURE, "center", INPUT) == ([center], INPUT)
    assert view_crops(*PICTURE, "5", INPUT) == ([*corners, center], INPUT)
    assert view_crops(*PICTURE, "10", INPUT) == view_crops(*PICTURE, "5", INPUT)
    assert view_crops(*PICTURE, "3", INPUT).crops == [Crop(16, 0, 224, 224), center, Crop(16, 116, 224, 224)]
    assert [crop.top for crop in view_crops(340, 256, "3", INPUT).crops] == [0, 58, 116]


def test_three_crops_lie_along_the_side_with_more_room():
    wide = view_crops(100, 200, "3", (32, 128), reference=1.0).crops  # a box of 50 x 200: the width is full
    assert [(crop.top, crop.left) for crop in wide] == [(0, 0), (25, 0), (50, 0)]
    for picture, size in [
        ((216, 456), (96, 200)),
        ((456, 216), (200, 96)),
        ((128, 456), (96, 200)),
        ((228, 128), INPUT),
    ]:
        seen = [np.zeros(side, bool) for side in picture]
        for crop in view_crops(*picture, "3", size).crops:
            seen[0][crop.top : crop.top + crop.height] = True
            seen[1][crop.left : crop.left + crop.width] = True
        room = [side - shown for side, shown in zip(picture, (crop.height, crop.width), strict=True)]
        assert seen[int(np.argmax(room))].all()
