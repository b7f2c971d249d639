"""The colours of flow: the published wheel, and what it must show."""

import colorsys
import math

import numpy as np
import pytest
import torch
from torchvision.utils import flow_to_image

from pipelines.drawing.colour import HUES, colour_wheel, flow_to_colour, wheel_key

# Where the pure colours stand, by the published numbers of hues: RY 15, YG 6, GC 4, CB 11, BM 13, MR 6.
CORNERS = {
    0: (255, 0, 0),
    15: (255, 255, 0),
    21: (0, 255, 0),
    25: (0, 255, 255),
    36: (0, 0, 255),
    49: (255, 0, 255),
}


def colour_of(x: float, y: float, max_flow: float = 1.0) -> tuple[int, ...]:
    return tuple(flow_to_colour(np.array([[[x]], [[y]]]), max_flow)[0, 0].tolist())


def naive(x: float, y: float, max_flow: float) -> list[int]:
    """One pixel, in plain Python."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return [0, 0, 0]
    x, y = x / max_flow, y / max_flow
    length = math.sqrt(x * x + y * y)
    place = (math.atan2(-y, -x) / math.pi + 1) / 2 * 54
    before = int(place)
    mixed = []
    for channel in range(3):
        first, second = (float(colour_wheel()[hue % 55, channel]) for hue in (before, before + 1))
        pure = first + (place - before) * (second - first)
        mixed.append(int(255 * (1 - length * (1 - pure) if length <= 1 else 0.75 * pure)))
    return mixed


def test_the_wheel_has_the_published_hues() -> None:
    wheel = np.rint(255 * colour_wheel()).astype(int)
    assert wheel.shape == (HUES, 3) == (55, 3)
    assert {place: tuple(wheel[place].tolist()) for place in CORNERS} == CORNERS
    # Each hue has one full and one empty component, and neighbours differ in one component only.
    assert (wheel.max(axis=1) == 255).all()
    assert (wheel.min(axis=1) == 0).all()
    assert ((wheel != np.roll(wheel, 1, axis=0)).sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("direction", "colour"),
    [((1, 0), (255, 0, 0)), ((0, 1), (255, 229, 0)), ((-1, 0), (0, 209, 255)), ((0, -1), (88, 0, 255))],
    ids=["right: red", "down: yellow", "left: light blue", "up: violet"],
)
def test_known_directions_have_the_published_colours(direction: tuple[int, int], colour: tuple[int, ...]) -> None:
    assert colour_of(*direction) == colour
    assert colour_of(*(3.5 * part for part in direction), max_flow=3.5) == colour


def test_right_is_red_with_a_negative_zero_too() -> None:
    assert colour_of(1.0, -0.0) == colour_of(1.0, 0.0) == (255, 0, 0)


def test_no_motion_is_white_at_any_scale() -> None:
    for scale in (1e-3, 1, 1e3):
        assert colour_of(0, 0, scale) == colour_of(-0.0, -0.0, scale) == (255, 255, 255)


def test_opposite_directions_have_opposite_hues() -> None:
    for angle in np.linspace(0, np.pi, 181):
        there, back = (
            colorsys.rgb_to_hsv(*colour_of(sign * np.cos(angle), sign * np.sin(angle), 1.0001))[0] for sign in (1, -1)
        )
        apart = abs(there - back)
        assert min(apart, 1 - apart) > 0.3  # of a full turn, whose half is the most there is


def test_speed_is_strength_up_to_the_scale_and_longer_flow_is_darker() -> None:
    assert [colour_of(speed, 0, 4)[1] for speed in (0, 1, 2, 3, 4)] == [255, 191, 127, 63, 0]
    assert colour_of(4.01, 0, 4) == colour_of(400, 0, 4) == (191, 0, 0)


def test_unknown_flow_is_black_and_harms_no_other_pixel() -> None:
    flow = np.zeros((2, 2, 2), np.float32)
    flow[0, 0, 0], flow[1, 1, 1] = np.nan, np.inf
    assert flow_to_colour(flow, 1).tolist() == [[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]]


def test_each_pixel_is_as_by_itself() -> None:
    flow = np.random.default_rng(0).normal(0, 2, (2, 21, 30))
    flow[:, 5, 6] = 0
    flow[0, 7, 8] = np.nan
    expected = np.array([[naive(*flow[:, row, column], 4.0) for column in range(30)] for row in range(21)])
    assert np.abs(flow_to_colour(flow, 4.0).astype(int) - expected).max() <= 1  # rounded down, on either side
    assert (flow_to_colour(flow, 4.0) == expected).mean() > 0.999


def test_pictures_agree_with_torchvisions() -> None:
    flow = np.random.default_rng(1).normal(0, 3, (5, 2, 50, 60)).astype(np.float32)
    theirs = flow_to_image(torch.from_numpy(flow)).permute(0, 2, 3, 1).numpy()  # scaled to the longest of the batch
    ours = flow_to_colour(flow, np.hypot(flow[:, 0], flow[:, 1]).max() * (1 + 1e-6))
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert (ours == theirs).mean() > 0.999


@pytest.mark.parametrize("scale", [0, -1, np.inf, np.nan])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="max_flow must be a positive number"):
        flow_to_colour(np.zeros((2, 1, 1)), scale)


@pytest.mark.parametrize("diameter", [40, 101])
def test_the_key_shows_each_motion_where_it_leads_to(diameter: int) -> None:
    wheel, coverage = wheel_key(diameter)
    middle, end = diameter // 2, diameter - 1
    assert wheel.shape == (diameter, diameter, 3)
    assert wheel[middle, middle].min() > 240
    for (row, column), direction in {
        (middle, end): (1, 0), (end, middle): (0, 1), (middle, 0): (-1, 0), (0, middle): (0, -1)
    }.items():  # fmt: skip
        assert np.abs(wheel[row, column].astype(int) - colour_of(*direction)).max() <= 20
    assert coverage[0, 0] == 0
    assert coverage[middle, middle] == 1
    assert coverage.sum() == pytest.approx(math.pi / 4 * (diameter - 1) ** 2, rel=0.01)
