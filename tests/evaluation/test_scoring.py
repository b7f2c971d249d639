"""`Scorer`: the logits of one video against the same average computed step by step in float64."""

import copy
import json

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.preparation import Prepare
from pipelines.datasets.samples import TestSamples
from pipelines.datasets.sampling import windows
from pipelines.errors import MissingError
from pipelines.evaluation import scoring
from pipelines.evaluation.scoring import Scorer, shortest_window
from pipelines.models import STResNet
from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.workspace import Workspace

CPU = torch.device("cpu")
CLASSES, STACK = 5, 4
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_network(**settings):
    """A network of width 4 with nothing left at a default, so that any slip moves its logits."""
    torch.manual_seed(0)
    network = STResNet(CLASSES, **{"depth": 26, "width": 4, "flow_channels": 2 * STACK, **settings})
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
    return network


def make_views(views=3, frames=6, height=32, width=40):
    generator = torch.Generator().manual_seed(1)
    shape = (views, frames, 3 + 2 * STACK, height, width)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return pixels[:, :, :3], pixels[:, :, 3:]


def normalised(rgb, flow):
    """paper.md 1.3 and 1.4: ImageNet's mean and deviation on 0..1; (value - 128) / 57.6."""
    mean, deviation = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (MEAN, DEVIATION))
    return (rgb.double() / 255 - mean) / deviation, (flow.double() - 128) / 57.6


@torch.no_grad()
def score_by_hand(network, rgb, flow, cuts):
    """Each view and window through a float64 network on its own; then all the time steps of each averaged."""
    network = copy.deepcopy(network).double().eval()
    found = {"appearance": [], "motion": []}
    for view in range(len(rgb)):
        for cut in cuts:
            logits = network(*normalised(rgb[view : view + 1, cut], flow[view : view + 1, cut]))
            for name, values in logits._asdict().items():
                found[name].append(torch.stack(list(values[0])).mean(0))
    return {name: torch.stack(values).mean(0) for name, values in found.items()}


def assert_same_scores(found, expected, tolerance=1e-4):
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], expected[name], rtol=tolerance, atol=tolerance)
        assert expected[name].std() > 100 * tolerance, "the test would not see a difference"


@pytest.mark.parametrize(("length", "pool"), [(6, None), (4, None), (1, None), (6, (2, 1)), (4, (3, 1))])
def test_a_score_is_the_mean_over_views_windows_and_time(length, pool):
    network, (rgb, flow) = make_network(temporal_pool=pool), make_views()
    cuts = windows(6, length)
    assert_same_scores(Scorer(network, CPU).mean(rgb, flow, cuts), score_by_hand(network, rgb, flow, cuts))


def test_scores_that_are_not_finite_end_the_test_with_what_to_do():
    network, (rgb, flow) = make_network(), make_views(views=1, frames=1)
    network.motion.fc.bias.data[0] = float("inf")
    with pytest.raises(MissingError, match=r"motion scores are not finite numbers: .*lower --lr.*--overwrite"):
        Scorer(network, CPU).mean(rgb, flow, [[0]])


def test_one_frame_and_one_view_are_enough():
    network, (rgb, flow) = make_network(), make_views(views=1, frames=1)
    assert_same_scores(Scorer(network, CPU).mean(rgb, flow, [[0]]), score_by_hand(network, rgb, flow, [[0]]))


@pytest.mark.parametrize("at_once", [1, 4, 7])
def test_how_many_frames_go_through_the_network_at_once_changes_nothing(monkeypatch, at_once):
    network, (rgb, flow) = make_network(), make_views()
    cuts = windows(6, 2)
    expected = Scorer(network, CPU).mean(rgb, flow, cuts)
    batches = []
    network.appearance.conv1.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    monkeypatch.setattr(scoring, "FRAMES_AT_ONCE", at_once)
    assert_same_scores(Scorer(network, CPU).mean(rgb, flow, cuts), expected, 1e-5)
    assert sum(batches) == 3 * 3 * 2
    assert max(batches) <= max(2, at_once)  # never less than one window


def test_a_network_that_looks_at_single_frames_does_not_care_how_they_are_cut():
    network, (rgb, flow) = make_network(temporal_kernels=False), make_views()
    scorer = Scorer(network, CPU)
    assert_same_scores(scorer.mean(rgb, flow, windows(6, 2)), scorer.mean(rgb, flow, windows(6, 6)), 1e-5)


def test_temporal_kernels_see_what_stands_in_their_window():
    scorer, (rgb, flow) = Scorer(make_network(), CPU), make_views()
    cut, whole = scorer.mean(rgb, flow, windows(6, 2)), scorer.mean(rgb, flow, windows(6, 6))
    assert all((cut[name] - whole[name]).abs().max() > 1e-2 for name in whole)


def test_the_network_averages_the_predictions_of_every_place():
    """Fully convolutional: the classifier at each place of the last feature map, averaged, as paper.md 4.1 has it."""
    network, (rgb, flow) = make_network(), make_views(height=64, width=96)
    features = {}
    for name, stream in network.streams.items():
        stream.layer4[1].register_forward_hook(lambda _, __, out, name=name: features.update({name: out}))
    found = Scorer(network, CPU).mean(rgb, flow, [list(range(6))])
    for name, stream in network.streams.items():
        assert features[name].shape[2:] == (2, 3)
        places = features[name].permute(0, 2, 3, 1)
        with torch.no_grad():
            expected = stream.fc(places).mean((0, 1, 2)).double()
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-4)


