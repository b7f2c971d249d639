"""The stage `extract-features`: rows are what the network's own classifiers are given, and tell their frames."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from pipelines import extract_features
from pipelines.datasets.preparation import Prepare
from pipelines.errors import UsageError
from pipelines.prediction.features import Extractor, FrameSlider, predictor_of, rows_of
from pipelines.prediction.inputs import FlowOnDemand
from pipelines.prediction.predictor import DecodedVideo
from pipelines.storage.failures import read_failures
from pipelines.training.runs import Chosen, Run, load_network
from pipelines.video.decoding import VideoReader

FRAMES = 24


@pytest.fixture
def extractor(trained_on_videos):
    """`extractor(step="joint1", per="clip", crops=4)` as a worker would be given it."""

    def make(step="joint1", **settings):
        work = trained_on_videos.workspace
        run = Run(work.runs / "split1")
        config = extract_features.Config(work.root, "videos", run="split1", step=step, device="cpu", **settings)
        return Extractor(run, extract_features._settings(config, Chosen(run, step, "")), "cpu")

    return make


@pytest.fixture
def clip(trained_on_videos):
    return trained_on_videos.video("jump/jump2")


def decoded(clip):
    with VideoReader(clip) as reader:
        return dict(enumerate(reader))


def given_to_classifiers(run, step, rgb, flow):
    """What hooks on the classifiers of the run's network, not folded, see: of each stream [V, T', C]."""
    network = load_network(run, step).eval()
    seen = {}
    for name, stream in network.streams.items():
        stream.fc.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
    with torch.inference_mode():
        views = len(rgb if rgb is not None else flow)
        network(*Prepare(network.normalise())(rgb, flow))
    return {name: of.unflatten(0, (views, -1)).double().numpy() for name, of in seen.items()}


@pytest.mark.parametrize("step", ["joint2", "late", "student"])
def test_the_features_of_a_clip_are_the_network_s_own_pooled_features(extractor, clip, step):
    """And the classifiers make predict's logits of them."""
    made = extractor(step, per="clip", crops=6)
    rows = rows_of(made, clip, lambda done, total: None)

    predictor = predictor_of(made)
    pixels = DecodedVideo(predictor, clip, lambda done, total: None).pixels
    expected = given_to_classifiers(made.run, step, *predictor.views(pixels))
    logits, state = predictor.logits(pixels), load_network(made.run, step).state_dict()
    assert rows.spans == [(0, FRAMES)]
    np.testing.assert_allclose(rows.seconds, [[0, FRAMES / 25]])
    assert rows.features[0].keys() == expected.keys()
    for name, of in expected.items():
        np.testing.assert_allclose(rows.features[0][name], of.mean((0, 1)), rtol=1e-4, atol=1e-5)
        weight, bias = (state[f"{name}.fc.{part}"].double().numpy() for part in ("weight", "bias"))
        np.testing.assert_allclose(weight @ rows.features[0][name] + bias, logits[name], rtol=1e-5, atol=1e-6)


def test_rows_of_windows_are_those_of_the_window_as_a_clip_of_its_own(extractor, clip):
    made = extractor("joint1", window="12f", hop="5f", crops=3)
    rows = rows_of(made, clip, lambda done, total: None)
    assert rows.spans == [(0, 12), (5, 17), (10, 22), (12, 24)]  # the last one ends with the video
    np.testing.assert_allclose(rows.seconds, np.array(rows.spans) / 25)
    predictor, frames = predictor_of(made), decoded(clip)
    flow = FlowOnDemand(predictor.flow, frames)
    for (start, end), row in zip(rows.spans, rows.features, strict=True):
        views = predictor.views(predictor.plan(start, end - start).pixels(frames, flow))
        for name, of in given_to_classifiers(made.run, "joint1", *views).items():
            np.testing.assert_allclose(row[name], of.mean((0, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("step", "together"), [("joint2", 5), ("late", 1), ("joint1", 40)])
def test_each_frame_has_the_row_that_it_has_in_the_whole_video(extractor, clip, step, together):
    """Fed frame by frame, with few frames held, the result is that of all frames and fields at once."""
    made = extractor(step, per="frame", crops=together)
    assert extractor("student", per="frame").settings.protocol.temporal == "sequence"
    held = []
    add = FrameSlider.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameSlider, "add", lambda self, *of: (add(self, *of), held.append(len(self.frames))))
        rows = rows_of(made, clip, lambda done, total: None)

    predictor, frames = predictor_of(made), decoded(clip)
    together = min(together, FRAMES)
    groups = [range(start, start + together) for start in range(0, FRAMES - together + 1, together)]
    groups.append(range(FRAMES - together, FRAMES))  # of which those before have a row
    expected = {}
    network, flow = load_network(made.run, step).eval(), FlowOnDemand(predictor.flow, frames)
    for stream in network.streams.values():
        stream.temporal_pool = None
    for group in groups:
        views = predictor.views(predictor.plan_of(group, FRAMES).pixels(frames, flow))
        with torch.inference_mode():
            maps = network.feature_maps(*Prepare(network.normalise())(*views))
        for place, frame in enumerate(group):
            expected.setdefault(frame, {name: of[:, place].mean((0, 2, 3)).numpy() for name, of in maps.items()})
    assert rows.spans == [(frame, frame + 1) for frame in range(FRAMES)]
    for frame, row in enumerate(rows.features):
        for name, values in row.items():
            np.testing.assert_allclose(values, expected[frame][name], rtol=1e-4, atol=1e-5)
    assert max(held) <= 2 * together + 10


def test_rows_a_second_are_the_first_frames_at_or_after_each_moment(extractor, clip):
    """At 25 frames a second; only the frames around a row's are held."""
    held = []
    add = FrameSlider.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FrameSlider, "add", lambda self, *of: (add(self, *of), held.append(len(self.frames))))
        rows = rows_of(extractor("appearance", per="frame", fps=10), clip, lambda done, total: None)
    assert [start for start, _ in rows.spans] == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23]
    np.testing.assert_allclose(rows.seconds[:, 0], [start / 25 for start, _ in rows.spans])
    assert max(held) <= 3
    windows = rows_of(extractor("appearance", fps=10, window="0.2"), clip, lambda done, total: None)
    assert [start for start, _ in windows.spans][:4] == [0, 3, 5, 8]  # and 2.5 frames are 3


