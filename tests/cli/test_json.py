"""`--json`: stdout is one document of strict JSON, whatever happens; all else stands on stderr."""

import json

import pytest

from pipelines import report, train


def document(text):
    """The one JSON document that `text` is. Fails for NaN and Infinity, which are not JSON."""

    def refuse(name):
        pytest.fail(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_result_is_the_only_thing_on_stdout(stres, two_classes, tmp_path):
    shown = stres("extract-frames", two_classes, "-w", tmp_path / "work", "--json")

    result = document(shown.stdout)
    assert shown.exit_code == 0
    assert (result["stage"], result["done"], result["failed"], result["units"]) == ("extract-frames", 8, 0, 192)
    assert "8 videos done" in shown.stderr


def test_failed_videos_are_part_of_the_result(stres, two_classes, tmp_path):
    name = 'bad "clip" ü'
    (two_classes / "red_rising" / f"{name}.avi").write_text("this is no video")

    shown = stres("extract-frames", two_classes, "-w", tmp_path / "work", "--json")

    assert shown.exit_code == 1
    assert [failure["video"] for failure in document(shown.stdout)["failures"]] == [name]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ("extract-frames nowhere/videos", 3, "there is no nowhere/videos"),
        ("extract-flow --method sift", 2, "'sift'"),
        ("train --split one", 2, "'one'"),
        ("train --no-such-option", 2, "--no-such-option"),
        ("extract-frames", 2, "VIDEOS"),
    ],
)
def test_an_error_is_a_document_too(stres, arguments, code, expected):
    shown = stres(*arguments.split(), "--json")

    error = document(shown.stdout)
    assert shown.exit_code == error["exit_code"] == code
    assert expected in error["error"]
    assert shown.stderr


def test_an_error_of_ours_is_a_document_too(stres, monkeypatch):
    monkeypatch.setattr(report, "run", lambda config, on_progress: 1 / 0)

    shown = stres("report", "--json")

    assert shown.exit_code == 4
    assert "ZeroDivisionError" in document(shown.stdout)["error"]


def test_what_is_no_number_is_null(stres, monkeypatch, tmp_path):
    step = train.StepResult("motion", 3, 1.0, {"loss": float("nan"), "motion_accuracy": float("inf")}, False)
    result = train.Result("split1", tmp_path, [step], 4, [], 0, 1.0)
    monkeypatch.setattr(train, "run", lambda config, on_progress: result)

    shown = stres("train", "--json")

    assert document(shown.stdout)["steps"][0]["metrics"] == {"loss": None, "motion_accuracy": None}


def test_the_recipe_is_a_document(stres):
    shown = stres("train", "--show-recipe", "--recipe", "paper", "--lr", "motion=0.5", "--json")

    steps = document(shown.stdout)
    assert list(steps) == ["appearance", "motion", "joint1", "joint2"]
    assert (steps["motion"]["lr"], steps["joint1"]["lr"]) == (0.5, 1e-3)
