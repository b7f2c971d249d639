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
