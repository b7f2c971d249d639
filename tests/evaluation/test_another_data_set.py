"""A trained run tested on labelled videos that are not of its split."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from typer.testing import CliRunner

from pipelines import evaluate, report, train
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import read_scores
from pipelines.evaluation.videos import find_test_videos
from pipelines.storage.atomic import read_json
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run
from stres_cli.app import app
from tests.helpers.workspaces import write_workspace

SMALL = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu", "steps": ("appearance",)}
ONE_UPDATE = {"appearance": {"iterations": 1, "batch_size": 4}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Workspace:
    workspace = write_workspace(tmp_path_factory.mktemp("trained"))
    train.run(train.Config(workspace.root, overrides=ONE_UPDATE, **SMALL))
    return workspace


@pytest.fixture
def other(trained, tmp_path) -> Workspace:
    """The ten videos under other names, and no run."""
    workspace = Workspace(tmp_path / "other")
    for kind in ("frames", "flow"):
        for file in sorted((trained.root / kind).glob("*/*.h5")):
            target = workspace.root / kind / file.parent.name / f"new_{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return workspace


def outcome(workspace: Workspace, run: Path | str) -> evaluate.Result:
    return evaluate.run(evaluate.Config(workspace.root, run=str(run), crops=2, device="cpu"))


def test_a_run_elsewhere_is_tested_on_all_labelled_videos_by_the_names_of_classes(trained, other):
    run = trained.runs / "split1"
    result = outcome(other, run)
    scores = read_scores(result.folder / "scores.h5")
    assert len(scores.videos) == 10
    assert [scores.classes[label] for label in scores.labels] == [video.partition("/")[0] for video in scores.videos]
    results = read_json(result.folder / "results.json")
    assert results["dataset"] == "other"
    assert results["run_folder"] == str(run.resolve())
    assert result.folder.parent == other.scores / "split1"
    shown = report.run(report.Config(other.root, run=str(run)))
    assert (shown.videos, shown.test_set[:27]) == (10, "tested on another data set ")


def test_a_run_copied_into_the_workspace_is_tested_so_too(trained, other):
    shutil.copytree(trained.runs / "split1", other.runs / "theirs")
    result = outcome(other, "theirs")
    assert result.results["dataset"] == "other"
    assert "run_folder" not in result.results


def test_classes_that_the_run_does_not_know_are_named_counted_and_left_out_and_its_empty_ones_told(trained, other):
    for kind in ("frames", "flow"):
        (other.root / kind / "wave").rename(other.root / kind / "Dance")
    arguments = ["evaluate", "-w", str(other.root), "--run", str(trained.runs / "split1"), "--crops", "2"]
    shown = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert shown.exit_code == 1
    assert "left out: 5 videos of 1 class that the run does not know (Dance)" in shown.stdout
    assert "tested on another data set" in shown.stderr
    assert "1 of the run's classes has no test video: wave" in shown.stderr
    (file,) = other.scores.glob("split1/*/results.json")
    results = read_json(file)
    assert (results["videos"], results["left_out"]) == (5, {"Dance": 5})
    assert results["classes_without_videos"] == ["wave"]


def test_classes_match_whatever_their_case_and_none_that_matches_is_an_error(trained, other):
    for kind in ("frames", "flow"):
        (other.root / kind / "wave").rename(other.root / kind / "Wave")
        shutil.rmtree(other.root / kind / "jump")
    assert outcome(other, trained.runs / "split1").results["videos"] == 5
    for kind in ("frames", "flow"):
        (other.root / kind / "Wave").rename(other.root / kind / "dance")
    with pytest.raises(MissingError, match="nor of a class it knows: it has dance, the run knows jump, wave"):
        outcome(other, trained.runs / "split1")


def test_videos_of_a_class_that_the_run_left_out_do_not_make_a_workspace_that_of_its_split(trained, other):
    for kind in ("frames", "flow"):
        (other.root / kind / "wave").rename(other.root / kind / "dance")
    run = Run(trained.runs / "split1")
    found = find_test_videos(other, run, replace(run.config(), excluded_classes=("Dance",)), force=False)
    assert (found.is_other, len(found.videos), found.left_out) == (True, 5, {"dance": 5})


def test_a_workspace_with_the_videos_of_the_split_is_tested_on_its_test_side(trained, tmp_path):
    workspace = Workspace(tmp_path / "same")
    for kind in ("frames", "flow"):
        shutil.copytree(trained.root / kind, workspace.root / kind)
        (workspace.root / kind / "wave").rename(workspace.root / kind / "Wave")
    result = outcome(workspace, trained.runs / "split1")
    assert result.results["videos"] == 4
    assert "dataset" not in result.results
    for file in workspace.root.glob("f*/Wave/*"):
        with h5py.File(file, "a") as content:
            content.attrs["source_sha256"] = "0" * 64
    with pytest.raises(UsageError, match=r"what is stored as Wave/\w+ and 1 more comes from another video now"):
        outcome(workspace, trained.runs / "split1")


def test_scores_of_a_run_elsewhere_never_take_the_place_of_a_run_of_that_name_or_of_another_one(
    trained, other, tmp_path
):
    shutil.copytree(trained.runs / "split1", tmp_path / "a/split1")
    shutil.copytree(trained.runs / "split1", tmp_path / "b/split1")
    shutil.copytree(trained.runs / "split1", other.runs / "split1")
    folders = [outcome(other, run).folder for run in ("split1", tmp_path / "a/split1", tmp_path / "b/split1")]
    assert len(set(folders)) == 3
    assert folders[0].parent.name == "split1"
    assert all(folder.parent.name.startswith("split1-") for folder in folders[1:])
    assert outcome(other, tmp_path / "a/split1").folder == folders[1]


def test_scores_of_a_run_elsewhere_make_way_for_a_run_that_takes_their_name(trained, other, tmp_path):
    shutil.copytree(trained.runs / "split1", tmp_path / "a/split1")
    before = outcome(other, tmp_path / "a/split1").folder
    content = (before / "scores.h5").read_bytes()
    assert before.parent.name == "split1"
    train.run(train.Config(other.root, overrides=ONE_UPDATE, **SMALL | {"seed": 7}))
    told = rf"are of the run in {tmp_path}/a/split1, .*; run `stres evaluate --run split1`, which keeps them"
    with pytest.raises(MissingError, match=told):
        report.run(report.Config(other.root))
    assert outcome(other, "split1").folder == before
    (moved,) = other.scores.glob("split1-*/*/scores.h5")
    assert moved.read_bytes() == content
    assert outcome(other, tmp_path / "a/split1").folder == moved.parent


@pytest.mark.parametrize("below", ["joint1", "joint1/weights.pt", "config.json"])
def test_something_in_a_runs_folder_is_no_run_but_tells_which_was_meant(trained, other, below):
    with pytest.raises(MissingError, match=rf"did you mean {trained.runs / 'split1'}, the folder that it is in"):
        outcome(other, trained.runs / "split1" / below)
