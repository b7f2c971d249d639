"""What `STResNet` takes, gives and refuses."""

import inspect
import math

import pytest
import torch

from pipelines.errors import UsageError
from pipelines.models import StreamLogits, STResNet


def test_the_signature_that_other_programs_rely_on():
    parameters = list(inspect.signature(STResNet).parameters.values())[:7]
    assert [(p.name, p.default) for p in parameters[1:]] == [
        ("depth", 50),
        ("width", 64),
        ("flow_channels", 20),
        ("fusion", "add"),
        ("temporal_kernels", True),
        ("temporal_pool", None),
    ]
    assert StreamLogits._fields == ("appearance", "motion")


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 40), (4, 33, 47), (2, 61, 35), (7, 20, 9)])
def test_any_number_of_frames_and_any_image_size(small_net, clip, frames, height, width):
    with torch.no_grad():
        logits = small_net()(*clip(frames, height, width))
    assert logits.appearance.shape == logits.motion.shape == (2, frames, 5)
    assert all(x.isfinite().all() for x in logits)


@pytest.mark.parametrize("depth", [26, 50, 101, 152])
def test_depth_counts_the_layers(depth):
    with torch.device("meta"):
        net = STResNet(3, depth=depth, width=2, streams=("appearance",))
    layers = [key for key in net.state_dict() if "conv" in key or key.endswith("fc.weight")]
    assert len(layers) == depth


def test_width_scales_every_channel_count():
    with torch.device("meta"):
        wide, narrow = STResNet(3, depth=26).state_dict(), STResNet(3, depth=26, width=16).state_dict()
    for key, value in wide.items():
        if value.ndim:
            assert value.shape[0] == narrow[key].shape[0] * (1 if ".fc." in key and value.shape[0] == 3 else 4), key


def test_videos_do_not_see_each_other(small_net, clip):
    net = small_net(temporal_init="random").double()
    rgb, flow = clip(dtype=torch.float64)
    with torch.no_grad():
        together, alone = net(rgb, flow), net(rgb[1:], flow[1:])
    for batch, single in zip(together, alone, strict=True):
        torch.testing.assert_close(batch[1:], single)


def test_a_stream_alone_has_the_keys_and_values_it_has_in_the_unconnected_pair(small_net, clip):
    pair = small_net(fusion="none")
    rgb, flow = clip()
    for name, inputs in (("appearance", (rgb, None)), ("motion", (None, flow))):
        alone = small_net(streams=(name,))
        alone.load_state_dict({k: v for k, v in pair.state_dict().items() if k.startswith(name)})
        logits = alone(*inputs)
        torch.testing.assert_close(getattr(logits, name), getattr(pair(rgb, flow), name))
        assert sum(x is None for x in logits) == 1
        assert list(alone.streams) == [name]


def test_new_classifiers_and_moving_averages_start_as_the_paper_says():
    net = STResNet(50, depth=26, width=16)
    for stream in net.streams.values():
        assert math.isclose(stream.fc.weight.std().item(), 0.01, rel_tol=0.05)
        assert not stream.fc.bias.any()
    assert {m.momentum for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.05}


def test_dropout_acts_before_the_classifiers_in_training_only(small_net, clip):
    net = small_net(dropout=0.8)
    rgb, flow = clip()
    assert torch.equal(net(rgb, flow).motion, net(rgb, flow).motion)
    net.motion.dropout.train()
    assert not torch.equal(net(rgb, flow).motion, net(rgb, flow).motion)


def test_kernels_keep_their_memory_order_through_a_state_dict_and_gradients_have_the_same(small_net, clip):
    net, other = small_net(), small_net()
    other.load_state_dict(net.state_dict())
    sum(logits.sum() for logits in other(*clip())).backward()
    assert other.motion.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert other.motion.layer1[1].conv3.weight.is_contiguous(memory_format=torch.channels_last_3d)
    for name, parameter in other.named_parameters():
        assert parameter.grad.stride() == parameter.stride(), name  # DistributedDataParallel warns of others


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 18}, "depth 18 is not known: give one of 26, 50, 101, 152"),
        ({"width": 0}, "width 0: give an integer of at least 1"),
        ({"flow_channels": 0}, "flow_channels 0: give an integer of at least 1"),
        ({"fusion": "sum"}, "fusion 'sum' is not known: give one of add, multiply, none"),
        (
            {"direction": "up"},
            "direction 'up' is not known: give one of motion-to-appearance, appearance-to-motion, both, none",
        ),
        ({"temporal_init": "zero"}, "temporal_init 'zero' is not known: give one of average, center, random"),
        ({"temporal_pool": (5,)}, r"temporal_pool must be \(size, stride\), each at least 1, got \(5,\)"),
        ({"temporal_pool": (5, 0)}, r"got \(5, 0\)"),
        ({"dropout": 1.0}, "dropout 1.0: give a number of at least 0 and below 1"),
        ({"streams": ()}, "one or both of appearance, motion"),
        ({"streams": "motion"}, "got 'motion'"),
        ({"streams": ("flow",)}, "got \\('flow',\\)"),
    ],
)
def test_settings_that_do_not_fit_are_named_with_the_accepted_ones(small_net, settings, message):
    with pytest.raises(UsageError, match=message):
        small_net(**settings)


def test_inputs_that_do_not_fit_are_named_with_their_shape(small_net, clip):
    net = small_net()
    rgb, flow = clip()
    with pytest.raises(UsageError, match=r"rgb must be \[B, T, 3, H, W\], got \[2, 3, 32, 40\]"):
        net(rgb[:, 0], flow)
    with pytest.raises(UsageError, match=r"flow must be \[B, T, 6, H, W\], got \[2, 3, 4, 32, 40\]"):
        net(rgb, flow[:, :, :4])
    with pytest.raises(UsageError, match=r"rgb \[2, 3, 3, 32, 40\] and flow \[2, 2, 6, 32, 40\]"):
        net(rgb, flow[:, :2])
    with pytest.raises(UsageError, match=r"same videos, frames and pixels"):
        net(rgb[..., :32], flow)
    with pytest.raises(UsageError, match="flow is None"):
        net(rgb, None)
    with pytest.raises(UsageError, match="uint8: pass it through Normalise"):
        net(rgb.byte(), flow)
