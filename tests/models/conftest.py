"""Small networks whose every tensor matters, and inputs for them."""

import pytest
import torch
from torch import nn

from pipelines.models import STResNet


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def small_net():
    """Makes an `STResNet` of depth 26 and width 4 for 5 classes, 6 flow channels, with nothing left at a default."""

    def make(**settings):
        return randomised(STResNet(5, **{"depth": 26, "width": 4, "flow_channels": 6, **settings}))

    return make


@pytest.fixture
def clip():
    """Makes normalised rgb and flow of 2 videos of T frames."""

    def make(frames=3, height=32, width=40, *, flow_channels=6, dtype=torch.float32):
        rgb = torch.randn(2, frames, 3, height, width, dtype=dtype)
        return rgb, torch.randn(2, frames, flow_channels, height, width, dtype=dtype)

    return make


def randomised(model):
    """Batch norms away from the identity, so that a test sees which one is used where; classifiers large."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
            nn.init.normal_(module.bias)
    return model.eval()


@pytest.fixture(name="randomised")
def _randomised():
    return randomised
