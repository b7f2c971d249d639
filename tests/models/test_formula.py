"""The network against the formulas of paper.md 2.1 to 2.3, written out in `reference_st_resnet`."""

import pytest
import torch
import torch.nn.functional as F

from pipelines.models.blocks import BlockOutput, Bottleneck
from tests.helpers.reference_st_resnet import reference_logits

DIRECTIONS = ("motion-to-appearance", "appearance-to-motion", "both", "none")


def assert_same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("fusion", ["add", "multiply", "none"])
def test_both_streams_equal_the_reference(small_net, clip, fusion, direction):
    net = small_net(fusion=fusion, direction=direction, temporal_init="random").double()
    rgb, flow = clip(dtype=torch.float64)
    appearance, motion = reference_logits(net.state_dict(), rgb, flow, fusion=fusion, direction=direction)
    logits = net(rgb, flow)
    assert_same(logits.appearance, appearance)
    assert_same(logits.motion, motion)


def test_in_training_batch_norm_takes_all_frames_of_all_videos(small_net, clip):
    net = small_net().double().train()
    rgb, flow = clip(frames=4, height=64, width=64, dtype=torch.float64)
    expected = reference_logits(net.state_dict(), rgb, flow, training=True)
    for actual, reference in zip(net(rgb, flow), expected, strict=True):
        assert_same(actual, reference)


def test_gradients_equal_the_references(small_net, clip):
    net = small_net(direction="both", temporal_pool=(2, 1)).double()
    rgb, flow = clip(frames=3, dtype=torch.float64)
    parameters = dict(net.named_parameters())
    actual = torch.autograd.grad(sum(x.square().sum() for x in net(rgb, flow)), list(parameters.values()))
    logits = reference_logits({**net.state_dict(), **parameters}, rgb, flow, direction="both", temporal_pool=(2, 1))
    expected = torch.autograd.grad(sum(x.square().sum() for x in logits), list(parameters.values()))
    for gradient, reference in zip(actual, expected, strict=True):
        assert_same(gradient, reference)


def test_deeper_networks_connect_at_block_b_only(small_net, clip):
    net = small_net(depth=50).double()
    rgb, flow = clip(frames=2, dtype=torch.float64)
    expected = reference_logits(net.state_dict(), rgb, flow, depth=50)
    for actual, reference in zip(net(rgb, flow), expected, strict=True):
        assert_same(actual, reference)


@pytest.mark.parametrize("fusion", ["add", "multiply"])
def test_injected_block_b_is_fxa_plus_F_of_xa_combined_with_fxm(small_net, randomised, fusion):
    """The formula by hand for one block, with unrectified x_a in the sum and rectified x_a on the shortcut."""
    block = randomised(Bottleneck(16, 4, temporal="random")).double()
    frames, videos = 3, 2
    xa, xm = torch.randn(2, videos * frames, 16, 5, 7, dtype=torch.float64)
    a, m = BlockOutput(xa, xa.relu()), BlockOutput(xm, xm.relu())
    out = block(a.after_relu, frames, small_net(fusion=fusion).connected(a, m, "motion-to-appearance"))

    def bn(name, x):
        layer = getattr(block, name)
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    def over_time(x, weight):
        x = x.view(videos, frames, *x.shape[1:]).transpose(1, 2)
        return F.conv3d(x, weight, padding=(1, 0, 0)).transpose(1, 2).flatten(0, 1)

    combined = xa + xm.clamp(min=0) if fusion == "add" else xa * xm.clamp(min=0)
    y = bn("bn1", over_time(combined, block.conv1.weight)).relu()
    y = bn("bn2", F.conv2d(y, block.conv2.weight, padding=1)).relu()
    expected = xa.clamp(min=0) + bn("bn3", over_time(y, block.conv3.weight))
    assert_same(out, expected.clamp(min=0))


def test_an_opened_block_gives_the_same_and_what_stands_before_its_relu(randomised):
    block = randomised(Bottleneck(8, 4, stride=2)).double()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    before, after = block.opened(x, 1)
    assert_same(after, block(x, 1))
    assert_same(before.clamp(min=0), after)
    assert (before < 0).any()


def test_zero_motion_features_add_nothing(small_net, clip):
    """f(x_m) = 0 leaves f(x_a) + F(x_a), whatever the motion input and weights are.

    This is not the unconnected f(x_a) + F(f(x_a)): x_a enters the sum before its ReLU (paper.md 2.1). The two agree
    where x_a is nowhere negative, which the next test shows.
    """
    net = small_net()
    rgb, flow = clip()
    _silence_block_a(net.motion)
    first = net(rgb, flow).appearance
    torch.nn.init.normal_(net.motion.conv1.weight)
    assert torch.equal(first, net(rgb, 3 * flow).appearance)
    assert not torch.allclose(first, _unconnected(net, small_net)(rgb, flow).appearance)


def test_zero_motion_features_leave_a_non_negative_appearance_unchanged(small_net, clip):
    net = small_net()
    rgb, flow = clip()
    _silence_block_a(net.motion)
    for stage in net.appearance.stages:
        _make_non_negative(stage[0])
    torch.testing.assert_close(net(rgb, flow).appearance, _unconnected(net, small_net)(rgb, flow).appearance)


@pytest.mark.parametrize("fusion", ["add", "multiply"])
def test_the_appearance_loss_reaches_every_motion_weight_before_the_last_connection(small_net, clip, fusion):
    net = small_net(fusion=fusion)
    net(*clip()).appearance.square().sum().backward()
    reached = {name for name, parameter in net.motion.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in net.motion.named_parameters() if not name.startswith(("layer4.1", "fc"))}
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in net.motion.named_parameters() if name in reached)


def test_the_motion_stream_gets_nothing_from_appearance(small_net, clip):
    net = small_net()
    rgb, flow = clip()
    logits = net(rgb, flow)
    logits.motion.sum().backward()
    assert all(parameter.grad is None for parameter in net.appearance.parameters())
    assert torch.equal(logits.motion, net(-rgb, flow).motion)


def _silence_block_a(stream):
    """Block a of every stage gives -1 before its ReLU, so 0 after."""
    for stage in stream.stages:
        for norm in (stage[0].bn3, stage[0].downsample[1]):
            torch.nn.init.zeros_(norm.weight)
            torch.nn.init.constant_(norm.bias, -0.5)


def _make_non_negative(block):
    """Shifts both sums of the block so far up that no output is negative before the ReLU."""
    for norm in (block.bn3, block.downsample[1]):
        torch.nn.init.constant_(norm.weight, 0.01)
        torch.nn.init.constant_(norm.bias, 5.0)


def _unconnected(net, small_net):
    other = small_net(fusion="none")
    other.load_state_dict(net.state_dict())
    return other
