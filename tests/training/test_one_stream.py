"""One stream alone: it is trained, tested, reported and used without what the other is fed with."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import evaluate, extract_frames, predict, report, train, verify
from pipelines.errors import Interrupted, MissingError, UsageError
from pipelines.evaluation.scores import read_scores
from pipelines.runtime.progress import Progress
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run, load_network
from tests.helpers.workspaces import TINY_STEPS


def asked(workspace: Workspace, *steps: str, **changes: Any) -> train.Config:
    settings = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu", "overrides": TINY_STEPS}
    return train.Config(workspace.root, steps=steps, **(settings | changes))


def trained(workspace: Workspace, *steps: str, **changes: Any) -> list[str]:
    """Trains these steps; returns what was said."""
    told: list[Progress] = []
    train.run(asked(workspace, *steps, **changes), told.append)
    return [one.message for one in told if one.message]


def evaluated(workspace: Workspace, **settings: Any) -> evaluate.Result:
    return evaluate.run(evaluate.Config(workspace.root, crops=3, device="cpu", **settings))


def test_the_appearance_stream_needs_no_flow_from_training_to_report(workspace):
    shutil.rmtree(workspace.flow)
    trained(workspace, "appearance")
    assert json.loads((workspace.runs / "split1" / "config.json").read_text())["flow"] == {}
    result = evaluated(workspace)
    assert read_scores(result.folder / "scores.h5").headline == "appearance"
    assert (len(result.missing_videos), result.failed) == (0, 0)
    report.run(report.Config(workspace.root))
    assert verify.run(verify.Config(workspace.root)).faults == []


def test_the_motion_stream_needs_no_frames(workspace):
    shutil.rmtree(workspace.frames)
    trained(workspace, "motion")
    assert read_scores(evaluated(workspace).folder / "scores.h5").headline == "motion"


def test_the_cameras_motion_is_a_property_of_the_run(workspace):
    trained(workspace, "motion", camera_motion="median")
    run = Run(workspace.runs / "split1")
    assert json.loads(run.config_file.read_text())["network"]["camera_motion"] == "median"
    assert load_network(run, "motion").normalise().camera_motion == "median"
    trained(workspace, "appearance", "motion")  # goes on as it was begun
    assert run.config().network.camera_motion == "median"
    with pytest.raises(UsageError, match=r"network\.camera_motion was .median. and is now"):
        trained(workspace, "motion", camera_motion="none")
    for step, settings in (("motion", {"weights": "run:split1"}), ("joint1", {"base_run": "split1"})):
        with pytest.raises(UsageError, match="mean does not fit the weights of run split1, which are of median"):
            trained(workspace, step, name="next", camera_motion="mean", **settings)


def test_videos_with_frames_alone_are_trained_on_and_tested_by_the_appearance_stream(workspace):
    for video in ("jump0", "jump3"):
        workspace.flow_file("jump", video).unlink()
    trained(workspace, "appearance")
    assert Run(workspace.runs / "split1").config().train_videos.count == 6
    assert len(read_scores(evaluated(workspace).folder / "scores.h5").videos) == 4


def test_who_has_one_half_is_told_of_the_stream_it_is_enough_for(workspace):
    shutil.rmtree(workspace.flow)
    with pytest.raises(MissingError, match=r"extract-flow.*; or train the appearance stream alone: --steps appearance"):
        trained(workspace, "appearance", "motion")
    with pytest.raises(MissingError, match=r"has flow in .*extract-flow` on the videos$"):
        trained(workspace, "motion")


def test_a_run_begun_without_flow_goes_on_with_it(workspace):
    def stop(progress: Progress) -> None:
        if (progress.phase, progress.done) == ("train appearance", 1):
            os.kill(os.getpid(), signal.SIGTERM)

    away = workspace.flow.rename(workspace.root / "away")
    with pytest.raises(Interrupted):
        train.run(asked(workspace, "appearance"), stop)
    away.rename(workspace.flow)
    trained(workspace, "appearance")  # from its checkpoint
    trained(workspace, "motion")
    run = Run(workspace.runs / "split1")
    assert run.config().flow is not None
    assert list(run.config().steps) == ["appearance", "motion"]
    assert read_scores(evaluated(workspace, step="late").folder / "scores.h5").headline == "fused"
    shutil.rmtree(workspace.flow)
    trained(workspace, "appearance")  # which is done; nothing of the run is another


def test_a_run_is_not_continued_on_frames_of_another_size(workspace):
    shutil.rmtree(workspace.flow)
    trained(workspace, "appearance")
    run = Run(workspace.runs / "split1")
    assert run.config().frames_short_side == 32
    other = dataclasses.replace(run.config(), frames_short_side=64)
    run.config_file.write_text(json.dumps(other.to_json()))
    with pytest.raises(UsageError, match="frames_short_side"):
        trained(workspace, "appearance")


@pytest.mark.parametrize("short_side", [None, 36])
def test_predicting_without_flow_is_evaluating_the_stored_frames(tmp_path, write_clip, monkeypatch, short_side):
    """36: frames are not of the size that follows from the video alone."""
    for name in ("a", "b"):
        for number in range(4):
            write_clip(tmp_path / "videos" / name / f"{name}{number}.avi", frames=12)
    workspace = Workspace(tmp_path / "work")
    videos = str(tmp_path / "videos")
    extract_frames.run(extract_frames.Config(workspace.root, videos, workers=1, short_side=short_side))
    trained(workspace, "appearance")
    scores = read_scores(evaluated(workspace).folder / "scores.h5")

    def no_flow(*_: Any, **__: Any) -> None:
        raise AssertionError("flow is computed")

    monkeypatch.setattr("pipelines.prediction.inputs.make_method", no_flow)
    monkeypatch.setattr("pipelines.prediction.inputs.fields_of_pairs", no_flow)
    videos = [str(Path(tmp_path, "videos", f"{id_}.avi")) for id_ in scores.videos]
    for row, video in enumerate(videos):
        (prediction,) = predict.run(predict.Config([video], workspace.root, crops=3, device="cpu")).predictions
        logits = prediction.logits["appearance"]
        np.testing.assert_allclose(logits, scores.streams["appearance"][row], rtol=1e-6, atol=1e-6)
