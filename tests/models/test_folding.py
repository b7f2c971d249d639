"""Batch norm folded into the convolutions: the same logits, and nothing left of it."""

import itertools

import pytest
import torch
from torch import nn

from pipelines.models import temporal
from pipelines.models.folding import folded


def logits(network, dtype=torch.float32):
    """Of two videos of five frames."""
    generator = torch.Generator().manual_seed(1)
    rgb, flow = (torch.randn(2, 5, channels, 32, 40, generator=generator).to(dtype) for channels in (3, 6))
    with torch.inference_mode():
        return [values for values in network(rgb, flow) if values is not None]


NETWORKS = {
    "temporal": {},
    "frames alone": {"temporal_kernels": False},
    "multiplicative, both ways": {"fusion": "multiply", "direction": "both"},
    "pooled": {"temporal_pool": (3, 1)},
    "one stream": {"streams": ("motion",)},
}


@pytest.mark.parametrize("large", [0, float("inf")], ids=["by products", "by convolution"])
@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_a_folded_network_gives_the_same_logits(settings, large, small_net, monkeypatch):
    monkeypatch.setattr(temporal, "LARGE_PRODUCTS", large)
    network = small_net(**settings)
    for found, expected in zip(logits(folded(network)), logits(network), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        assert expected.std() > 0.1, "the test would not see a difference"


def test_folding_is_exact_up_to_rounding(small_net):
    network = small_net().double()
    for found, expected in zip(logits(folded(network), torch.float64), logits(network, torch.float64), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * float(expected.abs().max()))


def test_nothing_is_left_to_normalise_and_the_weights_lie_as_they_did(small_net):
    network = small_net()
    after = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in after.modules())
    assert not after.training
    assert not any(parameter.requires_grad for parameter in after.parameters())
    for name, value in after.state_dict().items():
        if name.endswith("conv2.weight"):
            assert value.stride() == network.state_dict()[name].stride()


def test_the_network_itself_stays_as_it_is(small_net):
    network = small_net().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded(network)
    assert network.training
    assert list(network.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_folding_twice_changes_nothing(small_net):
    once = folded(small_net())
    for found, expected in itertools.zip_longest(logits(folded(once)), logits(once)):
        assert torch.equal(found, expected)
