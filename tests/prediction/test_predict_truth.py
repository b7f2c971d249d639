"""`predict` on videos whose classes are given: the truth beside each prediction, and the accuracy."""

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from pipelines.prediction.results import Prediction, Truth
from stres_cli.app import app


@pytest.fixture
def labelled(trained_on_videos, tmp_path):
    """A folder of class folders: four videos of classes that the run knows, one of another."""
    for class_name, target in (("jump", "jump"), ("wave", "Wave"), ("wave", "dance")):
        (tmp_path / target).mkdir()
        for number in range(2):
            shutil.copy(trained_on_videos.video(f"{class_name}/{class_name}{number}"), tmp_path / target)
    return tmp_path


def shown(trained_on_videos, *arguments):
    given = ["-w", trained_on_videos.workspace.root, "--step", "appearance", "--device", "cpu", "--crops", 1]
    return CliRunner().invoke(app, ["predict", *map(str, [*arguments, *given])], env={"COLUMNS": "120"})


def test_each_prediction_has_the_class_given_and_the_end_the_accuracy_of_the_classes_that_the_run_knows(
    trained_on_videos, labelled
):
    text = shown(trained_on_videos, labelled).stdout
    document = json.loads(shown(trained_on_videos, labelled, "--json").stdout)
    best = {one["video"]: one["top"][0]["class_name"] for one in document["predictions"]}
    right = sum(best[one["video"]] == one["class_name"].lower() for one in document["predictions"])
    assert document["truth"] == {"right": right, "labelled": 4, "accuracy": right / 4, "unknown": {"dance": 2}}
    assert [one["right"] is None for one in document["predictions"]].count(True) == 2
    (line,) = [line for line in text.splitlines() if line.startswith("correct: ")]
    assert line.startswith(f"correct: {right} of 4 labelled videos, {100 * right / 4:.1f} %")
    assert line.endswith("not counted, since the run does not know their classes: dance (2)")
    assert sum(f"  {name}: " in line for line in text.splitlines() for name in ("jump", "Wave")) == 4


def test_videos_without_a_class_have_no_accuracy(trained_on_videos):
    video = trained_on_videos.video("jump/jump2")
    document = json.loads(shown(trained_on_videos, video, "--json").stdout)
    assert document["truth"] is None
    assert "correct: " not in shown(trained_on_videos, video).stdout


def test_unlabelled_videos_do_not_count():
    one = Prediction("a", "jump", 1, 25.0, [], {}, {}, 0, right=True)
    nothing, wrong = replace(one, class_name=None, right=None), replace(one, right=False)
    assert Truth.of([one, wrong, nothing]) == Truth(1, 2, 0.5, {})
    assert Truth.of([nothing]) is None
