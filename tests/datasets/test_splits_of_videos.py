"""The splits that videos carry themselves, videos that no split names, and lists that contradict themselves."""

from pathlib import Path

import pytest

from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.dataset_file import read_dataset_file
from pipelines.datasets.split_lists import Split, read_lists
from pipelines.datasets.splits import (
    in_no_split,
    prepare_splits,
    resolve,
    what_they_lack,
    without_classes,
    write_splits,
)
from pipelines.errors import UsageError


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.fixture
def add_sides(add_video):
    """Adds two videos of each of two classes to each of these splits."""

    def add(*sides: str) -> None:
        for class_name in ("jump", "run"):
            for side in sides:
                for number in (1, 2):
                    add_video(class_name, f"{class_name}_{side}_{number}", 12, source_split=side)

    return add


# ------------------------------------------------------------------ the videos' own split


@pytest.mark.parametrize(
    ("sides", "tested", "held_apart"),
    [
        (("train", "test"), "test", 0),
        (("train", "validation"), "validation", 0),
        (("train", "validation", "test"), "test", 4),
    ],
)
def test_a_split_that_the_videos_carry_is_used_and_told_instead_of_chance(
    workspace, add_sides, sides, tested, held_apart
):
    add_sides(*sides)
    told: list[str] = []
    [split] = prepare_splits(workspace, load_catalogue(workspace), seed=5, tell=told.append)
    assert {id_.split("_")[1] for id_ in split.train} == {"train"}
    assert {id_.split("_")[1] for id_ in split.test} == {tested}
    assert (len(split.train), len(split.test), len(split.held_apart)) == (4, 4, held_apart)
    assert told[0].startswith(f"the split is the videos' own: 4 train, 4 test ({tested})")
    assert prepare_splits(workspace, load_catalogue(workspace), seed=6) == [split]
    assert resolve(split, load_catalogue(workspace)).unlisted == []


def test_the_split_of_a_video_is_kept_in_dataset_json_and_made_again_from_the_files(workspace, add_sides):
    add_sides("train", "test")
    first = load_catalogue(workspace)
    assert {video.source_split for video in first.videos} == {"train", "test"}
    assert {artifact.source_split for artifact in read_dataset_file(workspace.dataset_file).values()} == {
        "train",
        "test",
    }
    assert load_catalogue(workspace).videos == first.videos
    workspace.dataset_file.unlink()
    assert load_catalogue(workspace).videos == first.videos


def test_videos_that_all_are_for_training_are_divided_by_chance_and_that_is_told(workspace, add_sides):
    add_sides("train")
    told: list[str] = []
    assert len(prepare_splits(workspace, load_catalogue(workspace), tell=told.append)) == 2
    assert "divided at random" in told[0]
    assert told[1].startswith("2 splits are made instead of 3")


def test_unlabelled_test_videos_leave_the_test_to_validation(workspace, add_sides, add_video):
    add_sides("train", "validation")
    add_video("unlabelled", "x", 12, source_split="test")
    [split] = prepare_splits(workspace, load_catalogue(workspace))
    assert {id_.split("_")[1] for id_ in split.test} == {"validation"}
    assert resolve(split, load_catalogue(workspace)).unlisted == []


# ------------------------------------------------------------------ videos in no split


@pytest.fixture
def made(workspace, add_video):
    for class_name in ("blue", "red"):
        for number in range(3):
            add_video(class_name, f"{class_name}{number}", 12)
    return prepare_splits(workspace, load_catalogue(workspace), seed=3)


def test_videos_added_later_are_in_no_split_and_overwrite_makes_the_splits_again(workspace, made, add_video):
    for number in range(3):
        add_video("yellow", f"yellow{number}", 12)
    catalogue = load_catalogue(workspace)
    assert prepare_splits(workspace, catalogue) == made
    unlisted = resolve(made[0], catalogue).unlisted
    assert unlisted == ["yellow/yellow0", "yellow/yellow1", "yellow/yellow2"]
    assert in_no_split(unlisted, "split 1").startswith(
        "3 videos of class yellow are in no list of split 1: `stres train"
    )

    told: list[str] = []
    again = prepare_splits(workspace, catalogue, seed=9, overwrite=True, tell=told.append)

    assert again[0].classes == ["blue", "red", "yellow"]
    assert told[0] == "3 videos were in no split, for example yellow/yellow0: the splits are made again"
    assert prepare_splits(workspace, catalogue, seed=10, overwrite=True) == again  # nothing is missing: they stay
    assert {split.source for split in again} == {str(workspace.splits)}


