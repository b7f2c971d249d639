"""`stres train --split all`, `evaluate --run all`: what they print, and their exit codes."""

import json

import pytest

from tests.training.test_all_splits import with_splits

TINY = ("--recipe", "small", "--width", 4, "--size", 32, "--steps", "appearance", "--batch-size", 4, "--device", "cpu")


def test_all_splits_are_trained_and_tested_and_say_what_comes_next(stres, random_workspace, tmp_path):
    root = with_splits(tmp_path, random_workspace).root
    trained = stres("train", "-w", root, "--split", "all", *TINY, "--iterations", 2)
    assert trained.exit_code == 0, trained.stderr
    assert [name for name in ("run split1", "run split2") if name in trained.stdout] == ["run split1", "run split2"]
    assert trained.stdout.splitlines()[-1].endswith(f"; next: stres evaluate --run all --workspace {root}")
    tested = stres("evaluate", "-w", root, "--run", "all", "--crops", 1, "--device", "cpu", "--json")
    assert tested.exit_code == 0, tested.stderr
    document = json.loads(tested.stdout)
    assert [(one["run"], one["results"]["videos"]) for one in document["runs"]] == [("split1", 4), ("split2", 4)]
    assert document["unusable"] == {}


def test_runs_that_diverge_are_named_and_the_exit_code_says_so(stres, random_workspace, tmp_path):
    root = with_splits(tmp_path, random_workspace).root
    trained = stres("train", "-w", root, "--split", "all", *TINY, "--iterations", 3, "--lr", 1e38, "--json")
    assert trained.exit_code == 3
    document = json.loads(trained.stdout)
    assert (document["runs"], list(document["diverged"])) == ([], ["split1", "split2"])
    assert trained.stderr.count("appearance diverged") == 2
    tested = stres("evaluate", "-w", root, "--run", "all", "--device", "cpu")
    assert tested.exit_code == 3
    assert f"error: run split1 has no finished step: {document['diverged']['split1']}" in tested.stderr
    assert "continue it" not in tested.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--split", "some"), "--split 'some' cannot be read: give a number of at least 1, or all"),
        (("train", "--split", 0), "--split 0: give a number of at least 1, or all"),
        (("train", "--folds", 1), "--folds 1: give an integer of at least 2"),
        (("train", "--groups", "g.csv", "--group-regex", "x"), "both say what a group is: give one of them"),
        (("report", "--splits", "all", "1"), "--splits 'all 1' cannot be read: give integers, such as 1,2,3, or all"),
        (("report", "--splits", "all", "--run", "x"), "--run 'x' names one run, but --splits asks for several"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(stres, random_workspace, arguments, message):
    shown = stres(*arguments, "-w", random_workspace.root)
    assert shown.exit_code == 2
    assert message in shown.stderr
    assert shown.stderr.count("\n") == 1
