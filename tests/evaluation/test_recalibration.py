"""`recalibrate_batch_norm`: statistics over all clips, against those of a float64 pass by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.evaluation import recalibration
from pipelines.evaluation.recalibration import recalibrate_batch_norm
from pipelines.models import STResNet

CPU = torch.device("cpu")


def network(**settings):
    torch.manual_seed(0)
    return STResNet(3, depth=26, width=4, flow_channels=4, dropout=0.5, **settings)


def clips(count, frames=3, height=32, width=32):
    generator = torch.Generator().manual_seed(frames)
    shape = (count, 2, frames, 7, height, width)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return [(clip[:, :, :3], clip[:, :, 3:]) for clip in pixels]


def norms(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}


def test_the_first_norm_gets_the_statistics_of_all_pixels_of_all_clips():
    model = network()
    given = clips(3) + clips(2, height=48)
    assert recalibrate_batch_norm(model, given, CPU) == 5
    kernels = model.motion.conv1.weight.detach().double()
    inputs = [(flow.double().flatten(0, 1) - 128) / 57.6 for _, flow in given]
    outputs = [torch.nn.functional.conv2d(x, kernels, stride=2, padding=3) for x in inputs]
    values = torch.cat([y.transpose(0, 1).flatten(1) for y in outputs], dim=1).numpy()
    norm = norms(model)["motion.bn1"]
    np.testing.assert_allclose(norm.running_mean, values.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.running_var, values.var(1, ddof=1), rtol=1e-5)


def test_on_one_batch_the_network_then_tests_as_it_would_train():
    """With the statistics of a batch in place, evaluation gives that batch what normalising by itself gives it."""
    model = network()
    given = clips(2, frames=10, height=64)
    recalibrate_batch_norm(model, given, CPU)
    rgb, flow = (torch.cat(parts).double() for parts in zip(*given, strict=True))
    rgb, flow = rgb / 255, (flow - 128) / 57.6
    rgb = (rgb - rgb.new_tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / rgb.new_tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    model = model.double()
    with torch.no_grad():
        tested = model(rgb, flow)
        for norm in norms(model).values():
            norm.train()
        by_itself = model(rgb, flow)
    for one, other in zip(tested, by_itself, strict=True):
        # The variance that is kept is the unbiased one: n/(n-1) of it, of 80 values and more.
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05 * float(other.abs().max()))


def test_nothing_but_the_running_statistics_changes_and_the_network_is_left_in_evaluation_mode():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    momenta = [norm.momentum for norm in norms(model).values()]
    recalibrate_batch_norm(model, clips(2), CPU)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} <= {"running_mean", "running_var", "num_batches_tracked"}
    assert {f"{name}.running_mean" for name in norms(model)} <= changed
    assert not any(module.training for module in model.modules())
    assert [norm.momentum for norm in norms(model).values()] == momenta


def test_how_clips_fall_into_batches_hardly_matters_for_the_first_norm(monkeypatch):
    together, alone = network(), network()
    recalibrate_batch_norm(together, clips(4), CPU)
    monkeypatch.setattr(recalibration, "PIXELS_AT_ONCE", 1)
    recalibrate_batch_norm(alone, clips(4), CPU)
    for name in ("running_mean", "running_var"):
        one, other = (getattr(model.appearance.bn1, name) for model in (together, alone))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_without_any_clip_it_says_so():
    with pytest.raises(ValueError, match="at least one clip"):
        recalibrate_batch_norm(network(), [], CPU)
