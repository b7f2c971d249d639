"""A workspace made by stres 0.1.0 still opens: everything in it is read, tested and continued by today's commands.

`tests/data/workspace-0.1.0.tar.xz` holds six clips of 14 frames (40x32, two classes) and what 0.1.0 made of them:
frames, flow (farneback, bound 4), the run `split1` of width 1 with three steps, and its test of three frames.
"""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
from typer.testing import CliRunner

from stres_cli.app import app

SCORES = Path("scores/split1/joint1-3frames-full-mirror-sequence/scores.h5")
STEPS = {"iterations": "2", "lr": "1e-4", "batch-size": "appearance=4,motion=4,joint1=2", "frames": "joint1=2"}


def stres(folder, command, *options):
    """The command's JSON; it has to end with 0."""
    arguments = [command, *map(str, options), "--workspace", str(folder / "work"), "--json"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_frames_and_flow_made_by_0_1_0_are_done_wherever_their_videos_lie_now(old):
    for command, options in (
        ("extract-frames", ()),
        ("extract-flow", ("--method", "farneback", "--method-option", "winsize=9", "--bound", 4)),
    ):
        result = stres(old, command, old / "clips", "--workers", 1, *options)
        assert (result["done"], result["skipped"], result["failed"]) == (0, 6, 0)


def test_a_run_of_0_1_0_gives_the_scores_that_0_1_0_wrote(old):
    with h5py.File(old / "work" / SCORES) as file:
        before = {name: file[name][:] for name in ("appearance", "motion", "fused")}
    shutil.rmtree(old / "work/scores")
    stres(old, "evaluate", "--crops", 3, "--device", "cpu")
    with h5py.File(old / "work" / SCORES) as file:
        for name, logits in before.items():
            np.testing.assert_allclose(file[name][:], logits, atol=1e-5)


def test_a_run_of_0_1_0_is_not_trained_again_by_the_same_command(old):
    options = [part for name, value in STEPS.items() for part in (f"--{name}", value)]
    recipe = ("--recipe", "small", "--width", 1, "--size", 32, "--stride", "joint1=1-2", "--steps")
    weights = (old / "work/runs/split1/joint1/weights.pt").read_bytes()
    result = stres(old, "train", *recipe, "appearance,motion,joint1", *options, "--device", "cpu")
    assert result["run"] == "split1"
    assert (old / "work/runs/split1/joint1/weights.pt").read_bytes() == weights


def test_scores_of_0_1_0_are_reported_and_its_run_predicts(old):
    assert stres(old, "report")["videos"] == 2
    prediction = stres(old, "predict", old / "clips/jump/jump0.mkv", "--crops", 3, "--device", "cpu")
    assert prediction["classes"] == ["jump", "wave"]
    assert prediction["predictions"][0]["frames"] == 14


def test_verify_finds_no_fault_in_a_workspace_of_0_1_0(old):
    assert stres(old, "verify", "--workers", 1)["faults"] == []
