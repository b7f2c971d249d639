"""Runs and scores belong to the videos and weights they were made from, not to whatever has their name now."""

import json
import shutil
from pathlib import Path

import h5py
import pytest

from pipelines import evaluate, report, train
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import read_scores
from pipelines.reporting.thumbnails import thumbnails
from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run
from tests.helpers.workspaces import write_workspace

PROTOCOL = "motion-1frames-center-plain-sequence"


def config(workspace, **changes):
    steps = {name: {"iterations": 1, "batch_size": 2} for name in ("appearance", "motion")}
    defaults = {"recipe": "small", "width": 4, "size": (32, 32), "overrides": steps, "device": "cpu"}
    return train.Config(workspace.root, **(defaults | {"steps": ("motion",)} | changes))


def evaluated(workspace, **settings):
    defaults = {"crops": 1, "views": "center", "device": "cpu", "workers": 1}
    return evaluate.run(evaluate.Config(workspace.root, **(defaults | settings)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run `split1`, tested once."""
    workspace = write_workspace(tmp_path_factory.mktemp("trained"))
    train.run(config(workspace))
    evaluated(workspace)
    return workspace


@pytest.fixture
def workspace(trained, tmp_path):
    shutil.copytree(trained.root, tmp_path / "work")
    return Workspace(tmp_path / "work")


def replace_video(workspace, class_name, video):
    """As if another video of that class and name had been extracted."""
    for path in (workspace.frames_file(class_name, video), workspace.flow_file(class_name, video)):
        with h5py.File(path, "r+") as file:
            file.attrs["source_sha256"] = "another"


def test_a_run_tells_of_which_videos_it_was_made(workspace):
    document = json.loads(Run(workspace.runs / "split1").split_file.read_text())
    assert document["sources"]["jump/jump0"] == "jump0"
    assert set(document["sources"]) == {*document["train"], *document["test"]}


def test_a_run_is_not_continued_on_other_videos_of_the_same_names(workspace):
    replace_video(workspace, "jump", "jump1")
    for settings in ({}, {"dry_run": True}):
        with pytest.raises(UsageError, match=r"split1 was begun with other videos: what is stored as jump/jump1 comes"):
            train.run(config(workspace, steps=("appearance", "motion"), **settings))
    with pytest.raises(UsageError, match=r"--base-run split1 was trained on other videos: .*jump/jump1"):
        train.run(config(workspace, name="new", steps=("joint1",), base_run="split1"))
    assert train.run(config(workspace, overwrite=True)).steps[0].already_done is False


def test_a_run_is_not_tested_on_other_videos_of_the_same_names_unless_told_to(workspace):
    replace_video(workspace, "wave", "wave3")
    with pytest.raises(UsageError, match=r"what is stored as wave/wave3 comes from another video now.*--force"):
        evaluated(workspace)
    assert evaluated(workspace, force=True).results["videos"] == 4


def import_flow_of(workspace, name):
    """As if the flow of jump/jump1 and jump/jump3 had been imported from pictures in the folder `name`."""
    for video in ("jump1", "jump3"):
        with h5py.File(workspace.flow_file("jump", video), "r+") as file:
            file.attrs["source"] = f"/{name}/{video}/flow_x_*.jpg"
            file.attrs["source_sha256"] = name


def test_imported_flow_that_replaced_another_is_noticed_as_a_video_is(workspace):
    import_flow_of(workspace, "first")
    train.run(config(workspace, name="imported"))
    assert Run(workspace.runs / "imported").sources()["jump/jump1"] == "jump1+first"
    assert evaluated(workspace, run="imported").results["videos"] == 4
    scores = read_scores(workspace.scores / "imported" / PROTOCOL / "scores.h5")
    assert scores.sources[0] == "jump3+first"
    kept = dict(zip(scores.videos, scores.sources, strict=True))
    assert thumbnails(workspace, [scores], 1, lambda done, total: None, kept)[0].flow

    import_flow_of(workspace, "second")
    told = r"the flow stored as jump/jump1 and 1 more was imported from other pictures than it is now"
    with pytest.raises(UsageError, match=told):
        train.run(config(workspace, name="imported", steps=("appearance", "motion")))
    with pytest.raises(UsageError, match=r"the flow stored as jump/jump3 was imported from other .*--force"):
        evaluated(workspace, run="imported")
    assert evaluated(workspace, run="imported", force=True).results["videos"] == 4
    assert thumbnails(workspace, [scores], 1, lambda done, total: None, kept)[0].flow is None


def test_a_run_that_does_not_tell_of_imported_flow_is_continued_and_tested(workspace):
    import_flow_of(workspace, "first")  # `split1` knows the videos alone, as the runs of stres 0.1
    assert evaluated(workspace).results["videos"] == 4
    assert len(train.run(config(workspace, steps=("appearance", "motion"))).steps) == 2


def test_a_test_says_that_the_training_videos_were_replaced(workspace):
    replace_video(workspace, "wave", "wave0")
    told = []
    settings = {"crops": 1, "views": "center", "device": "cpu", "workers": 1}
    evaluate.run(evaluate.Config(workspace.root, **settings), lambda progress: told.append(progress.message))
    assert any("trained on other videos than are stored now: what is stored as wave/wave0" in text for text in told)


def test_a_run_of_another_workspace_under_the_same_name_is_not_tested_here(workspace, tmp_path):
    other = write_workspace(tmp_path / "other")
    for video in ("jump3", "jump4"):
        replace_video(other, "jump", video)
    shutil.copytree(workspace.runs, other.runs)
    with pytest.raises(UsageError, match="jump/jump3 and 1 more comes from another video"):
        evaluated(other)


def test_the_scores_of_a_run_that_is_trained_anew_are_moved_aside_with_it(workspace):
    before = (workspace.scores / "split1" / PROTOCOL / "results.json").read_text()
    train.run(config(workspace, seed=1, overwrite=True))
    assert (workspace.scores / "split1.old1" / PROTOCOL / "results.json").read_text() == before
    assert not (workspace.scores / "split1").exists()
    with pytest.raises(MissingError, match="'split1' has not been evaluated"):
        report.run(report.Config(workspace.root, run="split1"))


@pytest.mark.parametrize("finished", [True, False], ids=["trained", "being trained"])
def test_scores_of_an_earlier_run_of_that_name_are_not_reported_as_its_own(workspace: Workspace, finished: bool):
    kept = workspace.root / "kept"
    shutil.copytree(workspace.scores, kept)
    train.run(config(workspace, seed=1, overwrite=True))
    shutil.rmtree(workspace.scores)
    shutil.copytree(kept, workspace.scores)  # as stres 0.1 left them
    weights = Path(Run(workspace.runs / "split1").weights_file("motion"))
    if not finished:
        weights.unlink()
    for settings in ({"run": "split1"}, {}):
        with pytest.raises(MissingError, match=r"are not of the present run split1.*stres evaluate --run split1"):
            report.run(report.Config(workspace.root, **settings))


def test_the_page_shows_no_pictures_of_another_video_than_was_scored(workspace):
    scores = read_scores(workspace.scores / "split1" / PROTOCOL / "scores.h5")
    assert scores.sources == ["jump3", "jump4", "wave3", "wave4"]
    sources = dict(zip(scores.videos, scores.sources, strict=True))
    replace_video(workspace, "wave", "wave3")
    made = thumbnails(workspace, [scores], 10, lambda done, total: None, sources)
    assert sorted(scores.videos[place] for place in made) == ["jump/jump3", "jump/jump4", "wave/wave4"]


def test_scores_without_their_run_are_reported(workspace):
    shutil.rmtree(workspace.runs)
    assert report.run(report.Config(workspace.root)).videos == 4
