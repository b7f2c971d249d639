"""What `train` says of classes and videos before its first update, and which lists it refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import evaluate, report, train
from pipelines.datasets.split_lists import Split
from pipelines.datasets.splits import write_splits
from pipelines.errors import MissingError, UsageError
from pipelines.runtime.progress import Progress
from pipelines.storage.atomic import write_json
from pipelines.storage.workspace import Workspace
from pipelines.training.data import TrainingData, find_training_data
from pipelines.training.runs import Run
from tests.helpers.tiny_training import config


def find(workspace: Workspace, told: list[Progress], **settings: Any) -> TrainingData:
    return find_training_data(train.Config(workspace.root, **settings), told.append)


def messages(told: list[Progress]) -> list[str]:
    return [report.message for report in told]


def split_of(workspace: Workspace, train_ids: list[str], test_ids: list[str], *classes: str) -> None:
    write_splits(workspace.splits, [Split(1, train_ids, test_ids, list(classes), "test")])


def test_classes_and_their_numbers_are_told_before_the_first_update(workspace):
    told: list[Progress] = []
    find(workspace, told)
    assert messages(told)[0] == "training: 2 classes, 6 videos: jump 3, wave 3"
    assert messages(told)[1:] == [
        "test: 2 classes, 4 videos: jump 2, wave 2; always answering the most frequent class is right in 50.0 %, "
        "chance is 50.0 %"
    ]


def test_unbalanced_classes_and_one_of_a_single_video_are_told_until_they_are_balanced(workspace):
    split_of(workspace, ["jump/jump0", "jump/jump1", "jump/jump2", "wave/wave0"], ["jump/jump3"], "jump", "wave")
    told: list[Progress] = []
    find(workspace, told)
    assert "1 class has a single training video (wave): that is all it can learn of them" in messages(told)
    assert any("the classes are unbalanced: --balance sampler" in text for text in messages(told))
    find(workspace, told := [], balance="loss")
    assert not any("unbalanced" in text for text in messages(told))


@pytest.mark.parametrize("balance", ["sampler", "loss"])
def test_balance_trains_otherwise_and_belongs_to_the_run(workspace, balance):
    split_of(workspace, ["jump/jump0", "jump/jump1", "jump/jump2", "wave/wave0"], ["jump/jump3"], "jump", "wave")
    one = {"steps": ("appearance",), "overrides": {"appearance": {"iterations": 2, "batch_size": 4, "lr": 1e-3}}}
    plain = train.run(config(workspace, **one, name="plain"))
    balanced = train.run(config(workspace, **one, balance=balance))
    assert plain.steps[0].metrics["loss"] != balanced.steps[0].metrics["loss"]
    assert "balance" not in json.loads((plain.folder / "config.json").read_text())
    assert Run(balanced.folder).config().balance == balance
    assert train.run(config(workspace, **one)).steps[0].already_done
    with pytest.raises(UsageError, match=f'balance was "{balance}" and is now none'):
        train.run(config(workspace, **one, balance="none"))


def test_lists_of_other_names_than_the_workspaces_are_shown_beside_them(workspace):
    split_of(workspace, ["jump/jump0 20", "wave/wave0 20"], ["jump/jump1 20"], "jump", "wave")
    with pytest.raises(
        MissingError, match=r"the lists name 'jump/jump0 20', the workspace has .* such as 'jump/jump0'"
    ):
        find(workspace, [])


def test_a_single_class_is_refused_with_what_it_means(workspace):
    split_of(workspace, ["jump/jump0"], ["jump/jump1"], "jump")
    with pytest.raises(UsageError, match=r"one class only, 'jump': a network of one class .* nothing; name videos"):
        find(workspace, [])
    split_of(workspace, ["jump/jump0", "wave/wave0"], ["jump/jump1"], "jump", "wave")
    with pytest.raises(UsageError, match=r"one class only, 'jump': .* nothing; leave fewer out by --exclude-class"):
        find(workspace, [], exclude_classes=("wave",))


def test_a_class_that_only_tests_is_refused_unless_it_is_left_out(workspace):
    split_of(workspace, ["jump/jump0", "wave/wave0"], ["jump/jump1", "green/g"], "green", "jump", "wave")
    with pytest.raises(UsageError, match=r"class 'green' .* no training video.*--exclude-class green"):
        find(workspace, [])
    assert find(workspace, [], exclude_classes=("green",)).classes == ["jump", "wave"]


def test_a_class_that_the_lists_write_in_two_cases_is_named_as_that(workspace):
    split_of(workspace, ["Jump/jump0", "wave/wave0"], ["jump/jump1", "wave/wave1"], "Jump", "jump", "wave")
    with pytest.raises(UsageError, match=r"training list of split 1 calls a class 'Jump', the test list 'jump'"):
        find(workspace, [])


def test_a_class_that_is_left_out_of_splits_that_are_made_is_left_out_of_the_training(workspace):
    for kind in (workspace.frames, workspace.flow):
        (kind / "few").mkdir()
        shutil.copy(kind / "jump" / "jump0.h5", kind / "few")
    shutil.rmtree(workspace.splits)
    with pytest.raises(UsageError, match=r"'few' has one video, .* leave the class out by --exclude-class few"):
        find(workspace, [])
    assert find(workspace, [], exclude_classes=("Few",)).classes == ["jump", "wave"]
    with pytest.raises(UsageError, match="--exclude-class none: split 1 has the classes jump, wave"):
        find(workspace, [], exclude_classes=("none",))


def test_a_class_that_no_list_or_no_file_has_is_told(workspace):
    split_of(workspace, ["jump/jump0", "wave/wave0", "hop/gone"], ["jump/jump1"], "hop", "jump", "skip", "wave")
    told: list[Progress] = []
    assert find(workspace, told).classes == ["hop", "jump", "skip", "wave"]
    assert any("2 of 4 classes have no training video here (hop, skip)" in text for text in messages(told))


def test_an_empty_test_list_is_told_by_train_and_refused_by_evaluate(workspace):
    split_of(workspace, ["jump/jump0", "wave/wave0"], [], "jump", "wave")
    told: list[Progress] = []
    data = find(workspace, told)
    assert "the test list of split 1 is empty: this run cannot be evaluated" in messages(told)
    from pipelines.evaluation.videos import find_test_videos

    run = Run(workspace.runs / "empty")
    write_json(run.split_file, {"number": 1, "train": data.split.train, "test": [], "classes": [], "source": ""})
    with pytest.raises(MissingError, match=r"split of run empty has no test video .*: there is nothing to evaluate"):
        find_test_videos(
            workspace, run, SimpleNamespace(classes=data.classes, flow=data.flow, excluded_classes=()), force=False
        )


def test_videos_in_no_split_are_told_by_train_and_by_evaluate(workspace):
    split_of(workspace, ["jump/jump0", "wave/wave0"], ["jump/jump1", "wave/wave1"], "jump", "wave")
    told: list[Progress] = []
    data = find(workspace, told)
    sentence = "6 videos of 2 classes, for example jump/jump2 are in no list of "
    assert any(text.startswith(sentence + "split 1: `stres train --overwrite`") for text in messages(told))
    from pipelines.evaluation.videos import find_test_videos

    run = Run(workspace.runs / "some")
    lists = {"train": data.split.train, "test": data.split.test, "classes": data.classes}
    write_json(run.split_file, {"number": 1, "source": ""} | lists)
    told.clear()
    find_test_videos(
        workspace, run, SimpleNamespace(classes=data.classes, flow=data.flow, excluded_classes=()), force=False
    ).tell(told.append)
    assert messages(told)[0] == "test: 2 classes, 2 videos: jump 1, wave 1"
    assert messages(told)[1].startswith(sentence + "the run's split")


def test_a_file_that_is_stored_under_two_classes_is_told(workspace):
    for kind in (workspace.frames, workspace.flow):
        shutil.copy(kind / "jump/jump0.h5", kind / "wave/relabelled.h5")
    split_of(workspace, ["jump/jump0", "wave/wave0"], ["jump/jump1", "wave/relabelled"], "jump", "wave")
    find(workspace, told := [])
    sentence = (
        "1 file is stored under two classes or on both sides of the split, for example as jump/jump0 and wave/rel"
    )
    assert any(text.startswith(sentence) for text in messages(told))


def test_no_training_video_under_the_lists_names_says_how_they_differ(workspace):
    split_of(workspace, ["leap/jump0", "hand/wave0"], ["leap/jump1", "hand/wave1"], "hand", "leap")
    with pytest.raises(MissingError, match="2 of them are there under another class: the lists say leap/jump0, the"):
        find(workspace, [])


def test_left_out_classes_are_part_of_the_configuration_and_stay_out_of_the_test(workspace):
    shutil.copytree(workspace.frames / "jump", workspace.frames / "skip")
    shutil.copytree(workspace.flow / "jump", workspace.flow / "skip")
    skipped = [f"skip/jump{number}" for number in range(4)]
    three = ["jump/jump0", "jump/jump1", "wave/wave0", "wave/wave1"]
    split_of(workspace, [*three, *skipped[:2]], ["jump/jump3", "wave/wave3", *skipped[2:]], "jump", "skip", "wave")

    result = train.run(config(workspace, steps=("appearance",), exclude_classes=("skip",)))

    run = Run(result.folder)
    assert run.config().excluded_classes == ("skip",)
    assert run.config().classes == ("jump", "wave")
    assert run.split().test == ["jump/jump3", "wave/wave3"]
    assert train.run(config(workspace, steps=("appearance",))).steps[0].already_done
    with pytest.raises(UsageError, match="classes was"):
        train.run(config(workspace, steps=("appearance",), exclude_classes=("wave",)))
    tested = evaluate.run(evaluate.Config(workspace.root, crops=1, device="cpu"))
    assert tested.results["videos"] == 2
    assert tested.results["excluded_classes"] == ["skip"]
    reported = report.run(report.Config(workspace.root))
    assert reported.excluded == ("skip",)
    assert "Without the classes skip" in Path(reported.files["report.html"]).read_text()


def test_other_runs_say_nothing_of_left_out_classes(workspace):
    result = train.run(config(workspace, steps=("appearance",)))
    assert "excluded_classes" not in Run(Path(result.folder)).config().to_json()
