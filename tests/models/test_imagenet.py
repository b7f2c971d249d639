"""ImageNet weights: every tensor arrives, and both streams' activations have the scale that batch norm expects.

The weights are made up: torchvision's ResNet-50 with edge filters in front, its batch norms' statistics taken on
pictures as natural ones are, nothing left at a default. docs/recipe.md has the figures of real clips.
"""

import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model_weights

from pipelines.models import Normalise, STResNet, load_pretrained
from pipelines.models.weights import IMAGENET_DEPTHS
from pipelines.storage.quantise import quantise

UCF101 = Path(__file__).parents[3] / "shared" / "data" / "ucf101"
BOUND = 20.0
DEEPER = ("layer1.2.bn3", "layer2.3.bn3", "layer3.5.bn3", "layer4.2.bn3")


def natural_pictures(count: int, size: int = 96) -> torch.Tensor:
    """uint8 [count, 3, size, size] whose amplitudes fall with the frequency, the colours nearly alike; of all kinds of
    brightness, tint and contrast, the last from place to place too."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(count, 4, size, size))
    fine, coarse = _over_frequency(noise, 1), _over_frequency(noise[:, :1, ::-1], 2)
    contrast = rng.uniform(0.1, 1.5, (count, 1, 1, 1)) * np.exp(0.7 * coarse)
    tint = rng.normal(0, 40, (count, 1, 1, 1)) + rng.normal(0, 20, (count, 3, 1, 1))
    pictures = 118 + tint + 50 * contrast * (0.95 * fine[:, :1] + 0.31 * fine[:, 1:])
    return torch.from_numpy(pictures.clip(0, 255).astype(np.uint8))


def _over_frequency(noise: np.ndarray, power: int) -> np.ndarray:
    size = noise.shape[-1]
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)[None])
    frequency[0, 0] = np.inf
    filtered = np.fft.ifft2(np.fft.fft2(noise) / frequency**power).real
    return filtered / filtered.std(axis=(2, 3), keepdims=True)


def lively_flow(count: int, size: int = 96) -> torch.Tensor:
    """Quantised stacks, uint8 [count, 20, size, size]: the camera moves by up to 1 px a frame and a disc of a third of
    the picture by up to 8 px, the same way for ten frames, with estimation noise of 0.2 px."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:size, :size]
    stacks = []
    for _ in range(count):
        place, camera, speed = rng.uniform(0.3, 0.7, 2) * size, rng.uniform(-1, 1, 2), rng.uniform(-8, 8, 2)
        disc = np.hypot(y - place[0], x - place[1]) < size / 6
        field = camera[:, None, None] + speed[:, None, None] * disc + rng.normal(0, 0.2, (10, 2, size, size))
        stacks.append(quantise(field.reshape(20, size, size).astype(np.float32), BOUND))
    return torch.from_numpy(np.stack(stacks))


def edge_filters(count: int) -> torch.Tensor:
    """[count, 3, 7, 7]: windowed waves of all directions and lengths, two in three gray, one of opponent colours."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[-3:4, -3:4]
    filters = np.empty((count, 3, 7, 7))
    for number in range(count):
        angle, phase = rng.uniform(0, [math.pi, 2 * math.pi])
        length, width = rng.uniform([3, 1.5], [12, 2.5])
        wave = np.cos(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / length + phase)
        colours = [1, 1, 1] if number % 3 else rng.permutation([1, -0.5, -0.5])
        filters[number] = np.multiply.outer(colours, 0.1 * wave * np.exp(-(x**2 + y**2) / (2 * width**2)))
    return torch.from_numpy(filters).float()


@pytest.fixture(scope="module")
def made_up():
    """Torchvision's ResNet-50, in evaluation mode, and the pictures its statistics are of."""
    torch.manual_seed(0)
    resnet = torchvision.models.resnet50(weights=None)
    resnet.conv1.weight.data = edge_filters(64)
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, std=0.1)
    pictures = natural_pictures(16)
    with torch.no_grad():
        resnet.train()(Normalise()(pictures, None)[0])
    return resnet.eval(), pictures


@pytest.fixture(scope="module")
def filled(made_up, tmp_path_factory):
    """An `STResNet` of depth 50 filled by `imagenet` from a hub folder that holds the made-up weights."""
    resnet, _ = made_up
    hub = tmp_path_factory.mktemp("hub")
    file = hub / "checkpoints" / torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    file.parent.mkdir()
    torch.save(resnet.state_dict(), file)
    network = STResNet(5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "get_dir", lambda: str(hub))
        load_pretrained(network, "imagenet")
    file.unlink()  # 100 MB
    return network.eval()


def test_every_tensor_of_both_streams_arrives(made_up, filled):
    given = made_up[0].state_dict()
    for name, stream in filled.streams.items():
        arrived = stream.state_dict()
        assert arrived.keys() == given.keys()
        for key, value in arrived.items():
            if key == "conv1.weight" and name == "motion":
                expected = torch.stack([given[key].mean(1)] * 20, dim=1)  # paper.md 2.5
            elif value.ndim == 5:
                expected = torch.stack([given[key] / 3] * 3, dim=2)  # paper.md 2.2
            elif key.startswith("fc."):
                expected = None  # paper.md 2.6: new
            else:
                expected = given[key]
            assert expected is None or torch.equal(value, expected), f"{name} {key}"
        assert stream.fc.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not stream.fc.bias.any()