def test_lists_of_ones_own_are_never_made_again(workspace, made, add_video, tmp_path):
    lists = write(
        tmp_path / "lists",
        trainlist01="blue/blue0.avi 1\nred/red0.avi 2\n",
        testlist01="blue/blue1.avi\nred/red1.avi\n",
    )
    [split] = prepare_splits(workspace, load_catalogue(workspace), lists, overwrite=True)
    assert prepare_splits(workspace, load_catalogue(workspace), overwrite=True) == [split]
    assert resolve(split, load_catalogue(workspace)).unlisted == ["blue/blue2", "red/red2"]


def test_videos_that_lists_mark_as_unused_are_not_missed(workspace, made, tmp_path):
    lists = write(
        tmp_path, blue_test_split1="blue0.avi 1\nblue1.avi 2\nblue2.avi 0\n", red_test_split1="red0.avi 1\nred1.avi 2\n"
    )
    [split] = read_lists(lists)
    assert split.held_apart == ["blue/blue2"]
    assert resolve(split, load_catalogue(workspace)).unlisted == ["red/red2"]


def test_what_is_held_apart_is_written_and_read_back(tmp_path):
    split = Split(1, ["a/1", "b/2"], ["a/3", "b/4"], ["a", "b"], "made", held_apart=["a/5"])
    write_splits(tmp_path / "splits", [split])
    [read] = read_lists(tmp_path / "splits")
    assert (read.train, read.test, read.held_apart) == (split.train, split.test, split.held_apart)


def test_a_class_that_is_left_out_takes_no_part_and_is_not_missed(workspace, made):
    split = without_classes(made[0], ["Red"])
    assert split.classes == ["blue"]
    assert all(id_.startswith("blue/") for id_ in (*split.train, *split.test))
    assert resolve(split, load_catalogue(workspace), ["Red"]).unlisted == []
    with pytest.raises(UsageError, match="--exclude-class green: split 1 has the classes blue, red"):
        without_classes(made[0], ["green"])


def test_a_class_that_is_left_out_may_be_too_small_to_split(workspace, add_video):
    for class_name, count in (("blue", 3), ("few", 1), ("red", 3)):
        for number in range(count):
            add_video(class_name, f"{class_name}{number}", 12)
    splits = prepare_splits(workspace, load_catalogue(workspace), exclude=["Few"])
    assert splits[0].classes == ["blue", "red"]


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        (
            "jump/blue0",
            r"1 of them are there under another class: the lists say jump/blue0, the workspace has blue/blue0",
        ),
        ("blue/Blue-0", r"under another name: the lists say blue/Blue-0, the workspace has blue/blue0"),
    ],
)
def test_names_that_differ_from_the_lists_are_told(workspace, made, listed, told):
    assert told in what_they_lack([listed, "blue/gone"], load_catalogue(workspace))
    assert what_they_lack(["blue/gone"], load_catalogue(workspace)) == ""


@pytest.mark.parametrize(("there", "lacks"), [("frames", "flow"), ("flow", "frames")])
def test_a_video_with_one_of_its_two_artifacts_is_no_other_name_for_itself(workspace, made, there, lacks):
    (getattr(workspace, lacks) / "blue" / "blue0.h5").unlink()
    catalogue = load_catalogue(workspace)
    told = f"{there} and no {lacks}: run `stres extract-{lacks}` on the videos"
    assert what_they_lack(["blue/blue0"], catalogue) == f"they have {told}"
    assert what_they_lack(["blue/blue0", "blue/gone"], catalogue) == f"1 of them has {told}"


# ------------------------------------------------------------------ lists that contradict themselves


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"trainlist01": "red/a.avi 0\nred/b.avi 1\n", "testlist01": "red/c.avi\n"},
            "line 2 of .*trainlist01.txt gives 'red' the label 1, but line 1 of .* gives it 0",
        ),
        (
            {"trainlist01": "red/a.avi 0\nblue/b.avi 0\n", "testlist01": "red/c.avi\n"},
            "line 2 of .*trainlist01.txt gives 'blue' the label 0, but line 1 of .* gives this label to 'red'",
        ),
        (
            {"trainlist01": "red/a.avi 0\nblue/b.avi 1\n", "testlist01": "red/c.avi 1\n"},
            "line 1 of .*testlist01.txt gives 'red' the label 1",
        ),
        ({"trainlist01": "", "testlist01": "red/c.avi\n"}, "trainlist01.txt names no training video"),
        (
            {"trainlist01": "red/a.avi 1\n", "testlist01": "red/b.avi\n", "classInd": "1 red\n1 blue\n"},
            "line 2 of .*classInd.txt gives 'blue' the number 1, which another class has",
        ),
        ({"red_test_split1": "a.avi 2\nb.avi 0\n"}, "mark no video 1, for training"),
    ],
)
def test_lists_that_contradict_themselves_are_refused(tmp_path, files, message):
    with pytest.raises(UsageError, match=message):
        read_lists(write(tmp_path, **files))
