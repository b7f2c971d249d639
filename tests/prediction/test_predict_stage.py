"""The stage `predict`: a prediction is the evaluation of the stored video, and costs no more than it looks at."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from pipelines import evaluate, predict
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import read_scores
from pipelines.optical_flow.farneback import Farneback
from pipelines.prediction import predictor
from pipelines.prediction.inputs import FlowOnDemand, TrainedFlow
from pipelines.storage.failures import read_failures
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.jpeg import as_stored
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run
from pipelines.video.decoding import VideoReader
from pipelines.video.isolation import Decoder, IsolatedReader
from pipelines.video.synthetic import write_video
from tests.helpers.old_weights import forget_configuration

TEST_VIDEOS = ("jump/jump2", "wave/wave2")
MADE = FlowSettings.of("farneback", {}, 4, 1, "video")


@pytest.fixture
def workspace(trained_on_videos, tmp_path):
    """A workspace of one's own with the run alone: what predicts needs nothing else."""
    shutil.copytree(trained_on_videos.workspace.runs, tmp_path / "work" / "runs")
    return Workspace(tmp_path / "work")


@pytest.fixture
def predicted(trained_on_videos, workspace):
    def call(*videos, on_progress=lambda progress: None, **settings):
        paths = [str(trained_on_videos.video(video)) if video in TEST_VIDEOS else str(video) for video in videos]
        defaults = {"step": "joint1", "device": "cpu"}
        return predict.run(predict.Config(paths, workspace.root, **(defaults | settings)), on_progress)

    return call


