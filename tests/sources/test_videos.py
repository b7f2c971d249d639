"""Which videos a VIDEOS argument means."""

import os
from pathlib import Path

import pytest

from pipelines.errors import MissingError, UsageError
from pipelines.sources.videos import ReadAs, find_videos


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def ids(argument: Path | str) -> list[str]:
    return [video.id for video in find_videos(argument).videos]


def test_the_class_is_the_first_folder_below_the_one_given(tmp_path: Path) -> None:
    make(tmp_path, "walk/b.avi", "walk/group1/a.MP4", "run/c.mkv")
    assert ids(tmp_path) == ["run/c", "walk/a", "walk/b"]


def test_other_files_are_counted_and_hidden_ones_are_not_seen(tmp_path: Path) -> None:
    make(tmp_path, "walk/a.avi", "walk/readme.txt", "Thumbs.db", "walk/.b.avi", ".git/c.avi")
    found = find_videos(tmp_path)
    assert ([video.id for video in found.videos], found.ignored) == (["walk/a"], 2)


def test_only_the_last_suffix_is_dropped(tmp_path: Path) -> None:
    make(tmp_path, "c/a.b.avi", "c/a #1 & [x].avi", "c/über.avi")
    assert sorted(ids(tmp_path)) == ["c/a #1 & [x]", "c/a.b", "c/über"]


def test_two_sources_of_one_name_are_both_refused_by_name(tmp_path: Path) -> None:
    make(tmp_path, "c/a.avi", "c/a.mp4", "c/b.avi")
    found = find_videos(tmp_path)
    assert [video.id for video in found.videos] == ["c/b"]
    (problem,) = found.problems
    assert (problem.class_name, problem.video) == ("c", "a")
    assert str(tmp_path / "c/a.avi") in problem.problem
    assert str(tmp_path / "c/a.mp4") in problem.problem


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "c/good.avi")
    try:
        make(tmp_path, os.fsdecode(b"c/b\xe9d.avi"))
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    found = find_videos(tmp_path)
    assert [video.id for video in found.videos] == ["c/good"]
    assert "UTF-8" in found.problems[0].problem


def test_folders_linked_in_are_followed_and_loops_end(tmp_path: Path) -> None:
    make(tmp_path, "elsewhere/a.avi", "videos/c/b.avi")
    (tmp_path / "videos/d").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "videos/c/loop").symlink_to(tmp_path / "videos")
    assert ids(tmp_path / "videos") == ["c/b", "d/a"]


