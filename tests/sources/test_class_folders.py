"""Which folders are classes, which are splits, and which layouts are refused by name."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.layouts.classes import class_by_name
from pipelines.sources.class_folders import Found, read_picture_folders
from pipelines.sources.videos import ReadAs, class_counts, find_videos


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def found(folder: Path, **settings: object) -> dict[str, str]:
    """Id -> split of each video."""
    return {video.id: video.split for video in find_videos(folder, **settings).videos}  # type: ignore[arg-type]


# ------------------------------------------------------------------ splits


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("train", "val", "validation"),
        ("Train", "TEST", "test"),
        ("training", "testing", "test"),
        ("train", "validation", "validation"),
        ("train", "valid", "validation"),
        ("train", "eval", "validation"),
        ("videos_train", "videos_val", "validation"),
        ("train_256", "val_256", "validation"),
        ("ucf101_train", "ucf101_test", "test"),
        ("my-train-clips_v2", "my-val-clips_v2", "validation"),
    ],
)
def test_folders_named_as_splits_are_splits_and_the_folders_in_them_classes(tmp_path, train, other, split):
    make(tmp_path, f"{train}/jump/a.avi", f"{train}/run/b.avi", f"{other}/jump/c.avi", f"{other}/run/d.avi")
    assert found(tmp_path) == {"jump/a": "train", "jump/c": split, "run/b": "train", "run/d": split}


def test_classes_may_be_called_train_and_test_beside_others(tmp_path):
    make(tmp_path, "train/a.avi", "bus/b.avi", "test/c.avi")
    assert found(tmp_path) == {"bus/b": "", "test/c": "", "train/a": ""}


def test_equal_names_in_two_splits_fail_naming_both(tmp_path):
    make(tmp_path, "train/jump/1.avi", "val/jump/1.avi", "train/run/2.avi")
    (problem,) = find_videos(tmp_path).problems
    assert (problem.class_name, problem.video) == ("jump", "1")
    assert str(tmp_path / "train/jump/1.avi") in problem.problem
    assert str(tmp_path / "val/jump/1.avi") in problem.problem


def test_split_folders_of_videos_without_classes_or_labels_are_refused(tmp_path):
    make(tmp_path, "train/a.mp4", "val/b.mp4")
    with pytest.raises(UsageError, match=r"train, val with videos but no class folders.*metadata\.csv.*--classes-at 1"):
        find_videos(tmp_path)
    assert found(tmp_path, read_as=ReadAs(classes_at=1)) == {"train/a": "", "val/b": ""}


def test_an_unlabelled_test_folder_is_taken_without_classes(tmp_path):
    make(tmp_path, "train/jump/a.mp4", "train/run/b.mp4", "test/c.mp4")
    assert found(tmp_path) == {"jump/a": "train", "run/b": "train", "unlabelled/c": "test"}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("place", ["", "train/"])
def test_hugging_faces_metadata_gives_labels(tmp_path, kind, place):
    make(tmp_path, "train/a.mp4", "train/sub/b.mp4", "train/c.mp4")
    (tmp_path / "train/sub/b.mp4").rename(tmp_path / "train/b.mp4")
    shutil.rmtree(tmp_path / "train/sub")
    above = "" if place else "train/"
    rows = [
        (f"{above}{name}.mp4", label) for name, label in (("a", "jump high"), ("b", "run, fast"), ("c", "jump high"))
    ]
    if kind == "csv":
        text = "file_name,label\n" + "".join(f'{name},"{label}"\n' for name, label in rows)
    else:
        text = "".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in rows)
    (tmp_path / f"{place}metadata.{kind}").write_text(text)
    assert found(tmp_path) == {"jump high/a": "train", "jump high/c": "train", "run, fast/b": "train"}


def test_metadata_beside_flat_videos_gives_labels(tmp_path):
    make(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.mp4,jump\nb.mp4,run\n")
    assert found(tmp_path) == {"jump/a": "", "run/b": ""}


def test_kinetics_annotations_label_videos_that_are_not_sorted(tmp_path):
    names = ["aAbB-_1_000001_000011", "xyz_000012_000022"]
    make(tmp_path, f"train/{names[0]}.mp4", f"val/part_0/{names[1]}.mp4", f"replacement/new/{names[0]}.mp4")
    header = "label,youtube_id,time_start,time_end,split\n"
    make(tmp_path, "annotations/train.csv")
    (tmp_path / "annotations/train.csv").write_text(
        header + 'abseiling,aAbB-_1,1,11,train\n"air, drumming",gone,1,11,train\n'
    )
    (tmp_path / "annotations/val.csv").write_text(header + '"air drumming",xyz,12,22,val\n')
    read = find_videos(tmp_path)
    assert {video.id: video.split for video in read.videos} == {
        f"abseiling/{names[0]}": "train",
        f"air drumming/{names[1]}": "validation",
    }
    assert read.videos[0].path == tmp_path / f"replacement/new/{names[0]}.mp4"


def test_parts_of_an_archive_are_no_classes(tmp_path):
    make(tmp_path, "train/part_0/jump/a.mp4", "train/part_1/run/b.mp4", "val/jump/c.mp4")
    assert found(tmp_path) == {"jump/a": "train", "jump/c": "validation", "run/b": "train"}


# ------------------------------------------------------------------ what is refused by name


def test_a_folder_one_level_too_high_is_refused_with_the_one_to_give(tmp_path):
    make(tmp_path, "UCF-101/jump/a.avi", "UCF-101/run/b.avi", "lists/trainlist01.txt")
    with pytest.raises(UsageError, match=f"one folder, UCF-101, with 2 folders of videos.*give {tmp_path}/UCF-101 "):
        find_videos(tmp_path)
    assert found(tmp_path, read_as=ReadAs(classes_at=1)) == {"UCF-101/a": "", "UCF-101/b": ""}
    assert found(tmp_path, read_as=ReadAs(classes_at=2)) == {"jump/a": "", "run/b": ""}


def test_a_folder_two_levels_too_high_names_the_innermost(tmp_path):
    make(tmp_path, "data/UCF-101/jump/a.avi", "data/UCF-101/run/b.avi")
    with pytest.raises(UsageError, match=f"give {tmp_path}/data/UCF-101 "):
        find_videos(tmp_path)


def test_splits_below_the_classes_are_the_videos_splits(tmp_path):
    make(tmp_path, "jump/train/a.avi", "jump/val/b.avi", "run/train/c.avi")
    found = find_videos(tmp_path)
    assert [(video.id, video.split) for video in found.videos] == [
        *(("jump/a", "train"), ("jump/b", "validation"), ("run/c", "train"))
    ]


@pytest.mark.parametrize("beside", ["other/run/b.avi", "split1/test/run/b.avi"])
def test_folders_named_as_splits_with_folders_below_are_no_classes(tmp_path, beside):
    make(tmp_path, "train/jump/a.avi", beside)
    with pytest.raises(UsageError, match=r"does not say which folders are the classes: it holds .*named as splits are"):
        find_videos(tmp_path)


def test_a_folder_above_the_splits_is_refused_and_its_splits_are_found_at_the_level_given(tmp_path):
    make(tmp_path, "data/train/jump/a.avi", "data/val/run/b.avi")
    with pytest.raises(UsageError, match=rf"2 folders of videos \(train, val\): give {tmp_path}/data "):
        find_videos(tmp_path)
    assert found(tmp_path, read_as=ReadAs(classes_at=3)) == {"jump/a": "train", "run/b": "validation"}


def test_a_level_too_high_within_a_split_is_refused_too(tmp_path):
    make(tmp_path, "train/UCF-101/jump/a.avi", "train/UCF-101/run/b.avi", "val/UCF-101/jump/c.avi")
    with pytest.raises(UsageError, match=f"give {tmp_path}/train/UCF-101 .* or --classes-at 2"):
        find_videos(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("jump/a.avi", "run/b.avi", "loose.avi"),
        ("jump/a.avi", "run/b.avi", "more/walk/c.avi", "more/wave/d.avi"),
        ("train/jump/a.avi", "val/run/b.avi", "loose.avi"),
        ("train/jump/a.avi", "train/loose.avi", "val/run/b.avi"),
    ],
)
def test_a_mixture_of_levels_is_refused(tmp_path, names):
    make(tmp_path, *names)
    with pytest.raises(UsageError, match=r"does not say which folders are the classes.*--classes-at N"):
        find_videos(tmp_path)
    read = find_videos(tmp_path, to_store=False)
    assert len(read.videos) == len(names)
    assert read.account.layout.startswith(f"videos in {tmp_path}, whose first folders are taken for classes")
    assert not read.account.notes


def test_groups_below_several_classes_are_kept_and_told(tmp_path):
    make(tmp_path, "walk/one/a.avi", "walk/two/b.avi", "run/one/c.avi")
    read = find_videos(tmp_path)
    assert read.account.classes == {"run": 1, "walk": 2}
    (note,) = read.account.notes
    assert note.startswith("all videos lie deeper")
    assert note.endswith("the class is 'run'; --classes-at 2 makes it 'one'")
    make(tmp_path, "run/two/d.avi")
    (note,) = find_videos(tmp_path).account.notes
    assert "each of run, walk holds the folders one, two: are they the classes" in note


def test_videos_without_folders_have_no_class_and_that_is_said(tmp_path):
    make(tmp_path, "a.avi", "b.avi")
    read = find_videos(tmp_path)
    assert read.account.sentences()[0] == "videos without class folders: no classes, 2 videos"
    assert "neither trained on nor tested" in read.account.notes[0]
    assert not find_videos(tmp_path, to_store=False).account.notes


def test_a_level_that_no_video_reaches_is_refused(tmp_path):
    make(tmp_path, "jump/a.avi", "run/b.avi")
    with pytest.raises(UsageError, match=r"--classes-at 2: the videos of .* lie in at most 1 folder"):
        find_videos(tmp_path, read_as=ReadAs(classes_at=2))


def test_class_names_that_no_split_list_can_hold_fail_before_work(tmp_path):
    make(tmp_path, " lead/a.avi", "trail /b.avi", "line\nbreak/c.avi", "good/d.avi", "good/ e.avi", "good/f .avi")
    read = find_videos(tmp_path)
    assert [video.id for video in read.videos] == ["good/d"]
    assert {problem.class_name for problem in read.problems} == {" lead", "trail ", "line\nbreak", "good"}
    assert all("rename the" in problem.problem for problem in read.problems)


# ------------------------------------------------------------------ what is passed over


def test_what_was_passed_over_is_counted_by_reason(tmp_path):
    make(
        tmp_path,
        "jump/a.avi",
        "jump/.b.avi",
        "run/c.avi",
        "run/notes.TXT",
        "run/d.jpg",
        "readme.txt",
        ".git/x",
        "run/noext",
    )
    (tmp_path / "again").symlink_to(tmp_path / "jump")
    account = find_videos(tmp_path).account
    assert account.skipped == {"hidden": 2, "not a video by its name": 4, "in folders linked in a second time": 2}
    assert account.suffixes == {".jpg": 1, ".txt": 2, "no suffix": 1}
    assert account.classes in ({"jump": 1, "run": 1}, {"again": 1, "run": 1})


@pytest.mark.parametrize("in_use", [True, False])
def test_a_workspace_within_videos_is_passed_over(tmp_path, in_use):
    make(tmp_path, "jump/a.avi", "run/b.avi", "work/predictions/a.mp4", "work/frames/jump/a.h5", "work/frames/c.avi")
    account = find_videos(tmp_path, workspace=tmp_path / "work" if in_use else None).account
    assert account.classes == {"jump": 1, "run": 1}
    assert account.skipped == {f"in the workspace {tmp_path}/work": 1}


def test_a_workspace_is_no_folder_of_videos(tmp_path):
    make(tmp_path, "predictions/a.mp4", "flow/jump/a.h5")
    with pytest.raises(UsageError, match="is a workspace of stres"):
        find_videos(tmp_path)


def test_a_glob_passes_over_what_a_workspace_holds(tmp_path):
    make(tmp_path, "jump/a.avi", "work/predictions/a.mp4", "work/frames/jump/a.h5")
    read = find_videos(f"{tmp_path}/**/*.*")
    assert [video.id for video in read.videos] == ["jump/a"]
    assert read.account.skipped["in a workspace of stres"] == 1


@pytest.mark.parametrize("pattern", ["", "/*/*.*", "/**/*.mp4"])
def test_films_of_timelines_written_elsewhere_are_passed_over(tmp_path, pattern):
    make(tmp_path, "jump/a.avi", "jump/film.mp4", "run/b.mp4", "run/b.json")
    (tmp_path / "jump/film.json").write_text('{\n  "schema": "stres/timeline/1"\n}')
    account = find_videos(f"{tmp_path}{pattern}").account
    assert account.classes == ({"run": 1} if pattern.endswith("mp4") else {"jump": 1, "run": 1})
    assert account.skipped["written by stres predict"] == 1


def test_a_folder_that_cannot_be_listed_becomes_a_problem(tmp_path, monkeypatch):
    import os

    make(tmp_path, "jump/a.avi", "run/b.avi")
    scandir = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("run"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refuse)
    (problem,) = find_videos(tmp_path).problems
    assert (problem.video, problem.problem) == ("run", "the folder cannot be listed (Permission denied)")


def test_many_classes_are_told_by_the_smallest_and_the_largest(tmp_path):
    make(tmp_path, *(f"c{number:02}/{video}.avi" for number in range(12) for video in range(number + 1)))
    assert find_videos(tmp_path).account.sentences() == [
        "class folders: 12 classes, 78 videos: from 1 (c00) to 12 (c11) a class, median 6.5"
    ]
    assert class_counts(dict.fromkeys("abcdefghi", 6)) == "9 classes, 54 videos: 6 a class"


def test_class_folders_without_videos_are_named(tmp_path):
    make(tmp_path / "a", "run/a.avi", "walk/deep/b.avi", "jump/notes.txt", "kick/deep/c.jpg", "annotations/x.csv")
    make(tmp_path / "b", "train/run/a.avi", "train/part_0/walk/b.avi", "val/run/c.avi", "val/walk/d.txt")
    make(tmp_path / "c", "clip.avi", "notes/d.txt")
    told = [find_videos(tmp_path / name).account.notes for name in "abc"]
    assert "class folders without videos: jump, kick" in told[0]
    assert told[1] == ["class folders without videos: val/walk"]
    assert not any("without videos" in note for note in told[2])


def test_classes_that_differ_in_case_only_are_told(tmp_path):
    make(tmp_path, "Jump/a.avi", "jump/b.avi", "run/c.avi")
    assert find_videos(tmp_path).account.notes == [
        "the classes Jump and jump differ in upper and lower case only, or in how accents are written"
    ]


def test_split_folders_are_told_with_what_says_the_classes_in_them():
    root = Path("pictures")
    names = ("train/v_Walk_g01_c01", "train/other", "test/v_Run_g01_c01")
    videos = [Found(root / name, (name.split("/")[0],), class_by_name(name.split("/")[1])) for name in names]
    read = read_picture_folders(root, videos, classes_at=None)
    assert read.layout == "test/, train/ with classes by the names of the videos"
    assert [(one.class_name, one.split) for one in read.videos][:2] == [("Run", "test"), ("Walk", "train")]
    (said,) = read.notes
    assert said.endswith("lets a student match its teacher on them")  # `predict` takes no folder of pictures