@pytest.fixture
def write_clip(tmp_path):
    def write(name, frames, height=32, width=40):
        rng = np.random.default_rng(frames)
        clip = rng.integers(0, 256, (frames, height // 4, width // 4, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        write_video(tmp_path / name, clip, codec="ffv1", pixels="bgr0")
        return tmp_path / name

    return write


# ------------------------------------------------------------------ what it says

PROTOCOLS = {
    "the paper's": {},
    "few frames": {"crops": 3, "mirror": False},
    "ten crops": {"crops": 3, "views": "10"},
    "windows": {"crops": 5, "temporal": "windows"},
    "pooled": {"crops": 6, "step": "joint2"},
    "late": {"crops": 3, "step": "late"},
    "appearance": {"crops": 3, "step": "appearance"},
    "motion": {"crops": 3, "step": "motion"},
    "student": {"crops": 10, "step": "student"},
}


@pytest.mark.parametrize("settings", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_prediction_is_the_evaluation_of_the_stored_video(own_trained_on_videos, predicted, settings):
    step = {"step": "joint1", "device": "cpu"}
    tested = evaluate.run(evaluate.Config(own_trained_on_videos.workspace.root, **(step | settings)))
    scores = read_scores(tested.folder / "scores.h5")

    result = predicted(*scores.videos, **settings)

    assert result.classes == scores.classes
    for row, prediction in enumerate(result.predictions):
        assert list(prediction.logits) == list(scores.streams)
        for stream, logits in scores.streams.items():
            np.testing.assert_allclose(prediction.logits[stream], logits[row], rtol=1e-6, atol=1e-6, err_msg=stream)
    assert np.ptp(scores.streams[scores.headline], axis=0).min() > 1e-5, "the test would not see videos exchanged"


def test_probabilities_are_the_softmax_of_the_logits_best_first(predicted):
    (prediction,) = predicted("jump/jump2").predictions
    for stream, logits in prediction.logits.items():
        expected = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(prediction.probabilities[stream], expected, rtol=1e-6)
    best = sorted(zip(prediction.probabilities["fused"], ("jump", "wave"), strict=True), reverse=True)
    assert [(item.probability, item.class_name) for item in prediction.top] == best
    assert (prediction.frames, prediction.fps, prediction.seconds) == (24, 25, 24 / 25)


def test_flow_of_stored_frames_is_made_of_frames_as_they_are_stored(trained_on_videos):
    """Where a run was trained on flow of JPEGs (`flow_input`), that is what it is shown."""
    from pipelines.optical_flow.methods import make_method
    from pipelines.storage.quantise import quantise

    method = make_method("farneback")
    with VideoReader(trained_on_videos.video("jump/jump2")) as reader:
        frames = dict(enumerate(reader))
    of_jpegs = dataclasses.replace(MADE, flow_input="jpeg")
    (found,) = FlowOnDemand(TrainedFlow(method, of_jpegs, "cpu"), frames).fields([3])
    import cv2
    import torch

    before, after = (torch.from_numpy(cv2.cvtColor(as_stored(frames[t]), cv2.COLOR_RGB2GRAY))[None] for t in (3, 4))
    np.testing.assert_array_equal(found, quantise(method.flow(before, after), 4.0)[0].numpy())
    (direct,) = FlowOnDemand(TrainedFlow(method, MADE, "cpu"), frames).fields([3])
    assert (found != direct).any()


# ------------------------------------------------------------------ what it costs


def test_flow_is_computed_only_where_a_frame_needs_it(predicted, write_clip, monkeypatch):
    calls = []
    calc = Farneback._calc
    monkeypatch.setattr(Farneback, "_calc", lambda self, *pair: calls.append(pair) or calc(self, *pair))
    clip = write_clip("long.mkv", 60)

    (prediction,) = predicted(clip, crops=2).predictions  # centers 5 and 54: fields 0..9 and 49..58

    assert len(calls) == prediction.pairs == 20
    assert predicted(clip, crops=1).predictions[0].pairs == 10
    assert predicted(clip, crops=60).predictions[0].pairs == 59  # overlapping stacks share their fields
    assert predicted(clip, crops=2, step="appearance").predictions[0].pairs == 0


def test_only_frames_that_are_looked_at_become_pixels(predicted, write_clip, monkeypatch):
    kept = []
    pick = IsolatedReader.pick
    monkeypatch.setattr(
        IsolatedReader, "pick", lambda self, wanted: (kept.append(pair[0]) or pair for pair in pick(self, wanted))
    )
    predicted(write_clip("long.mkv", 60), crops=2)
    assert kept == [*range(11), *range(49, 60)]


@pytest.mark.parametrize("wrong", [0, 3, 23, 25, 400])
def test_a_container_that_announces_another_number_of_frames_changes_nothing(predicted, monkeypatch, wrong):
    right = predicted("jump/jump2").predictions
    opened = Decoder.open

    def open_with_lies(self: Decoder, *given: object, **options: object) -> IsolatedReader:
        reader = opened(self, *given, **options)  # type: ignore[arg-type]
        reader.announced_frames = wrong
        return reader

    monkeypatch.setattr(Decoder, "open", open_with_lies)
    assert predicted("jump/jump2").predictions == right


def test_pictures_are_as_large_as_those_of_the_training(workspace, write_clip):
    config = predict.Config([str(write_clip("a.mkv", 12, 64, 100))], workspace.root, step="joint1", device="cpu")
    seen = []
    of = predictor.FramePlan.pixels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor.FramePlan, "pixels", lambda *of_what: seen.append(of(*of_what)) or seen[-1])
        predict.run(config)
    assert seen[0].sizes() == [(32, 50)]


# ------------------------------------------------------------------ videos


def test_short_videos_are_predicted_as_far_as_they_have_flow(predicted, write_clip):
    result = predicted(write_clip("two.mkv", 2), write_clip("one.mkv", 1), write_clip("ten.mkv", 10))
    assert [prediction.frames for prediction in result.predictions] == [2, 10]
    assert [failure.reason for failure in result.failures] == ["has 1 frame; flow needs at least 2"]
    assert predicted(write_clip("one.mkv", 1), step="appearance").predictions[0].frames == 1


def test_a_list_says_how_it_was_read_and_where_a_missing_video_was_looked_for(
    predicted, workspace, write_clip, tmp_path
):
    clip = write_clip("ten.mkv", 10)
    (tmp_path / "list.csv").write_text(f"path,label\n{clip},jump\ngone.mkv,wave\n")
    messages = []
    result = predicted(tmp_path / "list.csv", on_progress=lambda p: messages.append(p.message))
    assert messages[0] == f"list {tmp_path}/list.csv: 2 classes, 2 videos: jump 1, wave 1"
    (failure,) = result.failures
    assert f"there is no {tmp_path}/gone.mkv" in failure.reason
    assert "line 3 gives 'gone.mkv'" in failure.reason


def test_a_bad_video_is_named_and_the_others_are_predicted(predicted, workspace, tmp_path):
    bad = tmp_path / "bad.avi"
    bad.write_text("no video")
    messages = []
    result = predicted(bad, "jump/jump2", tmp_path / "gone.avi", on_progress=lambda p: messages.append(p.message))
    assert len(result.predictions) == 1
    assert [failure.path for failure in result.failures] == [str(tmp_path / "gone.avi"), str(bad)]
    assert any(message.startswith(f"{bad}: not a video") for message in messages)
    assert {(row.stage, row.video) for row in read_failures(workspace)} == {("predict", "bad"), ("predict", "gone")}

    write_video(bad, np.full((12, 32, 40, 3), 99, np.uint8))
    write_video(tmp_path / "gone.avi", np.full((12, 32, 40, 3), 99, np.uint8))
    assert predicted(bad, tmp_path / "gone.avi").failures == []
    assert not workspace.failures_file.exists()


def test_of_two_videos_of_one_name_each_has_its_own_failure(predicted, workspace, tmp_path):
    paths = [tmp_path / folder / "same.avi" for folder in ("x", "y")]
    for path in paths:
        path.parent.mkdir()
        path.write_text("no video")
    predicted("jump/jump2", *paths)
    assert [row.path for row in read_failures(workspace)] == [str(path) for path in paths]

    write_video(paths[1], np.full((12, 32, 40, 3), 99, np.uint8))
    predicted("jump/jump2", *paths)
    assert [row.path for row in read_failures(workspace)] == [str(paths[0])]


def test_folders_lists_and_globs_are_taken_and_names_may_repeat(predicted, trained_on_videos, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{trained_on_videos.video('jump/jump2')} jump\n")
    copy = tmp_path / "jump2.mkv"
    shutil.copy(trained_on_videos.video("jump/jump2"), copy)
    result = predicted(
        trained_on_videos.videos, listed, copy, str(trained_on_videos.videos / "wave" / "*0.mkv"), crops=1
    )
    found = [(prediction.class_name, prediction.video.rpartition("/")[2]) for prediction in result.predictions]
    folder = [(name, f"{name}{number}.mkv") for name in ("jump", "wave") for number in range(3)]
    assert found == [*folder, ("jump", "jump2.mkv"), (None, "jump2.mkv"), (None, "wave0.mkv")]
    assert len({tuple(p.logits["fused"]) for p in (result.predictions[i] for i in (2, 6, 7))}) == 1


def test_a_truncated_video_fails_unless_allowed(predicted, tmp_path):
    path = tmp_path / "cut.avi"
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    write_video(path, np.stack([np.roll(noise, t, axis=1) for t in range(40)]))
    path.write_bytes(path.read_bytes()[: round(0.6 * path.stat().st_size)])
    assert "truncated: decoded" in predicted(path).failures[0].reason
    assert 10 < predicted(path, allow_truncated=True).predictions[0].frames < 40


def test_a_damaged_video_is_predicted_with_a_warning_in_its_row(predicted, tmp_path):
    path = tmp_path / "damaged.avi"
    noise = np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    write_video(path, np.stack([np.roll(noise, t, axis=1) for t in range(40)]))
    content = bytearray(path.read_bytes())
    place = content.index(b"\0\0\1\xb6", len(content) // 2) + 10
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    for settings in ({}, {"timeline": True}):
        (prediction,) = predicted(path, **settings).predictions
        assert (prediction.frames, prediction.warning) == (40, "damaged: 1 of 40 frames")
    assert predicted("jump/jump2").predictions[0].warning == ""


# ------------------------------------------------------------------ which run


def test_by_default_the_newest_run_and_its_last_step(predicted):
    result = predicted("jump/jump2", step=None)
    assert (result.run, result.step) == ("split1", "joint2")


def test_a_run_may_lie_anywhere(trained_on_videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = str(trained_on_videos.video("jump/jump2"))
    run = str(trained_on_videos.workspace.runs / "split1")
    result = predict.run(predict.Config([video], tmp_path / "nowhere", run=run, crops=6, device="cpu"))
    assert result.run == "split1"
    assert list(tmp_path.iterdir()) == []  # and no workspace is made for it


def change_flow(workspace, **changes):
    file = workspace.runs / "split1" / "config.json"
    config = json.loads(file.read_text())
    config["flow"] |= changes
    file.write_text(json.dumps(config))
    for step in config["steps"]:
        forget_configuration(Run(file.parent), step)


def test_flow_that_cannot_be_computed_is_refused_by_name(predicted, workspace):
    change_flow(workspace, method="imported")
    with pytest.raises(MissingError, match=r"split1 was trained with flow of method 'imported', which stres cannot"):
        predicted("jump/jump2")
    assert predicted("jump/jump2", step="appearance").failures == []


def test_options_must_not_change_the_flow(predicted):
    with pytest.raises(UsageError, match=r"would differ from that of run split1: method_parameters.winsize was 9"):
        predicted("jump/jump2", method_options={"winsize": "15"})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"videos": []}, UsageError, "give at least one video"),
        ({"videos": ["nowhere.avi"]}, MissingError, "there is no nowhere.avi: VIDEOS is"),
        ({"run": "other"}, MissingError, "no run 'other' in .*: there are split1"),
        ({"step": "joint2", "crops": 4}, UsageError, "--crops 4: joint2 of run split1 pools over 5 frames"),
        ({"views": "7"}, UsageError, "--views '7' is not known"),
        ({"precision": "fp16"}, UsageError, "--precision fp16 needs a GPU; on the CPU use fp32 or bf16"),
        ({"window": "2"}, UsageError, "--window 2 goes with --timeline only"),
        ({"threshold": 0.5}, UsageError, "--threshold 0.5 goes with --timeline only"),
        ({"overlay": True}, UsageError, "--overlay goes with --timeline only"),
        ({"timeline": True, "window": "two"}, UsageError, "--window 'two' cannot be read: give seconds, such as 2"),
        ({"timeline": True, "window": "1.5f"}, UsageError, "--window '1.5f': a number of frames is a whole number"),
        ({"timeline": True, "window": "1", "hop": "2"}, UsageError, "--hop 2 s is more than --window 1 s"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(trained_on_videos, workspace, settings, error, message):
    defaults = {"videos": [str(trained_on_videos.video("jump/jump2"))], "workspace": workspace.root, "device": "cpu"}
    with pytest.raises(error, match=message):
        predict.run(predict.Config(**(defaults | settings)))


def test_the_settings_of_the_test_are_those_of_evaluate():
    shared = {"crops", "views", "mirror", "temporal", "device", "precision", "run", "step"}
    for name in shared - {"crops"}:
        ours, theirs = ({f.name: f for f in dataclasses.fields(stage.Config)}[name] for stage in (predict, evaluate))
        assert ours.default == theirs.default
