"""`predict` on videos whose classes are given: the truth beside each prediction, and the accuracy."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from pipelines.evaluation.intervals import wilson
from pipelines.prediction.results import Prediction, Truth
from stres_cli.app import app


@pytest.fixture
def labelled(trained_on_videos, tmp_path):
    """A folder of class folders: four videos of classes that the run knows, one of another."""
    for class_name, target in (("jump", "jump"), ("wave", "Wave"), ("wave", "dance")):
        (tmp_path / target).mkdir()
        for number in (0, 2):  # trained on, and tested
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
    assert document["truth"] == {
        "right": right,
        "labelled": 4,
        "accuracy": right / 4,
        "unknown": {"dance": 2},
        "accuracy_interval": pytest.approx(wilson(right, 4)),
        "trained_on": 2,
    }
    assert [one["right"] is None for one in document["predictions"]].count(True) == 2
    (line,) = [line for line in text.splitlines() if line.startswith("correct: ")]
    assert line.startswith(f"correct: {right} of 4 labelled videos, {100 * right / 4:.1f} %")
    low, high = (f"{100 * end:.1f}" for end in wilson(right, 4))
    assert f"% (95 % interval {low} - {high} %); 2 of them have names of videos that the run was trained on" in line
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
    assert Truth.of([one, wrong, nothing]) == Truth(1, 2, 0.5, {}, wilson(1, 2))
    assert Truth.of([nothing]) is None


def test_predictions_are_written_as_csv(trained_on_videos, labelled, tmp_path):
    file = tmp_path / "out" / "predictions.csv"
    document = json.loads(shown(trained_on_videos, labelled, "--csv", file, "--json").stdout)
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert list(rows[0]) == ["video", "true", "predicted", "probability", "correct", *document["classes"]]
    assert [(row["video"], row["true"], row["predicted"]) for row in rows] == [
        (one["video"], one["class_name"], one["top"][0]["class_name"]) for one in document["predictions"]
    ]
    for row, one in zip(rows, document["predictions"], strict=True):
        assert row["correct"] == {True: "true", False: "false", None: ""}[one["right"]]
        assert [float(row[name]) for name in document["classes"]] == pytest.approx(
            one["probabilities"]["appearance"], abs=1e-6
        )


def test_a_csv_file_that_cannot_be_written_is_refused_before_anything_is_predicted(trained_on_videos, tmp_path):
    video = trained_on_videos.video("jump/jump2")
    for place in (tmp_path, video):
        refused = shown(trained_on_videos, video, "--csv", place)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "is a folder or a video: name a file to write" in refused.stderr
    (tmp_path / "file").touch()
    refused = shown(trained_on_videos, video, "--csv", tmp_path / "file" / "predictions.csv")
    assert (refused.exit_code, refused.stdout) == (3, "")
