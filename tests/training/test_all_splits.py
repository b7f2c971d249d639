"""Every split's run in one command: trained, tested and reported as one by one, continued, and none lost to another."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines import evaluate, report, train
from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.errors import Interrupted, MissingError, UsageError
from pipelines.evaluation.scores import read_scores
from pipelines.runtime.progress import Progress
from pipelines.storage.workspace import Workspace
from pipelines.training.loop import Diverged
from pipelines.training.runs import Run, split_numbers
from pipelines.training.settings import settle
from tests.helpers.tiny_training import config
from tests.helpers.workspaces import CLASSES

NUMBERS = (1, 2)


def with_splits(root: Path, random_workspace: Workspace) -> Workspace:
    """Two splits: the videos 0 and 1 of each class, or 2 and 3, are tested."""
    workspace = Workspace(Path(shutil.copytree(random_workspace.root, root / "work")))
    every = [f"{name}/{name}{number}" for name in CLASSES for number in range(5)]
    splits = []
    for number, tested in zip(NUMBERS, ("01", "23"), strict=True):
        sides = [[id_ for id_ in every if (id_[-1] in tested) == is_test] for is_test in (False, True)]
        splits.append(Split(number, *sides, list(CLASSES), "test"))
    write_splits(workspace.splits, splits)
    return workspace


@pytest.fixture
def two_splits(random_workspace: Workspace, tmp_path: Path) -> Workspace:
    return with_splits(tmp_path, random_workspace)


@pytest.fixture(scope="module")
def trained(random_workspace: Workspace, tmp_path_factory) -> tuple[Workspace, train.SplitsResult, list[str]]:
    """With both runs, and what was said."""
    workspace = with_splits(tmp_path_factory.mktemp("splits"), random_workspace)
    told: list[Progress] = []
    return workspace, train.run_splits(all_splits(workspace), told.append), messages(told)


def all_splits(workspace: Workspace, **changes) -> train.Config:
    return config(workspace, **({"split": "all", "steps": ("appearance",)} | changes))


def messages(told: list[Progress]) -> list[str]:
    return [progress.message for progress in told if progress.message]


def test_each_run_is_the_one_that_is_trained_alone(trained, two_splits):
    workspace, result, told = trained
    assert [one.run for one in result.runs] == ["split1", "split2"] == [f"split{number}" for number in NUMBERS]
    assert (result.named, result.diverged) == ("split{split}", {})
    assert [text for text in told if "run split" in text] == ["split 1 of 2: run split1", "split 2 of 2: run split2"]
    assert len(told) == len(set(told))  # what holds for both is said once
    alone = Run(train.run(config(two_splits, split=2, steps=("appearance",))).folder)
    together = Run(workspace.runs / "split2")
    assert together.config() == alone.config()
    for name, value in alone.weights("appearance")["model"].items():
        assert torch.equal(together.weights("appearance")["model"][name], value), name


def test_the_same_command_continues_where_it_stopped(two_splits):
    told: list[str] = []

    def stop(progress: Progress) -> None:
        told.append(progress.message)
        if "split 2 of 2: run split2" in told and progress.phase:
            raise Interrupted(2)

    with pytest.raises(Interrupted):
        train.run_splits(all_splits(two_splits), stop)
    again: list[Progress] = []
    result = train.run_splits(all_splits(two_splits), again.append)
    assert [[step.already_done for step in one.steps] for one in result.runs] == [[True], [False]]
    assert messages(again)[:2] == ["run split1 is already trained", "split 2 of 2: run split2"]
    assert not any("settings that no option gives" in text for text in messages(again))  # those are of all splits


def test_what_stops_a_later_split_is_found_before_the_first_is_trained(two_splits):
    train.run(config(two_splits, split=2, steps=("appearance",), seed=5))
    with pytest.raises(UsageError, match="run split2 was begun with another configuration: seed was 5"):
        train.run_splits(all_splits(two_splits))
    assert not (two_splits.runs / "split1").exists()
    alone = train.Config(two_splits.root, name="split2", weights="run:old-{split}", device="cpu")
    assert settle(alone)[0].weights == "run:old-2"


def test_a_run_that_diverges_does_not_stop_the_others(two_splits, monkeypatch):
    run = train.run

    def diverge(one: train.Config, *arguments) -> train.Result:
        if one.split == 1:
            raise Diverged("its loss is not finite")
        return run(one, *arguments)

    monkeypatch.setattr(train, "run", diverge)
    told: list[Progress] = []
    result = train.run_splits(all_splits(two_splits, name="mine-{split}"), told.append)
    assert result.diverged == {"mine-1": "its loss is not finite"}
    assert [one.run for one in result.runs] == ["mine-2"]
    assert "run mine-1: its loss is not finite" in messages(told)


def test_a_dry_run_estimates_each_and_writes_nothing(two_splits):
    result = train.run_splits(all_splits(two_splits, dry_run=True))
    assert [step.updates for one in result.runs for step in one.estimate.steps] == [4, 4]
    assert not two_splits.runs.exists()


def test_a_name_of_several_runs_holds_the_splits_number(two_splits):
    with pytest.raises(UsageError, match=r"put \{split\} in the place of the split's number, as in --name x-\{split\}"):
        all_splits(two_splits, name="x")
    with pytest.raises(UsageError, match="--name all"):
        config(two_splits, name="all")
    one = train.Config(Path(), "all", "x{split}", weights="run:a{split}/joint1").of_split(3)
    assert (one.split, one.run_name, one.weights) == (3, "x3", "run:a3/joint1")
    with pytest.raises(UsageError, match="run_splits trains all"):
        train.run(all_splits(two_splits))


def test_runs_of_a_further_set_are_named_after_it(two_splits):
    folds = {"splits": Path("by five"), "folds": 5}
    with pytest.raises(MissingError, match="no such folder, nor a set"):  # blanks are not for names
        train.run_splits(all_splits(two_splits, **folds))
    result = train.run(config(two_splits, split=2, splits=Path("five"), folds=5, steps=("appearance",)))
    run = Run(result.folder)
    assert (run.name, run.config().split_set, run.split().set_name) == ("five-split2", "five", "five")
    tested = evaluate.run(evaluate.Config(two_splits.root, crops=1, device="cpu"))
    assert (tested.results["split_set"], tested.results["groups"]) == ("five", "none")
    reported = report.run(report.Config(two_splits.root, run="five-split{split}", splits="all"))
    assert reported.of_splits == "split 2 of five"
    assert reported.notices == [
        "without splits 1, 3, 4, 5, of which no run was tested",
        "2 classes have a single test video: right in 0 or 100 %, with as much weight in the mean class",
        "no groups are known, so clips of one scene may stand on both sides of a split, which makes accuracy too high",
    ]


def test_all_runs_are_tested_once_and_their_mean_is_reported(trained, tmp_path):
    workspace = Workspace(Path(shutil.copytree(trained[0].root, tmp_path / "work")))
    settings = evaluate.Config(workspace.root, "all", crops=2, device="cpu")
    result = evaluate.run_splits(settings)
    scores = [one.folder / "scores.h5" for one in result.runs]
    assert [len(read_scores(path).videos) for path in scores] == [4, 4]

    before = [path.stat().st_mtime_ns for path in scores]
    (workspace.scores / "split2" / scores[1].parent.name / "results.json").unlink()
    told: list[Progress] = []
    again = evaluate.run_splits(settings, told.append)
    assert [one.results["appearance"] for one in again.runs] == [one.results["appearance"] for one in result.runs]
    assert [path.stat().st_mtime_ns == time for path, time in zip(scores, before, strict=True)] == [True, False]
    assert [text for text in messages(told) if "run" in text] == [
        "run split1",
        "run split1 was tested so already",
        "run split2",
    ]

    reported = report.run(report.Config(workspace.root, splits="all"))
    assert (reported.name, reported.notices) == ("split1+2", [])
    top1 = np.mean([one.results["appearance"]["top1"] for one in result.runs])
    assert reported.streams["appearance"].top1 == pytest.approx(top1)
    shutil.rmtree(workspace.scores / "split2")
    assert report.run(report.Config(workspace.root, splits="all")).notices == [
        "without split 2, of which no run was tested"
    ]
    shutil.rmtree(workspace.scores / "split1")
    with pytest.raises(
        MissingError, match=r"no run split\{split\} has been evaluated in .*: run `stres evaluate --run all`"
    ):
        report.run(report.Config(workspace.root, splits="all"))


def test_a_run_without_a_network_is_left_out_of_the_test(trained, tmp_path):
    workspace = Workspace(Path(shutil.copytree(trained[0].root, tmp_path / "work")))
    (workspace.runs / "split1" / "appearance" / "weights.pt").unlink()
    told: list[Progress] = []
    result = evaluate.run_splits(evaluate.Config(workspace.root, "split{split}", crops=1, device="cpu"), told.append)
    assert [one.run for one in result.runs] == ["split2"]
    command = f"stres train --name split1 --workspace {workspace.root}"
    assert result.unusable == {"split1": f"run split1 has no finished step: continue it with `{command}`"}
    again = evaluate.Config(workspace.root, "all", crops=1, device="cpu", dry_run=True)
    (workspace.runs / "split1" / "config.json").write_text("{")
    assert list(evaluate.run_splits(again).unusable) == ["split1"]
    shutil.rmtree(workspace.runs / "split1")
    evaluate.run_splits(again, told.append)
    assert "no run yet of split 1: see `stres train --split all`" in messages(told)
    with pytest.raises(MissingError, match=r"there is no run x\{split\} in .*: there are split2; train those of all"):
        evaluate.run_splits(evaluate.Config(workspace.root, "x{split}"))


def test_a_run_without_best_weights_is_left_out_of_their_test(trained, tmp_path):
    workspace = Workspace(Path(shutil.copytree(trained[0].root, tmp_path / "work")))
    folder = workspace.runs / "split2" / "appearance"
    shutil.copy(folder / "weights.pt", folder / "best.pt")
    settings = {"crops": 1, "device": "cpu", "checkpoint": "best", "dry_run": True}
    result = evaluate.run_splits(evaluate.Config(workspace.root, "all", **settings))
    assert [one.run for one in result.runs] == ["split2"]
    assert "run split1 has no best weights of appearance" in result.unusable["split1"]


def test_numbers_of_splits_are_read_off_the_names_of_runs():
    names = ["split1", "split10", "split2", "split2.old1", "splitx", "my-split3", "split"]
    assert split_numbers(names, "split{split}") == [1, 2, 10]
    assert split_numbers(["a1b", "a2b", "ab", "1"], "a{split}b") == [1, 2]