# ------------------------------------------------------------------ the stage


@pytest.fixture(scope="module")
def stored(trained_on_videos, tmp_path_factory):
    """A workspace with the run alone, its features of three videos of which one is none, the result, and the config."""
    folder = tmp_path_factory.mktemp("features")
    shutil.copytree(trained_on_videos.workspace.runs, folder / "work" / "runs")
    shutil.copytree(trained_on_videos.videos / "jump", folder / "videos" / "jump")
    (folder / "videos" / "jump" / "jump0.mkv").write_text("no video")
    settings = {"step": "joint1", "window": "12f", "crops": 3, "device": "cpu", "workers": 1}
    config = extract_features.Config(folder / "work", str(folder / "videos"), **settings)
    return folder, extract_features.run(config), config


def test_a_video_leaves_an_array_an_artifact_and_a_row_of_the_list(stored, extractor):
    folder, result, config = stored
    assert (result.done, result.failed, result.channels) == (2, 1, {"appearance": 128, "motion": 128})
    place = folder / "work" / "features" / "split1"
    rows = rows_of(extractor("joint1", window="12f", crops=3), folder / "videos/jump/jump2.mkv", lambda *of: None)
    array = np.load(place / "jump" / "jump2.npy")
    assert array.dtype == np.float32
    with h5py.File(place / "jump" / "jump2.h5") as file:
        for name, columns in (("appearance", array[:, :128]), ("motion", array[:, 128:])):
            np.testing.assert_array_equal(file[name], columns)
            np.testing.assert_allclose(columns, [row[name] for row in rows.features], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(file["frames"], rows.spans)
        np.testing.assert_allclose(file["seconds"], np.array(rows.spans) / 25)
        assert file.attrs["source"] == str(folder / "videos/jump/jump2.mkv")
    about = json.loads((place / "features.json").read_text())
    assert sorted(about["videos"]) == ["jump/jump1", "jump/jump2"]
    assert about["videos"]["jump/jump2"]["rows"] == len(array) == 3
    run = Run(folder / "work" / "runs" / "split1")
    assert about["settings"]["weights_sha256"] == run.weights_sha256("joint1")
    assert [(row.stage, row.video) for row in read_failures(extract_features.Workspace(config.workspace))] == [
        ("extract-features", "jump0")
    ]


def test_what_is_done_stays_and_what_was_lost_is_made_again(stored, monkeypatch):
    folder, _, config = stored
    place = folder / "work" / "features" / "split1" / "jump"
    shutil.copy(folder / "videos/jump/jump1.mkv", folder / "videos/jump/jump0.mkv")
    (place / "jump2.npy").unlink()
    before = (place / "jump1.h5").stat().st_mtime_ns
    result = extract_features.run(config)
    assert (result.done, result.skipped, result.failed) == (2, 1, 0)
    assert (place / "jump2.npy").exists()
    assert (place / "jump1.h5").stat().st_mtime_ns == before
    assert not (folder / "work" / "failures.csv").exists()

    with pytest.raises(UsageError, match=r"settings.protocol.frames was 3 and is now 4.*or another --output"):
        extract_features.run(replace(config, crops=4))
    estimate = extract_features.run(replace(config, dry_run=True, overwrite=True)).estimate
    assert estimate.videos == 3
    assert estimate.measured_videos > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per": "clip", "window": "2"}, "--window 2 goes with --per window only"),
        ({"per": "frame", "hop": "2"}, "--hop 2 goes with --per window only"),
        ({"per": "clip", "fps": 2}, "--fps 2 does not go with --per clip"),
        ({"per": "frame", "temporal": "windows"}, "--temporal windows is for clips and windows"),
        ({"fps": 2, "hop": "1"}, "--fps 2 and --hop 1 say the same"),
        ({"fps": 0.2}, "--fps 0.2: --hop 5 s is more than --window 2 s"),
        ({"window": "1", "hop": "2"}, "--hop 2 s is more than --window 1 s"),
        ({"step": "appearance", "stream": "motion"}, "the network appearance of run split1 has only appearance"),
        ({"views": "7"}, "--views '7' is not known"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(extractor, settings, message):
    with pytest.raises(UsageError, match=message):
        extractor(**settings)
