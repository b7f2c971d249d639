"""Each stream against torchvision's ResNet, frame by frame."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from pipelines.models import STResNet, load_torchvision_state

BLOCKS = {26: [2, 2, 2, 2], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
CLASSES = 7


def pair(randomised, stream, depth, **settings):
    """An `STResNet` of one class of stream, and torchvision's ResNet with the same weights."""
    theirs = ResNet(Bottleneck, BLOCKS[depth], num_classes=CLASSES)
    if stream == "motion":
        theirs.conv1 = nn.Conv2d(20, 64, 7, stride=2, padding=3, bias=False)
    for module in randomised(theirs).modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.05  # paper.md 3.2
    ours = STResNet(CLASSES, depth=depth, temporal_init="center", **settings).eval()
    load_torchvision_state(ours, theirs.state_dict(), stream)
    getattr(ours, stream).fc.load_state_dict(theirs.fc.state_dict())
    return ours, theirs


def frame_by_frame(theirs, x):
    return torch.stack([theirs(x[:, t]) for t in range(x.shape[1])], dim=1)


@pytest.mark.parametrize(
    ("stream", "channels", "depth", "height", "width", "alone"),
    [
        ("appearance", 3, 26, 45, 37, False),
        ("motion", 20, 26, 45, 37, False),
        ("appearance", 3, 50, 64, 64, True),
        ("motion", 20, 50, 64, 64, True),
    ],
)
def test_a_stream_without_fusion_and_with_center_taps_is_torchvisions_frame_by_frame(
    randomised, stream, channels, depth, height, width, alone
):
    settings = {"streams": (stream,)} if alone else {"fusion": "none"}
    ours, theirs = pair(randomised, stream, depth, **settings)
    ours.double()
    theirs.double()
    x = torch.randn(2, 3, channels, height, width, dtype=torch.float64)
    other = None if alone else torch.randn(2, 3, 23 - channels, height, width, dtype=torch.float64)
    inputs = (x, other) if stream == "appearance" else (other, x)
    with torch.no_grad():
        torch.testing.assert_close(getattr(ours(*inputs), stream), frame_by_frame(theirs, x))


def test_in_training_outputs_and_running_moments_are_torchvisions_of_the_same_frames_as_a_batch(randomised):
    ours, theirs = pair(randomised, "appearance", 26, streams=("appearance",))
    ours.double().train()
    theirs.double().train()
    x = torch.randn(2, 3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x, None).appearance.flatten(0, 1), theirs(x.flatten(0, 1)))
    for name, value in theirs.state_dict().items():
        if "running" in name or "tracked" in name:
            torch.testing.assert_close(ours.state_dict()[f"appearance.{name}"], value)


@pytest.mark.parametrize("depth", [26, 50, 101, 152])
def test_keys_are_torchvisions_and_so_are_shapes_except_where_the_paper_changes_them(depth):
    with torch.device("meta"):
        theirs = ResNet(Bottleneck, BLOCKS[depth], num_classes=CLASSES).state_dict()
        ours = STResNet(CLASSES, depth=depth).state_dict()
    assert list(ours) == [f"{stream}.{key}" for stream in ("appearance", "motion") for key in theirs]
    changed = {key for key, value in ours.items() if value.shape != theirs[key.split(".", 1)[1]].shape}
    temporal = {
        f"{stream}.layer{stage}.1.{conv}.weight"
        for stream in ("appearance", "motion")
        for stage in (1, 2, 3, 4)
        for conv in ("conv1", "conv3")
    }
    assert changed == temporal | {"motion.conv1.weight"}
    assert all(ours[key].shape == (*theirs[key.split(".", 1)[1]].shape[:2], 3, 1, 1) for key in temporal)
    assert ours["motion.conv1.weight"].shape == (64, 20, 7, 7)


def test_without_temporal_kernels_every_shape_but_the_first_motion_layers_is_torchvisions():
    with torch.device("meta"):
        theirs = ResNet(Bottleneck, BLOCKS[26], num_classes=CLASSES).state_dict()
        ours = STResNet(CLASSES, depth=26, temporal_kernels=False).state_dict()
    changed = {key for key, value in ours.items() if value.shape != theirs[key.split(".", 1)[1]].shape}
    assert changed == {"motion.conv1.weight"}
