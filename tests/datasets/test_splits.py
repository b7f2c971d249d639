"""Split lists of both formats, splits made from groups, and what a workspace does with them."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from pipelines.datasets import splits as splits_module
from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.group_splits import leaking_groups
from pipelines.datasets.groups import group_of
from pipelines.datasets.split_lists import Split, list_files, read_lists
from pipelines.datasets.splits import make_splits, prepare_splits, resolve, sets_of_splits, write_splits
from pipelines.errors import MissingError, UsageError
from pipelines.storage.atomic import temporary_name

OFFICIAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "splits"
needs_lists = pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official lists are not here")


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder


UCF = {
    "classInd": "1 Bend\n2 Walk\n",
    "trainlist01": "Bend/v_Bend_g01_c01.avi 1\nWalk/v_Walk_g01_c01.avi 2\n",
    "testlist01": "Bend/v_Bend_g02_c01.avi\nWalk/v_Walk_g02_c01.avi\n",
}


# ------------------------------------------------------------------ lists


@needs_lists
def test_official_ucf101_lists_have_the_official_counts():
    splits = read_lists(OFFICIAL / "ucf101")
    assert [(split.name, len(split.train), len(split.test)) for split in splits] == [
        ("split1", 9537, 3783),
        ("split2", 9586, 3734),
        ("split3", 9624, 3696),
    ]
    assert all(len(split.classes) == 101 and split.classes == sorted(split.classes) for split in splits)
    assert all(len({*split.train, *split.test}) == 13320 for split in splits)
    assert splits[0].train[0] == "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01"
    assert all(leaking_groups(split) == [] for split in splits)


@needs_lists
def test_official_hmdb51_lists_have_the_official_counts():
    splits = read_lists(OFFICIAL / "hmdb51")
    assert [(len(split.train), len(split.test)) for split in splits] == [(3570, 1530)] * 3
    assert all(len(split.classes) == 51 and split.classes == sorted(split.classes) for split in splits)
    assert all(set(Counter(id_.split("/")[0] for id_ in split.train).values()) == {70} for split in splits)
    assert splits[0].classes.index("kick") < splits[0].classes.index("kick_ball")


@needs_lists
def test_made_splits_of_ucf101_keep_its_groups_together_and_its_classes_in_proportion():
    ids = [tuple(id_.split("/")) for id_ in read_lists(OFFICIAL / "ucf101")[0].train]
    for split in make_splits(ids, seed=0):
        assert leaking_groups(split) == []
        everything = Counter(class_name for class_name, _ in ids)
        tested = Counter(id_.split("/")[0] for id_ in split.test)
        shares = [tested[name] / everything[name] for name in split.classes]
        assert 0.2 < min(shares) <= max(shares) < 0.47


def test_numbers_may_have_any_digits_and_windows_line_ends(tmp_path):
    lists = {f"{side}list{number}": UCF[f"{side}list01"] for side in ("train", "test") for number in ("1", "010", "12")}
    folder = write(tmp_path, classInd=UCF["classInd"].replace("\n", "\r\n"), **lists)
    assert [split.number for split in read_lists(folder)] == [1, 10, 12]
    assert read_lists(folder)[0].train == ["Bend/v_Bend_g01_c01", "Walk/v_Walk_g01_c01"]


def test_lists_as_powershell_writes_them_are_read(tmp_path):
    before = read_lists(write(tmp_path, **UCF))
    for path in tmp_path.iterdir():
        path.write_text(path.read_text(), encoding="utf-16")
    assert read_lists(tmp_path) == before


def test_names_may_hold_blanks_dots_and_other_bytes(tmp_path):
    folder = write(
        tmp_path,
        trainlist01="my class/a b.c 1.avi 1\n\nmy class/\udce4.mp4\t1 \n",
        testlist01="my class/clip 7.avi\nmy class/labelled.avi 1\nmy class/#&(!;[x].avi\n",
    )
    [split] = read_lists(folder)
    assert split.train == ["my class/a b.c 1", "my class/\udce4"]
    assert split.test == ["my class/clip 7", "my class/labelled", "my class/#&(!;[x]"]
    assert split.classes == ["my class"]


def test_hmdb51_lines_are_train_test_or_unused(tmp_path):
    folder = write(
        tmp_path,
        wave_test_split2="#1 a&b(c)!;[d]_wave.avi 1 \nb.avi 2 \nc.avi 0 \n",
        brush_hair_test_split2="d.avi 2 \n",
    )
    [split] = read_lists(folder)
    assert (split.number, split.classes) == (2, ["brush_hair", "wave"])
    assert split.train == ["wave/#1 a&b(c)!;[d]_wave"]
    assert split.test == ["brush_hair/d", "wave/b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainlist01": "Bend/a.avi 1\nBend b.avi 1\n"}, "line 2 of .*trainlist01.txt must be like"),
        ({"trainlist01": "Bend/a.avi\n"}, "line 1 of .*trainlist01.txt must be like"),
        ({"trainlist01": "Bend/a.avi 2\n"}, "label 2, but classInd.txt says 1"),
        ({"trainlist01": "Jump/a.avi 1\n"}, "'Jump', which classInd.txt does not list"),
        ({"testlist01": "a.avi\n"}, "line 1 of .*testlist01.txt must be like"),
        ({"testlist01": "Bend/x.avi\nBend/x.mp4\n"}, r"line 2 of .*testlist01.txt names 'Bend/x' again"),
        ({"testlist01": "Bend/v_Bend_g01_c01.avi\n"}, r"testlist01.txt names .* again, .* line 1 of .*trainlist01"),
        ({"classInd": "1 Bend\nWalk\n"}, "line 2 of .*classInd.txt must be like"),
        ({"classInd": "1 Bend\n2 Bend\n"}, "line 2 of .*classInd.txt names the class 'Bend' again"),
        ({"trainlist02": "Bend/a.avi 1\n"}, "lacks testlist02.txt"),
        ({"trainlist1": "Bend/a.avi 1\n"}, "are both split 1"),
        ({"wave_test_split1": "a.avi 1\n"}, "lists of UCF101's and of HMDB51's kind"),
    ],
)
def test_broken_ucf101_lists_are_refused_by_file_and_line(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        read_lists(write(tmp_path, **(UCF | changes)))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a_test_split1": "x.avi 3\n"}, "line 1 of .*a_test_split1.txt must be like"),
        ({"a_test_split1": "\nx.avi\n"}, "line 2 of .*a_test_split1.txt must be like"),
        ({"a_test_split1": "x.avi 1\n", "b_test_split2": "y.avi 1\n"}, "lacks b_test_split1.txt"),
        ({"readme": "hello"}, "no split lists"),
    ],
)
def test_broken_hmdb51_lists_are_refused_by_file_and_line(tmp_path, files, message):
    with pytest.raises(UsageError, match=message):
        read_lists(write(tmp_path, **files))


def test_a_folder_of_lists_that_is_not_there_is_missing(workspace, add_video, tmp_path):
    add_video("Bend", "a")
    with pytest.raises(MissingError, match="there is no such folder"):
        prepare_splits(workspace, load_catalogue(workspace), tmp_path / "nowhere")


def test_written_splits_are_read_back_the_same(tmp_path):
    names = ["a.b", "ä #&[1]", "clip 3", "x.avi 2", "y"]
    splits = [Split(n, [f"my class/{name}" for name in names], ["z/1"], ["my class", "z"], "made") for n in (1, 2, 11)]
    write_splits(tmp_path / "splits", splits)
    read = read_lists(tmp_path / "splits")
    assert [(s.number, s.train, s.test, s.classes) for s in read] == [
        (s.number, s.train, s.test, s.classes) for s in splits
    ]


def test_a_name_that_no_line_can_hold_is_refused(tmp_path):
    with pytest.raises(UsageError, match="line break"):
        write_splits(tmp_path / "splits", [Split(1, ["a/x\ny"], ["a/z"], ["a"], "made")])
    assert not (tmp_path / "splits").exists()


# ------------------------------------------------------------------ made splits


def grouped_videos(classes=4, groups=6, clips=3):
    return [
        (f"C{c}", f"v_C{c}_g{g:02}_c{k:02}") for c in range(classes) for g in range(1, groups + 1) for k in range(clips)
    ]


def test_every_video_tests_once_and_no_group_stands_on_both_sides():
    videos = grouped_videos()
    splits = make_splits(videos, seed=3)
    assert [split.number for split in splits] == [1, 2, 3]
    tested = [id_ for split in splits for id_ in split.test]
    assert sorted(tested) == sorted(f"{c}/{v}" for c, v in videos)
    for split in splits:
        assert sorted(split.train + split.test) == sorted(tested)
        assert leaking_groups(split) == []
        assert Counter(id_.split("/")[0] for id_ in split.test) == {f"C{c}": 6 for c in range(4)}


def test_the_seed_alone_decides_the_splits():
    videos = grouped_videos()
    assert make_splits(videos, seed=1) == make_splits(list(reversed(videos)), seed=1)
    assert make_splits(videos, seed=1)[0].test != make_splits(videos, seed=2)[0].test


def test_videos_without_groups_are_split_by_class():
    videos = [(name, f"clip{n}") for name in "abc" for n in range(9)]
    for split in make_splits(videos, seed=0):
        assert Counter(id_[0] for id_ in split.test) == {"a": 3, "b": 3, "c": 3}


def test_a_group_of_ones_own_may_span_classes():
    videos = [(action, f"{actor}_{action}") for action in ("run", "walk") for actor in "ABCDEF"]
    for split in make_splits(videos, seed=0, groups=r"/([A-Z])_"):
        actors = [{re.search("/([A-Z])_", id_)[1] for id_ in side} for side in (split.train, split.test)]
        assert actors[0].isdisjoint(actors[1])
        assert len(split.test) == 4


def test_videos_without_a_class_take_no_part():
    videos = [*grouped_videos(), ("unlabelled", "x")]
    assert all("unlabelled" not in split.classes for split in make_splits(videos, seed=0))
    with pytest.raises(UsageError, match="no labelled videos"):
        make_splits([("unlabelled", "x")], seed=0)


@pytest.mark.parametrize(
    ("videos", "regex", "message"),
    [
        (
            [*grouped_videos(), ("one", "a")],
            None,
            "'one' has one video, which can train or test but not both: add videos",
        ),
        (grouped_videos(groups=1), None, "class 'C0' has one group, which can train or test but not both: add groups"),
        (grouped_videos(classes=1), None, "all videos are of one class, 'C0': a network of one class is right about"),
        ([("a", "a/x"), ("a", "y"), ("b", "x"), ("b", "z")], "[xyz]", "no 2 splits of these groups have every class"),
        (grouped_videos(), "nothing", "'nothing' does not match 'C0/v_C0_g01_c00'"),
        (grouped_videos(), r"\d(", r"--group-regex '\d(' is not a regular expression"),
        (grouped_videos(), "(x)?v_", "takes no part"),
    ],
)
def test_what_cannot_be_split_is_told(videos, regex, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        make_splits(videos, seed=0, groups=regex)


@pytest.mark.parametrize(
    ("videos", "folds", "made", "why"),
    [
        (grouped_videos(), 6, 6, ""),
        ([*grouped_videos(), ("few", "a"), ("few", "b")], 3, 2, "class 'few' has no more than 2 videos"),
        (grouped_videos(groups=4), 10, 4, "class 'C0' has no more than 4 groups"),
    ],
)
def test_as_many_splits_are_made_as_asked_for_or_as_the_smallest_class_allows(videos, folds, made, why):
    told: list[str] = []
    splits = make_splits(videos, seed=0, folds=folds, tell=told.append)
    assert told == ([f"{made} splits are made instead of {folds}: {why}"] if why else [])
    assert [split.number for split in splits] == list(range(1, made + 1))
    assert sorted(id_ for split in splits for id_ in split.test) == sorted(f"{c}/{v}" for c, v in videos)
    assert all({id_.split("/")[0] for id_ in side} == set(split.classes) for split in splits for side in (split.train,))


def test_ucf101_groups_lie_within_their_class_and_others_are_none():
    assert group_of("A", "v_A_g07_c02") == group_of("A", "v_A_g07_c05") != group_of("B", "v_B_g07_c02")
    assert group_of("A", "clip_g07") is None
    assert group_of("A", "x-12", r"\d+") == "12"


def test_a_group_on_both_sides_is_found():
    split = Split(1, ["A/v_A_g01_c01", "A/free"], ["A/v_A_g01_c02", "A/v_A_g02_c01"], ["A"], "lists")
    assert leaking_groups(split) == ["a/g01"]
    named_after_a_video = {"A/x": "A/x", "A/y": "A/x", "A/z": "A/z"}
    assert leaking_groups(Split(1, ["A/x", "A/z"], ["A/y"], ["A"], "lists", groups=named_after_a_video)) == ["A/x"]


# ------------------------------------------------------------------ a workspace's splits


@pytest.fixture
def catalogue(workspace, add_video):
    for class_name, group, clip in [(c, g, k) for c in ("Bend", "Walk") for g in (1, 2, 3) for k in (1,)]:
        add_video(class_name, f"v_{class_name}_g{group:02}_c{clip:02}", 12)
    return load_catalogue(workspace)


def test_without_lists_splits_are_made_once_and_then_kept(workspace, catalogue):
    first = prepare_splits(workspace, catalogue, seed=1)
    assert [path.name for path in list_files(workspace.splits)] == sorted(
        ["classInd.txt", *(f"{side}list0{n}.txt" for side in ("train", "test") for n in (1, 2, 3))]
    )
    assert prepare_splits(workspace, catalogue, seed=2) == first
    assert not list(workspace.root.glob(".splits*"))


def test_lists_are_copied_and_stay_in_use(workspace, catalogue, tmp_path):
    lists = write(tmp_path / "lists", **UCF, notes="not a list")
    [split] = prepare_splits(workspace, catalogue, lists)
    assert split.train == ["Bend/v_Bend_g01_c01", "Walk/v_Walk_g01_c01"]
    assert sorted(path.name for path in workspace.splits.iterdir()) == [
        "classInd.txt",
        "splits.json",
        "testlist01.txt",
        "trainlist01.txt",
    ]
    assert prepare_splits(workspace, catalogue) == [split] == prepare_splits(workspace, catalogue, lists)


def test_other_lists_become_a_set_of_their_own_unless_they_are_to_replace_the_first(workspace, catalogue, tmp_path):
    first = prepare_splits(workspace, catalogue)
    lists = write(tmp_path / "my lists", **UCF)
    told: list[str] = []
    [second] = prepare_splits(workspace, catalogue, lists, tell=told.append)
    assert told == [
        f"the lists of {lists} are kept as the set my-lists beside those in {workspace.splits}: runs my-lists-split<N>"
    ]
    assert (second.set_name, {split.set_name for split in first}) == ("my-lists", {""})
    assert sets_of_splits(workspace) == {"": workspace.splits, "my-lists": workspace.root / "split-sets" / "my-lists"}
    for named in (lists, Path("my-lists")):
        assert prepare_splits(workspace, catalogue, named) == [second]
    assert prepare_splits(workspace, catalogue) == first

    elsewhere = write(tmp_path / "other" / "my lists", **(UCF | {"testlist01": "Bend/v_Bend_g03_c01.avi\n"}))
    assert prepare_splits(workspace, catalogue, elsewhere)[0].set_name == "my-lists-2"
    third = write(tmp_path / "third", **(UCF | {"testlist01": "Walk/v_Walk_g03_c01.avi\n"}))
    assert [split.set_name for split in prepare_splits(workspace, catalogue, third, overwrite=True)] == [""]
    assert len(prepare_splits(workspace, catalogue)) == 1


def test_lists_that_changed_since_they_were_copied_need_overwrite(workspace, catalogue, tmp_path):
    lists = write(tmp_path / "lists", **UCF)
    before = prepare_splits(workspace, catalogue, lists)
    write(lists, testlist01="Bend/v_Bend_g03_c01.avi\n")
    with pytest.raises(UsageError, match=r"other lists than when it was copied to .*splits: omit.*--overwrite"):
        prepare_splits(workspace, catalogue, lists)
    assert prepare_splits(workspace, catalogue) == before
    [after] = prepare_splits(workspace, catalogue, lists, overwrite=True)
    assert after.test == ["Bend/v_Bend_g03_c01"]
    assert [*sets_of_splits(workspace)] == [""]


def test_further_splits_are_made_under_a_name(workspace, catalogue):
    first = prepare_splits(workspace, catalogue)
    two = prepare_splits(workspace, catalogue, Path("two"), folds=2)
    assert [(split.set_name, split.number) for split in two] == [("two", 1), ("two", 2)]
    assert prepare_splits(workspace, catalogue, Path("two")) == two
    assert prepare_splits(workspace, catalogue) == first
    for name in ("three", "../two", ".two"):
        with pytest.raises(
            MissingError, match=r"no such folder, nor a set of splits of that name in .*the sets two; with"
        ):
            prepare_splits(workspace, catalogue, Path(name), folds=None if name == "three" else 2)


def test_another_number_of_splits_needs_another_set_or_overwrite(workspace, catalogue, tmp_path):
    prepare_splits(workspace, catalogue, folds=5)  # of which 3 groups allow 3
    prepare_splits(workspace, catalogue, folds=5)
    assert len(prepare_splits(workspace, catalogue, folds=3)) == 3
    with pytest.raises(UsageError, match=r"--folds is 2, but .*splits has 3 splits: .* by --splits NAME"):
        prepare_splits(workspace, catalogue, folds=2)
    assert len(prepare_splits(workspace, catalogue, folds=2, overwrite=True)) == 2
    lists = write(tmp_path / "lists", **UCF)
    with pytest.raises(UsageError, match="--folds 2 is of splits that stres makes"):
        prepare_splits(workspace, catalogue, lists, folds=2)
    prepare_splits(workspace, catalogue, lists, overwrite=True)
    with pytest.raises(UsageError, match=r"those in .* are lists: omit it, or make others beside them"):
        prepare_splits(workspace, catalogue, folds=2, overwrite=True)


def test_broken_lists_leave_those_in_use_alone(workspace, catalogue, tmp_path):
    before = prepare_splits(workspace, catalogue)
    lists = write(tmp_path / "lists", **(UCF | {"testlist01": "broken\n"}))
    with pytest.raises(UsageError, match="line 1"):
        prepare_splits(workspace, catalogue, lists, overwrite=True)
    assert prepare_splits(workspace, catalogue) == before


def test_another_rule_for_groups_needs_overwrite(workspace, catalogue):
    prepare_splits(workspace, catalogue)
    with pytest.raises(UsageError, match=r"'g\(\\d\+\)', but the splits in .* were made with none"):
        prepare_splits(workspace, catalogue, groups=r"g(\d+)")
    made = prepare_splits(workspace, catalogue, groups=r"g(\d+)", overwrite=True)
    assert all(len({id_[-7:-4] for id_ in split.test}) == 1 for split in made)
    assert {split.groups for split in prepare_splits(workspace, catalogue)} == {r"g(\d+)"}
    by_id = {video.id: video.video[-3:] for video in catalogue.videos}
    with pytest.raises(UsageError, match="were made with other groups than those of --groups"):
        prepare_splits(workspace, catalogue, groups=by_id)


def test_an_interrupted_exchange_of_lists_leaves_the_old_ones(workspace, catalogue, tmp_path, monkeypatch):
    before = prepare_splits(workspace, catalogue)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(splits_module, "write_json", full)
    with pytest.raises(OSError, match="space"):
        prepare_splits(workspace, catalogue, write(tmp_path / "lists", **UCF), overwrite=True)
    assert prepare_splits(workspace, catalogue) == before


def test_an_exchange_killed_between_its_two_renamings_leaves_the_old_lists(workspace, catalogue):
    before = prepare_splits(workspace, catalogue, seed=1)
    further = prepare_splits(workspace, catalogue, Path("further"), folds=2)
    workspace.splits.rename(workspace.root / ".splits.old-01234567")
    (workspace.split_sets / "further").rename(workspace.split_sets / ".further.old-01234567")
    left_over = temporary_name(workspace.splits).name.replace(f"-{os.getpid()}-", "-999999999-")
    write(workspace.root / left_over, **{"trainlist01.txt": "half a file"})

    assert prepare_splits(workspace, catalogue, seed=2) == before
    assert prepare_splits(workspace, catalogue, Path("further")) == further
    assert [path.name for path in workspace.root.glob("*splits*")] == ["splits"]
    assert [path.name for path in workspace.split_sets.iterdir()] == ["further"]


def test_resolving_finds_videos_and_hides_nothing(workspace, catalogue, add_video):
    add_video("Walk", "no_flow", 12, flow=None)
    split = Split(
        1,
        train=["Bend/v_Bend_g01_c01", "Walk/no_flow", "Walk/gone"],
        test=["Walk/v_Walk_g01_c01", "Jump/gone"],
        classes=["Bend", "Jump", "Walk"],
        source="lists",
    )
    resolved = resolve(split, load_catalogue(workspace))
    assert [video.id for video in resolved.train] == ["Bend/v_Bend_g01_c01"]
    assert resolved.missing_train == ["Walk/no_flow", "Walk/gone"]
    assert resolved.missing_test == ["Jump/gone"]
    assert resolved.classes == ["Bend", "Jump", "Walk"]
    assert resolved.labels(resolved.test) == [2]
    assert len(resolved.unlisted) == 4
    assert "Walk/no_flow" not in resolved.unlisted


def test_resolving_matches_spellings_that_differ_in_case(workspace, add_video):
    add_video("HandStandPushups", "v_HandStandPushups_g01_c01", 12)
    add_video("HandStandPushups", "v_HandStandPushups_g02_c01", 12)
    ids = [f"HandstandPushups/v_HandstandPushups_g0{n}_c01" for n in (1, 2)]
    split = Split(1, ids[:1], ids[1:], ["HandstandPushups", "HandstandWalking"], "lists")
    resolved = resolve(split, load_catalogue(workspace))
    assert (len(resolved.train), len(resolved.test), resolved.missing_train) == (1, 1, [])
    assert resolved.classes == ["HandStandPushups", "HandstandWalking"]
    assert resolved.labels(resolved.train) == [0]


def test_names_that_differ_in_case_only_are_not_mixed_up(workspace, add_video):
    add_video("a", "X", 12)
    add_video("a", "x", 12)
    catalogue = load_catalogue(workspace)
    assert [video.id for video in resolve(Split(1, ["a/x"], ["a/X"], ["a"], ""), catalogue).train] == ["a/x"]
    assert resolve(Split(1, ["A/x"], ["a/X"], ["a"], ""), catalogue).missing_train == ["A/x"]