@pytest.mark.parametrize("depth", IMAGENET_DEPTHS)
def test_torchvisions_networks_have_the_keys_and_shapes_of_ours(depth):
    with torch.device("meta"):
        ours = STResNet(1000, depth=depth, temporal_kernels=False, streams=("appearance",)).appearance.state_dict()
        theirs = torchvision.models.get_model(f"resnet{depth}", weights=None).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("depth", IMAGENET_DEPTHS)
def test_the_weights_expect_what_normalise_gives(depth):
    preset = get_model_weights(f"resnet{depth}")["IMAGENET1K_V1"].transforms()
    white = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    given, _ = Normalise()(white, None)
    expected = [(1 - mean) / deviation for mean, deviation in zip(preset.mean, preset.std, strict=True)]
    assert given.flatten().tolist() == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------------ scale


def variance_ratios(stream: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """For each batch norm the variance of what it is given over its running variance, by channel."""
    found = {}

    def note(name):
        def hook(norm, given):
            found[name] = given[0].var(dim=(0, 2, 3)) / norm.running_var

        return hook

    norms = [(name, module) for name, module in stream.named_modules() if isinstance(module, nn.BatchNorm2d)]
    handles = [module.register_forward_pre_hook(note(name)) for name, module in norms]
    with torch.no_grad():
        features = stream.stem(x)
        for stage in stream.stages:
            features = stage.from_block_b(stage.block_a(features, 1), None, 1)
    for handle in handles:
        handle.remove()
    return found


@pytest.fixture(scope="module")
def frame_by_frame(filled):
    """The same weights without kernels over time, which at the ends of a video see zeros."""
    state = {key: value.sum(2) if value.ndim == 5 else value for key, value in filled.state_dict().items()}
    network = STResNet(5, temporal_kernels=False)
    network.load_state_dict(state)
    return network.eval()


def test_pictures_have_exactly_the_scale_of_the_statistics(made_up, frame_by_frame):
    rgb, _ = Normalise()(made_up[1], None)
    ratios = variance_ratios(frame_by_frame.appearance, rgb[:, None])
    for name, ratio in ratios.items():
        assert ratio.median().item() == pytest.approx(1, rel=0.1), name


def medians(ratios: dict[str, torch.Tensor]) -> dict[str, float]:
    """Over channels; at the first batch norm over the gray filters', since opponent colours average to nothing."""
    first = ratios["bn1"][torch.arange(64) % 3 != 0]
    return {"bn1": first.median().item()} | {name: ratios[name].median().item() for name in DEEPER}


def test_flow_of_lively_motion_has_the_scale_of_the_statistics(frame_by_frame):
    _, flow = Normalise()(None, lively_flow(8))
    found = medians(variance_ratios(frame_by_frame.motion, flow[:, None]))
    assert all(0.05 < median < 20 for median in found.values()), found


@pytest.mark.skipif(not UCF101.is_dir(), reason="no real clips")
def test_flow_of_real_clips_is_weaker_at_first_but_of_the_statistics_scale_in_deeper_layers(frame_by_frame):
    """Most of their picture stands still, so that edge filters find less in it than in an image."""
    flow = torch.from_numpy(np.stack([real_stack(clip) for clip in sorted(UCF101.rglob("*.avi"))[1:4]]))
    found = medians(variance_ratios(frame_by_frame.motion, Normalise()(None, flow)[1][:, None]))
    assert 0.01 < found["bn1"] < 10
    assert all(0.1 < found[name] < 10 for name in DEEPER), found


def test_in_training_the_scale_of_the_flow_cancels():
    """Batch norm takes the batch's own statistics then, so only the running moments have to find the flow's scale."""
    torch.manual_seed(0)
    network = STResNet(5, depth=26, width=16, streams=("motion",)).train()
    _, flow = Normalise()(None, lively_flow(4)[:, None])
    with torch.no_grad():
        once, five_times = network(None, flow).motion, network(None, 5 * flow).motion
    torch.testing.assert_close(once, five_times, rtol=0, atol=0.05 * float(five_times.std()))


def real_stack(clip: Path) -> np.ndarray:
    """Quantised flow, uint8 [20, 224, 224], of eleven frames of a clip at a short side of 256."""
    capture = cv2.VideoCapture(str(clip))
    capture.set(cv2.CAP_PROP_POS_FRAMES, 20)
    frames = [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2GRAY) for _ in range(11)]
    frames = [cv2.resize(frame, (340, 256), interpolation=cv2.INTER_CUBIC)[16:240, 58:282] for frame in frames]
    fields = [
        cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0).transpose(2, 0, 1)
        for first, second in itertools.pairwise(frames)
    ]
    return quantise(np.concatenate(fields), BOUND)
