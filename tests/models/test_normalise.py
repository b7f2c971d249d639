"""Normalisation: from uint8 to the network's floats."""

import numpy as np
import pytest
import torch
from torchvision.models import ResNet50_Weights

from pipelines.errors import UsageError
from pipelines.models import Normalise


def test_it_is_the_papers_arithmetic_on_every_byte():
    rgb = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(1, 1, 3, 16, 16)
    flow = torch.arange(256, dtype=torch.uint8).repeat(20, 1).view(1, 1, 20, 16, 16)
    normal_rgb, normal_flow = Normalise()(rgb, flow)
    preset = ResNet50_Weights.IMAGENET1K_V1.transforms()
    mean, deviation = (np.array(x).reshape(3, 1, 1) for x in (preset.mean, preset.std))
    np.testing.assert_allclose(normal_rgb[0, 0], (rgb[0, 0].double().numpy() / 255 - mean) / deviation, atol=1e-6)
    np.testing.assert_allclose(normal_flow, (flow.double().numpy() - 128) / 57.6, atol=1e-6)
    assert normal_rgb.dtype == normal_flow.dtype == torch.float32


def test_no_motion_becomes_exactly_zero():
    _, flow = Normalise()(None, torch.full((2, 4, 4), 128, dtype=torch.uint8))
    assert not flow.any()


def test_what_is_absent_stays_absent():
    assert Normalise()(None, None) == (None, None)


def test_its_constants_enter_no_state_dict():
    assert not Normalise().state_dict()


def test_what_was_normalised_before_is_refused():
    with pytest.raises(UsageError, match=r"rgb must be uint8.*float32"):
        Normalise()(torch.zeros(3, 4, 4), None)
    with pytest.raises(UsageError, match=r"\[\.\.\., 3, H, W\], got \[4, 4, 3\]"):
        Normalise()(torch.zeros(4, 4, 3, dtype=torch.uint8), None)


@pytest.mark.parametrize(("camera_motion", "of_levels"), [("mean", np.mean), ("median", None)])
@pytest.mark.parametrize("shape", [(2, 3, 20, 7, 9), (4, 6, 8)])
def test_the_cameras_motion_is_the_mean_or_median_displacement_of_each_field(camera_motion, of_levels, shape):
    bound, levels = 20, np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    pixels = levels.astype(np.float64) * 2 * bound / 255 - bound
    expected = np.empty_like(pixels)
    for place in np.ndindex(shape[:-2]):
        ordered = sorted(pixels[place].ravel())  # of an even number of pixels, the lower of the two in the middle
        camera = of_levels(pixels[place]) if of_levels else ordered[(len(ordered) - 1) // 2]
        expected[place] = (pixels[place] - camera) * 255 / (2 * bound) / 57.6
    _, flow = Normalise(camera_motion=camera_motion)(None, torch.from_numpy(levels))
    np.testing.assert_allclose(flow, expected, atol=2e-6)


@pytest.mark.parametrize("camera_motion", ["mean", "median"])
def test_a_camera_that_pans_makes_no_difference(camera_motion):
    still = torch.randint(40, 200, (3, 2, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    panned = still + torch.tensor([30, -17]).view(2, 1, 1).to(torch.uint8)
    normalise = Normalise(camera_motion=camera_motion)
    torch.testing.assert_close(normalise(None, panned)[1], normalise(None, still)[1], atol=1e-5, rtol=0)
    assert not torch.allclose(Normalise()(None, panned)[1], Normalise()(None, still)[1])


@pytest.mark.parametrize("camera_motion", ["mean", "median"])
def test_an_exported_graph_subtracts_the_same(camera_motion):
    normalise = Normalise(camera_motion=camera_motion)
    flow = torch.arange(240, dtype=torch.uint8).view(1, 2, 10, 12).flip(-1)
    exported = torch.export.export(normalise, (None, flow)).module()
    assert torch.equal(exported(None, flow)[1], normalise(None, flow)[1])
