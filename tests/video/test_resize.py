"""The size at which frames are stored, and how they get there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines import extract_frames
from pipelines.errors import UsageError
from pipelines.video.resize import resize, resize_on, stored_size


@pytest.mark.parametrize(
    ("size", "short_side", "stored"),
    [
        ((320, 240), 256, (340, 256)),  # the paper's
        ((240, 320), 256, (256, 340)),
        ((454, 256), 256, (454, 256)),
        ((455, 256), 256, (454, 256)),
        ((80, 64), 128, (160, 128)),  # enlarging, since it was asked for
        ((1920, 1080), 256, (454, 256)),
        ((100, 100), 33, (33, 33)),
        ((101, 100), 33, (33, 33)),  # never below the short side
    ],
)
def test_the_short_side_is_exact_and_the_long_one_the_floor_made_even(
    size: tuple[int, int], short_side: int, stored: tuple[int, int]
) -> None:
    assert stored_size(*size, short_side) == stored


@pytest.mark.parametrize(
    ("size", "stored"),
    [
        ((320, 240), (340, 256)),
        ((432, 240), (460, 256)),
        ((1280, 720), (454, 256)),
        ((273, 205), (340, 256)),
        ((272, 204), (272, 204)),
        ((80, 64), (80, 64)),
        ((81, 65), (81, 65)),
    ],
)
def test_unasked_the_short_side_is_256_but_nothing_grows_by_more_than_a_quarter(
    size: tuple[int, int], stored: tuple[int, int]
) -> None:
    assert stored_size(*size, None) == stored


@pytest.mark.parametrize("size", [(150, 113), (61, 41)])
def test_resizing_is_bicubic_without_aliasing_as_pillow_defines_it(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (83, 110, 3), dtype=np.uint8)
    reference = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    difference = np.abs(resize(picture, *size).astype(int) - reference.astype(int))
    assert difference.max() <= 2  # the noise overshoots, and rows and columns go in another order
    assert difference.mean() < 0.05


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    assert resize(picture, 6, 4) is picture


@pytest.mark.parametrize("short_side", [0, -1, 15, 8193])
def test_senseless_short_sides_are_refused_by_flag(short_side: int) -> None:
    with pytest.raises(UsageError, match=f"--short-side {short_side}: give an integer from 16 to 8192"):
        extract_frames.Config(Path("work"), "videos", short_side)


@pytest.mark.parametrize("before", [(320, 240), (640, 480), (33, 47), (500, 19)])
@pytest.mark.parametrize("after", [(340, 256), (160, 120), (33, 300), (17, 16)])
def test_any_device_resizes_to_the_same_bytes(before: tuple[int, int], after: tuple[int, int]) -> None:
    width, height = before
    pictures = np.random.default_rng(width).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    pictures[1] = pictures[1] // 128 * 255  # overshoots are cut
    found = resize_on(torch.from_numpy(pictures), *after).numpy()
    assert np.array_equal(found, np.stack([resize(picture, *after) for picture in pictures]))
