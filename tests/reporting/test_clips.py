"""Clips of the page that play: frame beside flow, at most so many bytes, and what the tested network saw in them."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipelines import evaluate as evaluate_stage
from pipelines.drawing.colour import flow_to_colour
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import read_scores
from pipelines.prediction.attention import class_maps, draw_attention, strongest
from pipelines.prediction.predictor import DecodedVideo, Predictor
from pipelines.report import Config, Result, run
from pipelines.reporting import clip_pictures, thumbnails
from pipelines.reporting.attention import ClipAttention
from pipelines.reporting.clip_pictures import Sheet
from pipelines.reporting.evaluations import load_evaluation
from pipelines.storage.flow_file import FlowFile, new_flow_file
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.quantise import quantise
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run
from tests.helpers.workspaces import Trained

Evaluate = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("no_pictures")
SETTINGS = {"crops": 7, "step": "joint2", "device": "cpu", "workers": 1}
CPU = torch.device("cpu")


def clips_of(result: Result) -> dict[str, list]:
    """What the page has of each clip that has pictures, by its id."""
    page = Path(result.files["report.html"]).read_text("utf-8")
    data = json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])
    return {data["clips"]["ids"][int(index)]: pictures for index, pictures in data["thumbnails"].items()}


def pictures_of(sheet: dict) -> np.ndarray:
    """The pictures of a clip that plays, [T, H, W, 3]."""
    coded = np.frombuffer(base64.b64decode(sheet["uri"].removeprefix("data:image/jpeg;base64,")), np.uint8)
    every = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
    pictures = every.reshape(sheet["pictures"], -1, *every.shape[1:])
    assert sheet["ratio"] == pytest.approx(pictures.shape[2] / pictures.shape[1], abs=1e-4)
    return pictures


def write_frames(workspace: Workspace, video: str, count: int, fps: float) -> None:
    """Noise, each frame brighter than the one before."""
    noise = np.random.default_rng(0).integers(0, 20, (count, 24, 32, 1), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    with new_frames_file(workspace.frames_file("bend", video)) as frames:
        for number in range(count):
            frames.append(cv2.imencode(".jpg", (noise[number] + 2 * number).repeat(3, 2))[1])
        frames.finish({"source_frames": count}, np.arange(count) / fps)


def test_two_seconds_from_the_middle_play_at_their_own_speed(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(classes=("bend", "jump"), videos=3)
    write_frames(workspace, "v0", 100, 25)
    write_frames(workspace, "v1", 25, 25)
    write_frames(workspace, "v2", 1, 25)
    clips = clips_of(run(Config(workspace.root)))
    pictures = pictures_of(clips["bend/v0"][2])
    assert (pictures.shape, clips["bend/v0"][2]["seconds"]) == ((8, 96, 128, 3), 2)  # frames alone: there is no flow
    shown = (pictures.mean(axis=(1, 2, 3)) - 9.5) / 2
    np.testing.assert_allclose(shown, 25 + np.floor(np.arange(8) * 25 / 4), atol=0.9)  # 1 s to 3 s of 4 s
    assert len(pictures_of(clips["bend/v1"][2])) == 4
    assert clips["bend/v1"][2]["seconds"] == 1  # all of it
    assert len(pictures_of(clips["bend/v2"][2])) == 1
    frame, flow, sheet = clips_of(run(Config(workspace.root, playing=0)))["bend/v0"]
    assert frame
    assert (flow, sheet) == (None, None)


def test_looked_up_colours_are_those_of_the_flow(workspace: Workspace) -> None:
    """But for a 64th of full colour, to which they are rounded, and for the rounding of bytes."""
    angles = np.linspace(-np.pi, np.pi, 32, endpoint=False)
    motion = np.stack([np.cos(angles), np.sin(angles)])[:, None] * np.linspace(0, 3, 24)[:, None]  # px; [2, 24, 32]
    with new_flow_file(workspace.flow_file("bend", "v0")) as flow:
        flow.append(quantise(motion.repeat(8, 1).repeat(8, 2), 20)[None])
        flow.finish({"bound": 20.0, "step": 1, "method": "farneback"})
    with FlowFile(workspace.flow_file("bend", "v0")) as fields:
        made = clip_pictures.small_flow(fields, [0, 1], (32, 24))
    assert (made[0] == made[1]).all()  # the last frame has the flow before it
    assert np.abs(made[0].astype(int) - flow_to_colour(motion, 3))[:-1].mean() < 5  # the fastest is beyond full colour
    assert (made[0, 0] == 255).all()  # no motion is white


def test_clips_stop_playing_where_they_would_fill_the_page(
    workspace: Workspace, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = read_scores(evaluate() / "scores.h5")
    workspace.frames.mkdir()

    def made(workspace: Workspace, video: str, source: str, look: object) -> thumbnails.Thumbnail:
        return thumbnails.Thumbnail(sheet=Sheet("x" * 400, 8, 1)) if look else thumbnails.Thumbnail("x" * 60, "x" * 40)

    def counted(playing: int) -> tuple[int, int]:
        all_of = thumbnails.thumbnails(workspace, [scores], 20, lambda done, total: None, playing=playing)
        assert sum(each.bytes for each in all_of.values()) <= thumbnails.MOST_BYTES
        return len(all_of), sum(each.sheet is not None for each in all_of.values())

    monkeypatch.setattr(thumbnails, "_thumbnail", made)
    assert counted(20) == (20, 20)
    monkeypatch.setattr(thumbnails, "MOST_PLAYING_BYTES", 1300)
    assert counted(20) == (20, 3)
    assert counted(2) == (20, 2)
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 2000)
    assert counted(20) == (11, 3)


@pytest.fixture
def tested(own_trained_on_videos: Trained) -> Trained:
    evaluate_stage.run(evaluate_stage.Config(own_trained_on_videos.workspace.root, **SETTINGS))
    return own_trained_on_videos


def test_attention_is_that_of_predict_and_its_mean_the_score(tested: Trained) -> None:
    workspace = tested.workspace
    result = run(Config(workspace.root, attention=True, device="cpu"))
    (folder,) = (workspace.scores / "split1").iterdir()
    evaluation = load_evaluation(folder)
    scores, attention = evaluation.scores, ClipAttention(workspace, evaluation, CPU)
    predictor = Predictor(Run(workspace.runs / "split1"), attention.protocol, CPU)
    for number, video in enumerate(scores.videos):
        maps = attention.maps(video)[0]
        pixels = DecodedVideo(predictor, tested.video(video), lambda done, total: None).pixels
        predicted = class_maps(predictor.scorer, predictor.cuts, *predictor.views(pixels))
        for stream in ("appearance", "motion"):
            np.testing.assert_allclose(maps[stream], predicted[stream], rtol=1e-4, atol=1e-5)
            mean = maps[stream].mean((0, 2, 3))
            np.testing.assert_allclose(mean, scores.streams[stream][number], rtol=1e-4, atol=1e-4)

        guess = int(scores.streams["fused"][number].argmax())
        seen = attention.look(video, guess)
        pictures = pictures_of(clips_of(result)[video][2])
        assert pictures.shape == (len(pictures), 2 * 32, 2 * 40, 3)
        scales = strongest([seen])
        for place, picture in enumerate(pictures):
            index = place * 25 // 4
            for stream, part in (("appearance", picture[:, :40]), ("motion", picture[:, 40:])):
                expected = draw_attention(part[:32], seen, stream, index, scales[stream])
                assert np.abs(part[32:].astype(int) - expected).mean() < 12  # both coded with loss
    assert "show what speaks for the predicted class" in Path(result.files["report.html"]).read_text("utf-8")


def test_attention_of_another_video_than_was_tested_is_not_shown(tested: Trained) -> None:
    (folder,) = (tested.workspace.scores / "split1").iterdir()
    evaluation = load_evaluation(folder)
    attention, video = ClipAttention(tested.workspace, evaluation, CPU), evaluation.scores.videos[0]
    attention.sources[video] = "another"
    assert attention.look(video, 0) is None
    assert attention.look("jump/unknown", 0) is None


def test_attention_needs_the_network_and_a_test_of_whole_frames(tested: Trained, evaluate: Evaluate) -> None:
    root = tested.workspace.root
    with pytest.raises(MissingError, match=r"--attention needs the network that was tested, and .*split1 has none"):
        run(Config(evaluate().parents[2], attention=True))
    folder = evaluate_stage.run(evaluate_stage.Config(root, **SETTINGS, views="center")).folder
    with pytest.raises(UsageError, match=r"--attention needs a test of whole frames .*--protocol"):
        run(Config(root, attention=True, protocol=folder.name))