def test_the_network_is_tested_in_evaluation_mode_and_left_as_it_was():
    network, (rgb, flow) = make_network(dropout=0.5).train(), make_views()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    scorer = Scorer(network, CPU)
    first, second = (scorer.mean(rgb, flow, windows(6, 6)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("stream", ["appearance", "motion"])
def test_a_single_stream_network_gives_that_stream_only(stream):
    rgb, flow = make_views()
    given = (rgb, None) if stream == "appearance" else (None, flow)
    scores = Scorer(make_network(streams=(stream,)), CPU).mean(*given, windows(6, 6))
    assert list(scores) == [stream]
    assert scores[stream].shape == (CLASSES,)


def test_half_precision_rounds_the_forward_pass_and_not_the_averages():
    network, (rgb, flow) = make_network(), make_views()
    full, half = (Scorer(network, CPU, precision).mean(rgb, flow, windows(6, 6)) for precision in ("fp32", "bf16"))
    for name in full:
        assert half[name].dtype == torch.float64
        assert not torch.equal(half[name], full[name])
        torch.testing.assert_close(half[name], full[name], rtol=0.1, atol=0.1)


@pytest.mark.parametrize(("pool", "shortest"), [(None, 1), ((5, 2), 5)])
def test_the_shortest_window_is_what_the_network_pools_over(pool, shortest):
    assert shortest_window(make_network(temporal_pool=pool)) == shortest


# ------------------------------------------------------------------ from artifacts


def write_video(workspace: Workspace, video: str, pictures: np.ndarray, fields: np.ndarray) -> None:
    """The pictures are of one colour in each of a JPEG's blocks of 8x8 pixels: of others, a mirrored JPEG is not the
    JPEG of the mirrored one."""
    exact = [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    height, width = pictures.shape[1:3]
    about = {"fps": 25.0, "source": video, "source_sha256": video, "source_frames": len(pictures)}
    about |= {"short_side": height, "width": width, "height": height}
    with new_frames_file(workspace.frames_file("jump", video)) as file:
        for picture in pictures:
            file.append(cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), exact)[1])
        file.finish(about)
    settings = {"method": "farneback", "method_parameters": json.dumps({}), "bound": 20.0, "step": 1}
    with new_flow_file(workspace.flow_file("jump", video)) as file:
        file.append(fields)
        file.finish(about | settings | {"flow_input": "video"})


@pytest.fixture
def mirrored_workspace(tmp_path):
    """One video, the same seen in a mirror, and the same in a mirror that forgets to turn the x-flow round."""
    workspace = Workspace(tmp_path / "work")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 4, 5, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    fields = rng.integers(0, 256, (7, 2, 32, 40), dtype=np.uint8)
    flipped = fields[..., ::-1]
    turned = flipped.copy()
    turned[:, 0] = 255 - turned[:, 0]
    write_video(workspace, "original", pictures, fields)
    write_video(workspace, "mirrored", pictures[:, :, ::-1], turned)
    write_video(workspace, "not turned", pictures[:, :, ::-1], flipped)
    return workspace


def samples(workspace, **settings):
    """The test samples by the names of their videos."""
    videos = load_catalogue(workspace).videos
    defaults = {"size": (32, 32), "crops": 3, "reference": 1.0, "stack": STACK}
    data_set = TestSamples(videos, [0] * len(videos), **(defaults | settings))
    return {video.video: data_set[index] for index, video in enumerate(videos)}


@pytest.mark.parametrize("views", ["full", "center", "3", "10"])
def test_with_mirrors_a_mirrored_video_scores_as_the_video_does(mirrored_workspace, views):
    scorer = Scorer(make_network(), CPU)
    cuts = windows(3, 3)
    found = {
        name: scorer.mean(sample.rgb, sample.flow, cuts)
        for name, sample in samples(mirrored_workspace, views=views).items()
    }
    assert_same_scores(found["mirrored"], found["original"], 1e-5)
    assert (found["not turned"]["motion"] - found["original"]["motion"]).abs().max() > 1e-2


def test_without_mirrors_a_mirrored_video_scores_otherwise(mirrored_workspace):
    scorer = Scorer(make_network(), CPU)
    found = {
        name: scorer.mean(sample.rgb, sample.flow, windows(3, 3))
        for name, sample in samples(mirrored_workspace, views="full", mirror=False).items()
    }
    for stream in ("appearance", "motion"):
        assert (found["mirrored"][stream] - found["original"][stream]).abs().max() > 1e-2


def test_fully_convolutional_at_the_training_size_is_the_plain_forward_on_the_center_view(mirrored_workspace):
    network = make_network()
    settings = {"size": (32, 40), "mirror": False}
    full = samples(mirrored_workspace, views="full", **settings)["original"]
    center = samples(mirrored_workspace, views="center", **settings)["original"]
    found = Scorer(network, CPU).mean(full.rgb, full.flow, windows(3, 3))
    with torch.no_grad():
        logits = copy.deepcopy(network).double().eval()(*(x.double() for x in Prepare()(center.rgb, center.flow)))
    expected = {name: values[0].mean(0) for name, values in logits._asdict().items()}
    assert_same_scores(found, expected)
