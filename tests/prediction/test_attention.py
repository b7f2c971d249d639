"""What `predict --attention` leaves: maps whose mean is what is predicted, in the video's own left and right."""

import io
import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pipelines import predict
from pipelines.errors import UsageError
from pipelines.evaluation.protocols import Protocol
from pipelines.prediction.attention import Attention, AttentionWriter, class_maps, draw_attention
from pipelines.prediction.predictor import DecodedVideo, Predictor
from pipelines.training.runs import Run

SETTINGS = {"timeline": True, "window": "12f", "hop": "6f", "crops": 7, "step": "joint2", "device": "cpu"}


@pytest.fixture
def predicted(trained_on_videos, tmp_path):
    def call(folder, **settings):
        config = predict.Config(
            [str(trained_on_videos.video("jump/jump2"))],
            trained_on_videos.workspace.root,
            output=tmp_path / folder,
            **SETTINGS | settings,
        )
        return predict.run(config).predictions[0], json.loads((tmp_path / folder / "jump2.json").read_text())

    return call


def test_the_mean_of_a_window_s_maps_is_what_is_predicted_without_them(predicted):
    plain, without = predicted("plain")
    prediction, document = predicted("maps", attention=True, overlay=True)
    maps = np.load(prediction.timeline.files["npy"])
    windows = document["windows"]
    assert maps.dtype == np.float32
    assert maps.shape == (len(windows), 2, 2, 2, 1, 2)  # two streams, two steps of (7 frames - 5) // 2 + 1, two classes
    assert document["attention"]["streams"] == ["appearance", "motion"]
    means = maps.mean(axis=(2, 4, 5), dtype=np.float64)
    for logits, window in zip(means, without["windows"], strict=True):
        for stream, values in zip(("appearance", "motion"), logits, strict=True):
            expected = torch.from_numpy(values).softmax(0)
            np.testing.assert_allclose(window["probabilities"][stream], expected, atol=2e-6)
    for name, values in plain.logits.items():
        np.testing.assert_allclose(prediction.logits[name], values, rtol=1e-5, atol=1e-6)
    # Centers 5 and 6 of 12 frames are the only ones with a whole stack.
    assert all(
        window["start_frame"] + 5 <= step <= window["end_frame"] for window in windows for step in window["step_frames"]
    )
    assert "npy" not in plain.timeline.files
    assert "attention" not in without
    with av.open(str(prediction.timeline.files["mp4"])) as container:
        assert sum(1 for _ in container.decode(video=0)) == 24


@pytest.mark.parametrize("temporal", ["sequence", "windows"])
def test_maps_of_the_mirror_image_are_turned_back(trained_on_videos, temporal):
    run, protocol = Run(trained_on_videos.workspace.runs / "split1"), Protocol("appearance", 3, "full", True, temporal)
    both, one = (Predictor(run, replace(protocol, mirror=mirror), torch.device("cpu")) for mirror in (True, False))
    pixels = DecodedVideo(one, trained_on_videos.video("jump/jump2"), lambda done, total: None).pixels
    turned = replace(pixels, frames=np.ascontiguousarray(pixels.frames[:, :, ::-1]))
    found, plain, mirrored = (
        class_maps(by.scorer, by.cuts, *by.views(of))["appearance"]
        for by, of in ((both, pixels), (one, pixels), (one, turned))
    )
    np.testing.assert_allclose(found, (plain + mirrored[..., ::-1]) / 2, rtol=1e-4, atol=1e-4)
    assert found.shape == (3, 2, 1, 2)
    assert np.abs(plain - plain[..., ::-1]).max() > 1e-3, "the test would not see maps turned"


def test_what_speaks_for_the_class_is_drawn_where_and_when_it_was_seen():
    maps = np.zeros((2, 3, 4))
    maps[1, 2, 1], maps[1, 0, 3] = 2.0, -5.0
    attention = Attention({"motion": maps}, [4.0, 9.0], (np.arange(3) / 3, np.arange(4) / 4))
    grey = np.full((60, 80, 3), 100, np.uint8)
    np.testing.assert_array_equal(draw_attention(grey, attention, "motion", 6, 2.0), grey)  # nearer to the first step
    change = np.abs(draw_attention(grey, attention, "motion", 7, 2.0).astype(int) - grey).max(-1)
    assert change[40:, 16:24].min() > 0.8 * change.max()
    assert change[:20].max() == change[:, 40:].max() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timeline": False, "window": None, "hop": None}, "--attention goes with --timeline only"),
        ({"views": "5"}, "--attention needs whole frames: leave --views 5 out"),
    ],
)
def test_attention_needs_windows_and_whole_frames(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        predict.Config(["a.avi"], tmp_path, attention=True, **SETTINGS | settings)


def test_a_video_that_is_gone_through_once_more_leaves_nothing_of_the_first_time():
    file = io.BytesIO()
    file.write(b"maps of more windows")
    AttentionWriter(None, Path("maps.npy"), file).restart()
    assert (file.getvalue(), file.tell()) == (b"", 0)