@pytest.mark.parametrize(
    ("argument", "read_as", "message"),
    [
        ("v", ReadAs(label_column="genre"), "--label-column is for lists of videos, but v is a folder"),
        ("v", ReadAs(relative_to=Path("nowhere")), "--relative-to is for lists"),
        ("v/c/a.avi", ReadAs(whole_videos=True), "--whole-videos is for lists of videos, but v/c/a.avi is one video"),
        (
            "v/*/*.avi",
            ReadAs(class_names=Path("names.txt")),
            r"--class-names is for lists of videos, but v/\*/\*.avi is",
        ),
        ("list.txt", ReadAs(classes_at=1), "--classes-at is for folders of videos, but list.txt is a list"),
        ("", ReadAs(), "VIDEOS is empty"),
    ],
)
def test_what_would_be_ignored_is_refused(tmp_path, monkeypatch, argument, read_as, message):
    make(tmp_path, "v/c/a.avi")
    (tmp_path / "list.txt").write_text("v/c/a.avi walk\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        find_videos(argument, read_as=read_as)


def test_a_list_file_gives_path_and_label_relative_to_itself(tmp_path: Path) -> None:
    make(tmp_path, "lists/in here/a b.avi", "lists/#1 c.avi", "lists/# d.avi", "lists/alone x.avi")
    text = "\ufeffin here/a b.avi walk\n\n# a remark\n#1 c.avi run\n# d.avi run\nalone x.avi\n/gone/e.avi walk \r\n"
    (tmp_path / "lists/list.txt").write_text(text, encoding="utf-8")
    found = find_videos(tmp_path / "lists/list.txt").videos
    assert [video.id for video in found] == ["run/# d", "run/#1 c", "unlabelled/alone x", "walk/a b", "walk/e"]
    assert found[3].path == tmp_path / "lists/in here/a b.avi"
    assert found[4].path == Path("/gone/e.avi")


def test_a_line_given_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a.avi x\na.avi x\nb.avi y\n")
    assert ids(tmp_path / "list") == ["x/a", "y/b"]


@pytest.mark.parametrize("label", ["..", ".", "a/b", "x" * 201])
def test_labels_that_are_no_folder_names_are_refused_by_line(tmp_path: Path, label: str) -> None:
    (tmp_path / "list.txt").write_text(f"a.avi walk\nb.avi {label}\n")
    with pytest.raises(UsageError, match=r"list\.txt, line 2"):
        find_videos(tmp_path / "list.txt")


def test_one_video_is_unlabelled(tmp_path: Path) -> None:
    make(tmp_path, "walk/a [1].avi")
    assert ids(tmp_path / "walk/a [1].avi") == ["unlabelled/a [1]"]


def test_a_glob_takes_the_class_from_a_folder_it_leaves_open(tmp_path: Path) -> None:
    make(tmp_path, "walk/a.avi", "run/b.avi", "run/notes.txt")
    assert ids(f"{tmp_path}/*/*.avi") == ["run/b", "walk/a"]
    assert ids(f"{tmp_path}/run/*") == ["unlabelled/b"]
    assert find_videos(f"{tmp_path}/run/*").ignored == 1


@pytest.mark.parametrize(
    ("names", "argument", "told"),
    [
        (("train/a/1.avi", "val/a/2.avi"), "*/*/*.avi", "train, val"),
        (("train/a/1.avi", "train/b/2.avi"), "train/*/*.avi", "train"),
        (("train/1.avi", "Test/2.avi"), "list.txt", "Test, train"),
        (("train/a/1.avi", "other/a/2.avi"), "*/*/*.avi", ""),
        (("a/1.avi", "b/2.avi"), "*/*.avi", ""),
    ],
)
def test_folders_named_as_splits_in_a_list_or_glob_are_told_to_be_none(
    tmp_path: Path, names: tuple[str, ...], argument: str, told: str
) -> None:
    make(tmp_path, *names)
    (tmp_path / "list.txt").write_text("".join(f"{name} a\n" for name in names))
    account = find_videos(f"{tmp_path}/{argument}").account
    assert account is not None
    expected = [f"the videos lie in folders named as splits ({told}), which count for none here"] if told else []
    assert [note.partition(":")[0] for note in account.notes] == expected


@pytest.mark.parametrize("names", [("a/train/1.avi", "b/test/2.avi"), ("c/train/1.avi",)])
def test_a_glob_whose_classes_would_be_splits_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    make(tmp_path, *names)
    with pytest.raises(UsageError, match="named as splits are, not as classes"):
        find_videos(f"{tmp_path}/*/*/*.avi")
    assert find_videos(f"{tmp_path}/*/*/*.avi", to_store=False).videos


def test_what_exists_is_not_read_as_a_glob(tmp_path: Path) -> None:
    make(tmp_path, "[ab]/c/x.avi", "a/c/y.avi")
    assert ids(tmp_path / "[ab]") == ["c/x"]


@pytest.mark.parametrize("argument", ["missing", "missing/*.avi", "empty", "dangling.avi"])
def test_nothing_found_is_an_error_that_says_what_videos_can_be(tmp_path: Path, argument: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling.avi").symlink_to(tmp_path / "gone")
    with pytest.raises(MissingError, match="VIDEOS is a folder of class folders, a list file"):
        find_videos(f"{tmp_path}/{argument}")
    with pytest.raises(MissingError, match="VIDEOS is a video, a folder of videos, a list file"):
        find_videos(f"{tmp_path}/{argument}", to_store=False)


def test_a_file_that_is_neither_video_nor_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"\0\1\2")
    with pytest.raises(UsageError, match="neither a list file"):
        find_videos(tmp_path / "data.bin")
