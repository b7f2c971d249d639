"""Temporal kernels and temporal pooling (paper.md 2.2 and 2.3)."""

import pytest
import torch
import torch.nn.functional as F

from pipelines.errors import UsageError
from pipelines.models import temporal
from pipelines.models.temporal import TemporalConv, TemporalMaxPool


@pytest.mark.parametrize("large", [0, float("inf")], ids=["by products", "by convolution"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_convolution_and_its_gradients_are_those_of_conv3d_of_each_video(frames, memory_format, large, monkeypatch):
    monkeypatch.setattr(temporal, "LARGE_PRODUCTS", large)
    layer = TemporalConv(6, 4, "random").double()
    x = torch.randn(3 * frames, 6, 4, 5, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    videos = x.view(3, frames, 6, 4, 5).transpose(1, 2)
    expected = F.conv3d(videos, layer.weight, padding=(1, 0, 0)).transpose(1, 2).flatten(0, 1)
    found = layer(x, frames)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    gradients = [torch.autograd.grad(y, (x, layer.weight), upstream) for y in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_average_starts_with_a_third_of_the_1x1_weights_in_each_tap():
    pointwise = torch.randn(4, 6, 1, 1)
    taps = TemporalConv(6, 4, "average").inflate(pointwise)
    assert taps.shape == (4, 6, 3, 1, 1)
    assert all(torch.equal(taps[:, :, tap], pointwise / 3) for tap in range(3))


def test_center_starts_with_the_1x1_weights_in_the_middle_tap_and_zeros_outside():
    pointwise = torch.randn(4, 6, 1, 1)
    taps = TemporalConv(6, 4, "center").inflate(pointwise)
    assert torch.equal(taps[:, :, 1], pointwise)
    assert not taps[:, :, 0].any()
    assert not taps[:, :, 2].any()


def test_random_starts_from_kaiming_fan_out_over_all_taps_and_not_from_the_1x1_weights():
    taps = TemporalConv(64, 128, "random").inflate(torch.zeros(128, 64, 1, 1))
    torch.testing.assert_close(taps.std(), torch.tensor((2 / (3 * 128)) ** 0.5), rtol=0.05, atol=0)
    assert not torch.equal(taps[:, :, 0], taps[:, :, 1])


def test_from_scratch_the_taps_are_those_of_a_fresh_1x1_convolution():
    averaged = TemporalConv(64, 128, "average").weight
    torch.testing.assert_close(averaged.std(), torch.tensor((2 / 128) ** 0.5 / 3), rtol=0.05, atol=0)
    assert torch.equal(averaged[:, :, 0], averaged[:, :, 2])


def test_average_kernels_leave_a_constant_video_unchanged_away_from_its_ends(small_net, clip):
    """Eight layers reach one frame further each: frames 8 .. T-9 see nothing of the zero padding."""
    averaged, pointwise = small_net(temporal_init="average"), small_net(temporal_kernels=False)
    state = averaged.state_dict()
    pointwise.load_state_dict({k: v.sum(2) if v.ndim == 5 else v for k, v in state.items()})
    rgb, flow = (x[:1].expand(-1, 19, -1, -1, -1) for x in clip(frames=1))
    with torch.no_grad():
        for ours, expected in zip(averaged(rgb, flow), pointwise(rgb, flow), strict=True):
            torch.testing.assert_close(ours[:, 8:-8], expected[:, 8:-8], rtol=1e-4, atol=1e-4)
            assert not torch.allclose(ours[:, :8], expected[:, :8], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("frames", "size", "stride", "left"), [(11, 5, 2, 4), (5, 5, 2, 1), (6, 5, 2, 1), (4, 1, 3, 2)]
)
def test_pooling_is_the_maximum_over_size_frames_every_stride(frames, size, stride, left):
    x = torch.randn(2 * frames, 3, 4, 5)
    pooled, count = TemporalMaxPool(size, stride)(x, frames)
    assert count == left
    videos = x.view(2, frames, 3, 4, 5)
    expected = [videos[:, i * stride : i * stride + size].amax(dim=1) for i in range(left)]
    assert torch.equal(pooled.view(2, left, 3, 4, 5), torch.stack(expected, dim=1))


def test_pooling_too_few_frames_says_how_many_are_needed(small_net, clip):
    with pytest.raises(UsageError, match="at least T = 5 frames a video, got T = 4"):
        small_net(temporal_pool=(5, 2))(*clip(frames=4))


@pytest.mark.parametrize(("frames", "left"), [(5, 1), (11, 4), (12, 4), (25, 11)])
def test_the_network_classifies_each_step_that_pooling_leaves(small_net, clip, frames, left):
    net = small_net(temporal_pool=(5, 2))
    with torch.no_grad():
        assert [x.shape for x in net(*clip(frames=frames))] == [(2, left, 5)] * 2


def test_pooling_comes_after_the_last_relu_and_before_the_classifier(small_net, clip):
    """With one video of equal frames and center taps, the maximum over time changes nothing."""
    pooled, plain = small_net(temporal_pool=(3, 1), temporal_init="center"), small_net(temporal_init="center")
    plain.load_state_dict(pooled.state_dict())
    rgb, flow = (x.expand(-1, 3, -1, -1, -1) for x in clip(frames=1))
    for ours, expected in zip(pooled(rgb, flow), plain(rgb, flow), strict=True):
        torch.testing.assert_close(ours, expected[:, :1])
