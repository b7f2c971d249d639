"""What is said of a step that does not learn or overfits, on made-up logs."""

import math
from typing import Any

import pytest

from pipelines.training.findings import finding

VIDEOS = {"a": 30, "b": 30, "c": 30}


def log(
    accuracies: list[float], losses: list[float] | None = None, held_out: dict[int, tuple[float, float]] | None = None
) -> list[dict[str, float]]:
    """A line every ten updates of 32 videos; `held_out` gives loss and accuracy of 40 videos by update."""
    lines: list[dict[str, Any]] = []
    for number, accuracy in enumerate(accuracies, start=1):
        loss = losses[number - 1] if losses else 0.5
        line = {"iteration": 10 * number, "loss": loss, "motion_accuracy": accuracy, "videos": 320.0, "updates": 10.0}
        if 10 * number in (held_out or {}):
            validation = dict(zip(("loss", "motion_accuracy"), (held_out or {})[10 * number], strict=True))
            line |= {f"validation_{name}": value for name, value in validation.items()} | {"validation_videos": 40.0}
        lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (log([0.33] * 20, [1.10] * 20), "motion does not learn: over its last 50 updates it was right on 33.0 %"),
        (log([0.33] * 20, [1.00] * 20), "try more updates, a larger --lr motion"),
        (log([0.33] * 20, [3.00] * 20), "try a smaller --lr motion=..., a tenth of it or less, since the loss 3.00 is"),
        (log([0.8] * 15 + [0.34] * 5), "motion does not learn"),  # it forgot
        (log([0.35] * 20), "motion does not learn"),  # 1.4 deviations above a third of 1600 videos
        (log([0.37] * 20), ""),  # 3.1 deviations
        (log([0.33] * 4), ""),  # too early to tell
        (log([0.3] * 5 + [0.9] * 15), ""),
        (log([0.99] * 20, held_out={100: (0.6, 0.8), 200: (0.5, 0.9)}), ""),
        (log([0.99] * 20, held_out={100: (0.9, 0.6), 200: (0.95, 0.6)}), "try more --dropout"),
        (
            log([0.99] * 20, held_out={100: (0.9, 0.65), 200: (1.5, 0.6)}),
            "on 60.0 % of 40 videos held out, whose loss has risen since update 100; try about --iterations motion=100",
        ),
        (log([0.70] * 20, held_out={200: (1.0, 0.56)}), ""),  # 14 points are not enough
        (log([0.70] * 20, held_out={200: (1.0, 0.50)}), "motion overfits: it is right on 70.0 %"),
    ],
)
def test_a_step_that_does_not_learn_or_overfits_says_so(records, told):
    found = finding("motion", records, VIDEOS, "none")
    assert told in found if told else found == ""
    # Before its last update it may yet learn; that it overfits is said.
    assert finding("motion", records, VIDEOS, "none", interrupted=True) == ("" if "does not learn" in found else found)


def test_few_held_out_videos_prove_little():
    """Of six, four right where training has 99 %: the gap is 32 points, and chance makes as much of six videos."""
    records = log([0.99] * 20, held_out={200: (0.9, 4 / 6)})
    for line in records:
        line["validation_videos"] = 6.0
    assert finding("motion", records, VIDEOS, "none") == ""
    records[-1]["validation_videos"] = 60.0
    assert "overfits" in finding("motion", records, VIDEOS, "none")


def test_more_is_asked_of_unbalanced_classes_unless_they_are_balanced():
    records, videos = log([0.6] * 20), {"a": 60, "b": 20, "c": 20}
    assert "a guess without looking is on 60.0 %" in finding("motion", records, videos, "none")
    assert finding("motion", records, videos, "sampler") == finding("motion", records, videos, "loss") == ""


def test_of_two_streams_the_accuracy_of_both_counts():
    records = [line | {"appearance_accuracy": 0.9, "fused_accuracy": 1 / 3} for line in log([0.9] * 20)]
    assert "joint1 does not learn" in finding("joint1", records, VIDEOS, "none")
    assert math.log(3) == pytest.approx(1.10, abs=0.01)  # the loss of guessing, above


def test_old_logs_say_nothing_of_what_they_lack():
    records = [{name: value for name, value in line.items() if name != "videos"} for line in log([0.3] * 20)]
    assert finding("motion", records, VIDEOS, "none") == ""
