"""Class activation maps: weights times features at every pixel, whose mean is the logit; and where the pixels are."""

import numpy as np
import pytest
import torch

from pipelines.models import STResNet
from pipelines.prediction.attention import _CELL


@pytest.mark.parametrize("pool", [None, (3, 2)])
def test_maps_are_weights_times_features_plus_bias_and_their_mean_is_the_logit(pool):
    torch.manual_seed(0)
    network = STResNet(5, depth=26, width=4, temporal_pool=pool, dropout=0.5).double().eval()
    rgb, flow = torch.randn(2, 6, 3, 64, 96).double(), torch.randn(2, 6, 20, 64, 96).double()
    with torch.inference_mode():
        features, logits = network.feature_maps(rgb, flow), network(rgb, flow)
        for name, stream in network.streams.items():
            found = stream.class_activation_maps(features[name]).numpy()
            weight, bias = stream.fc.weight.numpy(), stream.fc.bias.numpy()
            assert found.shape == (2, 6 if pool is None else 2, 5, 2, 3)
            for place in np.ndindex(found.shape[:2]):
                for label, row, column in np.ndindex(found.shape[2:]):
                    pixel = features[name][(*place, slice(None), row, column)].numpy()
                    expected = sum(w * x for w, x in zip(weight[label], pixel, strict=True)) + bias[label]
                    assert found[(*place, label, row, column)] == pytest.approx(expected, rel=1e-10, abs=1e-12)
            np.testing.assert_allclose(found.mean((3, 4)), getattr(logits, name), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["v1.5", "v1"])
def test_a_pixel_of_a_map_looks_at_the_place_where_it_is_drawn(form):
    """The center of its gradient, averaged over random networks, is that many pixels of the input from the corner."""
    row, column, side = 3, 4, 224
    weight = torch.zeros(side, side)
    for seed in range(3):
        torch.manual_seed(seed)
        network = STResNet(2, depth=26, width=4, streams=("appearance",), resnet=form).eval()
        rgb = torch.randn(1, 1, 3, side, side, requires_grad=True)
        network.feature_maps(rgb, None)["appearance"][..., row, column].sum().backward()
        weight += rgb.grad.square().sum((0, 1, 2)) / rgb.grad.square().sum()
    along = torch.arange(side)
    found = [float((weight.sum(dim) * along).sum() / weight.sum()) for dim in (1, 0)]
    np.testing.assert_allclose(found, [_CELL * row, _CELL * column], atol=_CELL / 4)
