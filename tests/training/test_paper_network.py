"""paper.md 2 and 7, where they say what the recipe's networks hold."""

import dataclasses

import pytest
import torch
from torch import nn

from pipelines import train
from pipelines.models import STResNet
from pipelines.models.temporal import TemporalConv
from pipelines.training.recipes import PAPER

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@pytest.fixture(scope="module")
def paper_networks():
    """The network that each step of the recipe `paper` builds, without memory."""

    def build(name):
        config = train.Config("nowhere", recipe="paper")
        step = config.step(name)
        pool = {"dropout": step.dropout, "temporal_pool": step.temporal_pool, "streams": step.streams}
        with torch.device("meta"):
            return STResNet(**dataclasses.asdict(config.network(101)), **pool)

    return {name: build(name) for name in PAPER.default_steps}


def test_both_streams_are_resnets_of_50_layers_for_rgb_and_20_flow_channels(paper_networks):
    network = paper_networks["joint1"]
    for stream, channels in ((network.appearance, 3), (network.motion, 20)):
        assert stream.conv1.weight.shape == (64, channels, 7, 7)
        assert tuple(len(stage) for stage in stream.stages) == BLOCKS[50]
        assert stream.fc.weight.shape == (101, 2048)


def test_the_steps_streams_dropout_and_pooling(paper_networks):
    found = {
        name: (
            tuple(network.streams),
            {stream.dropout.p for stream in network.streams.values()},
            {
                stream.temporal_pool and (stream.temporal_pool.size, stream.temporal_pool.stride)
                for stream in network.streams.values()
            },
        )
        for name, network in paper_networks.items()
    }
    assert found == {
        "appearance": (("appearance",), {0.0}, {None}),
        "motion": (("motion",), {0.8}, {None}),
        "joint1": (("appearance", "motion"), {0.0}, {None}),
        "joint2": (("appearance", "motion"), {0.0}, {(5, 2)}),
    }


@pytest.mark.parametrize("depth", BLOCKS)
def test_eight_temporal_kernels_a_stream_in_block_b_of_every_stage_at_any_depth(depth):
    """The authors' name match reaches stages 2 and 5 only in the deeper networks; ours all four."""
    with torch.device("meta"):
        network = STResNet(5, depth=depth)
    expected = [f"layer{stage}.1.conv{place}" for stage in (1, 2, 3, 4) for place in (1, 3)]
    for stream in network.streams.values():
        found = {name: layer for name, layer in stream.named_modules() if isinstance(layer, TemporalConv)}
        assert list(found) == expected
        assert {layer.weight.shape[2:] for layer in found.values()} == {(3, 1, 1)}


def test_the_stride_is_in_the_3x3_no_convolution_has_a_bias_and_pooling_is_padded_alike():
    """Torchvision's ResNet, not Caffe's."""
    with torch.device("meta"):
        stream = STResNet(5, streams=("appearance",)).appearance
    for number, stage in enumerate(stream.stages):
        strides = [getattr(stage[0], name).stride for name in ("conv2",)]
        assert strides == [(1, 1) if number == 0 else (2, 2)]
        assert stage[0].conv1.stride == (1, 1)
    assert {layer.bias for layer in stream.modules() if isinstance(layer, nn.Conv2d)} == {None}
    assert STResNet(5, depth=26, width=2).appearance.stem(torch.zeros(1, 1, 3, 224, 224)).shape == (1, 2, 56, 56)


def test_dropout_is_of_the_pooled_features_and_keeps_their_mean():
    """Rate 0.8: four fifths of the classifier's inputs are zero, the others five times as large; none while testing."""
    torch.manual_seed(0)
    network = STResNet(5, depth=26, width=16, dropout=PAPER.steps["motion"].dropout, streams=("motion",)).eval()
    inputs = []
    network.motion.fc.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    flow = torch.randn(4, 2, 20, 32, 32)
    with torch.no_grad():
        network(None, flow)
        network.motion.dropout.train()
        network(None, flow)
    plain, dropped = inputs
    assert plain.shape == (8, 512)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 5 * plain[kept])
    assert kept[plain != 0].float().mean().item() == pytest.approx(0.2, abs=0.03)
