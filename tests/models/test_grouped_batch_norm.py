"""Batch norm of several micro-batches at once, against torch's of each alone."""

import pytest
import torch
from torch import nn

from pipelines.models.grouped_batch_norm import GroupedBatchNorm


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_statistics_gradients_and_running_moments_are_those_of_each_part_alone(monkeypatch, compiled, layout):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)  # what a compiler is given
    torch.manual_seed(0)
    x, weights = torch.randn(2, 6, 5, 4, 3, dtype=torch.float64) * 3 + torch.arange(6).view(6, 1, 1, 1)
    x = x.contiguous(memory_format=layout).requires_grad_()
    ours = GroupedBatchNorm(5, momentum=0.05).double()
    nn.init.normal_(ours.weight)
    alone = nn.BatchNorm2d(5, momentum=0.05).double()
    alone.load_state_dict(ours.state_dict())
    ours.groups = 3
    y = ours(x)
    (y * weights).sum().backward()
    dx, x.grad = x.grad, None
    before = {name: value.clone() for name, value in alone.named_buffers()}
    moved = {"running_mean": 0.0, "running_var": 0.0}
    expected = []
    for part, weight in zip(x.split(2), weights.split(2), strict=True):
        alone.load_state_dict(before, strict=False)
        expected.append(alone(part))
        (expected[-1] * weight).sum().backward()
        moved = {name: value + getattr(alone, name) / 3 for name, value in moved.items()}
    torch.testing.assert_close(y, torch.cat(expected))
    torch.testing.assert_close(dx, x.grad)
    for parameter, peer in zip(ours.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, peer.grad)
    for name, value in moved.items():
        torch.testing.assert_close(getattr(ours, name), value)
    assert ours.num_batches_tracked == 3
    torch.testing.assert_close(ours.eval()(x), nn.functional.batch_norm(x, *moved.values(), ours.weight, ours.bias))
