"""Groups of videos: read from a file, recognised in the names, or not known."""

import json
import re
from pathlib import Path

import pytest

from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.group_splits import leaking_groups
from pipelines.datasets.groups import group_of, groups_of, read_groups, recognised_groups
from pipelines.datasets.split_lists import NO_GROUPS, Split, read_lists
from pipelines.datasets.splits import prepare_splits, resolve, splits_in_use
from pipelines.errors import MissingError, UsageError

IDS = ["bend/a.b", "bend/c", "walk/c", "walk/d"]


def written(folder: Path, text: str) -> Path:
    path = folder / "groups.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "bend/a.b,s1\nbend/c,s1\nwalk/c,s2\nwalk/d,\n",
        "video,group\nbend/a.b.avi,s1\nbend/c.avi,s1\n\nwalk/c.avi,s2\nwalk/d.avi,\n",
        "scene;length;path\ns1;3;/data/bend/a.b.mp4\ns1;4;/data/bend/c.mp4\ns2;5;/data/walk/c.mp4\n;6;d.mp4\n",
        "a.b\ts1\nbend/c\ts1\nwalk\\c\ts2\nd\t\nother/x\ts9\n",
    ],
)
def test_groups_are_read_in_every_common_form(tmp_path, text):
    assert read_groups(written(tmp_path, text), IDS) == {"bend/a.b": "s1", "bend/c": "s1", "walk/c": "s2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bend/a.b,1\nc,1\nwalk/d,2\n", "lacks 2 of 4 videos, bend/c, walk/c; it has c instead: add a row for each"),
        ("", "lacks 4 of 4 videos, bend/a.b, bend/c, walk/c and 1 more: add"),
        ("bend/c,1\nbend/c.avi,2\n", "gives bend/c two groups, '1' and '2': keep one"),
        ("bend/c\n", "the row 'bend/c' is not a video and its group"),
        ("bend/c,1,2\n", "more columns need a first row that names them"),
    ],
)
def test_a_file_of_groups_that_does_not_fit_is_refused(tmp_path, text, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        read_groups(written(tmp_path, text), IDS)


def test_a_file_of_groups_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(MissingError, match=r"--groups .*absent.csv: there is no such file"):
        read_groups(tmp_path / "absent.csv", IDS)


@pytest.mark.parametrize(
    ("videos", "groups"),
    [
        ([(c, f"{p}_{c}") for c in ("wave1", "run") for p in ("daria", "denis")], ["daria", "denis"] * 2),
        ([(c, f"person{p:02}_{c}_d{d}") for c in ("bend", "run") for p in (1, 12) for d in (1, 2)], None),
        ([(c, f"Trip_{f}_{c}_u_nm_np1_ba_goo_{k}") for c in ("hit", "run") for f in "ab" for k in (0, 1)], None),
        ([(c, f"-_345678{c[0]}x{y}_{s:06}_{s + 10:06}") for c in ("hit", "run") for y in "ab" for s in (0, 9)], None),
        ([(c, f"S001C00{k}P00{p}R001A001") for c in ("a", "b") for p in (1, 2) for k in (1, 2)], None),
        ([(c, f"beach day {d}-part{k}") for c in ("a", "b") for d in (1, 2) for k in (1, 2)], None),
    ],
)
def test_names_that_tell_groups_are_recognised(videos, groups):
    regex, what = recognised_groups(videos)
    found = [group_of(*video, groups=regex) for video in videos]
    assert what
    if groups is None:  # two in each class: by their order above
        half = len(videos) // 2
        assert len(set(found[:half])) == len(set(found[half:])) == 2
        assert [found[place] == found[place + 1] for place in range(half - 1)] == [True, False, True]
    else:
        assert found == groups


@pytest.mark.parametrize(
    "videos",
    [
        [(c, f"{c}{n}") for c in ("bend", "run") for n in range(4)],
        [(c, f"clip_{c}{n}") for c in ("bend", "run") for n in range(4)],  # one word for all
        [(c, f"{c}_{n:03}") for c in ("blue_rising", "red_rising") for n in range(4)],
        [("bend", "daria_bend"), ("bend", "denis_bend"), ("run", "daria_run"), ("run", "other")],
    ],
)
def test_other_names_tell_no_groups(videos):
    assert recognised_groups(videos) == ("", "")


def prepared(workspace, **settings):
    told: list[str] = []
    splits = prepare_splits(workspace, load_catalogue(workspace), tell=told.append, **settings)
    return splits, told


def test_splits_say_where_their_groups_are_from(workspace, add_video):
    for class_name in ("bend", "run"):
        for actor in ("daria", "denis", "ido"):
            add_video(class_name, f"{actor}_{class_name}", 12)
    splits, told = prepared(workspace)
    assert told == [
        "groups: 3, the word before the class in the names, such as daria; each stays on one side of a split"
    ]
    assert all(len({id_.split("/")[1].split("_")[0] for id_ in split.test}) == 1 for split in splits)
    assert {split.groups_from for split in splits} == {"names"}

    by_class = {video.id: video.class_name for video in load_catalogue(workspace).videos}
    with pytest.raises(UsageError, match="class 'bend' has one group, which can train or test but not both"):
        prepared(workspace, groups=by_class, splits=Path("by-class"))
    scenes = {id_: "ido" if "ido" in id_ else "others" for id_ in by_class}
    splits, told = prepared(workspace, groups=scenes, splits=Path("scenes"))
    assert told == [
        "2 splits are made instead of 3: class 'bend' has no more than 2 groups",
        "groups: 2, as given, such as others; each stays on one side of a split",
    ]
    assert splits == splits_in_use(workspace.split_sets / "scenes")

    actors = {id_: id_.split("/")[1].split("_")[0] for id_ in by_class if id_ != "run/ido_run"}
    assert prepared(workspace, groups=actors, splits=Path("partly"))[1][-1] == (
        "groups: 3, as given, such as daria; each stays on one side of a split; 1 video without one may show scenes of "
        "both sides: accuracy may be too high"
    )
    assert {split.groups_from for split in splits} == {"file"}
    assert all(split.groups == scenes and leaking_groups(split) == [] for split in splits)


def test_unknown_groups_are_told_once_and_noted(workspace, add_video):
    for class_name in ("bend", "run"):
        for number in range(3):
            add_video(class_name, f"{class_name}{number}", 12)
    splits, told = prepared(workspace)
    assert told == [f"{NO_GROUPS}; --groups FILE --overwrite names them"]
    assert {split.groups_from for split in splits} == {"none"}
    assert json.loads((workspace.splits / "splits.json").read_text())["groups_from"] == "none"
    assert prepared(workspace) == (splits, [])


def test_videos_added_later_need_a_group_where_groups_came_from_a_file(workspace, add_video):
    for class_name in ("bend", "run"):
        for number in range(3):
            add_video(class_name, f"{class_name}{number}", 12)
    scenes = {video.id: video.id[-1] for video in load_catalogue(workspace).videos}
    prepared(workspace, groups=scenes)
    add_video("bend", "bend3", 12)
    with pytest.raises(UsageError, match="name the group of bend/bend3 too: give it by --groups"):
        prepared(workspace, overwrite=True)
    splits, _ = prepared(workspace, overwrite=True, groups=scenes | {"bend/bend3": "2"})
    assert all(leaking_groups(split) == [] for split in splits)


FILM = [f"{class_name}/v_{film}_{span}" for film in ("x", "y") for class_name, span in
        (("run", "0.000-1.000"), ("bend", "1.000-2.500"), ("run", "f75-100"))]  # fmt: skip


@pytest.mark.parametrize(
    "rule",
    [
        None,
        r"^(\w+)/",  # by class: what shares a film is joined all the same
        r"v_(.)",
        {"run/v_x_0.000-1.000": "first", "run/v_y_0.000-1.000": "second"},
    ],
)
def test_segments_of_one_video_are_one_group(rule):
    by_film = groups_of(FILM, rule)
    assert len({by_film[id_] for id_ in FILM[:3]}) == len({by_film[id_] for id_ in FILM[3:]}) == 1
    assert (by_film[FILM[0]] == by_film[FILM[3]]) is (rule == r"^(\w+)/")


@pytest.mark.parametrize("rule", [None, r"^(\w+)/", {"bend/film": "first"}])
def test_a_video_that_is_stored_whole_too_is_of_the_group_of_its_segments(rule):
    sides = Split(1, ["bend/film", "bend/a"], ["run/film_0.000-1.000", "run/a_b"], ["bend", "run"], "", groups=rule)
    assert len(leaking_groups(sides)) == 1
    assert len(set(groups_of([*sides.train, *sides.test], rule).values())) == (1 if isinstance(rule, str) else 3)


def test_groups_of_names_hold_for_segments_of_all_classes():
    assert group_of("swim", "v_Biking_g01_c02_0.000-1.000") == group_of("dive", "v_Biking_g01_c03_2.000-3.000")
    assert group_of("swim", "v_Biking_g01_c02") == "swim/g01"


def test_a_row_of_an_untrimmed_video_gives_the_group_of_its_segments(tmp_path):
    path = written(tmp_path, "video,group\nfilms/v_x.mp4,s1\nv_y_0.000-1.000,s2\nv_y_1.000-2.500,s2\nv_y_f75-100,\n")
    assert read_groups(path, FILM) == dict.fromkeys(FILM[:3], "s1") | dict.fromkeys(FILM[3:5], "s2")
    whole = ["swim/v_x", *FILM]  # stored whole, too
    assert read_groups(path, whole) == dict.fromkeys(whole[:4], "s1") | dict.fromkeys(FILM[3:5], "s2")


def test_segments_of_films_beside_clips_leave_the_clips_their_groups(workspace, add_video):
    for actor in ("daria", "denis", "eli"):
        for class_name in ("bend", "run"):
            add_video(class_name, f"{actor}_{class_name}", 12)
    for span in ("0.000-1.000", "1.000-2.000"):
        add_video("bend", f"daria_{span}", 12)  # of a film with the name of an actor
        add_video("run", f"film_{span}", 12)
    splits, told = prepared(workspace)
    assert told[-1] == (
        "groups: 4, the word before the class in the names, else the videos of the segments, such as daria; each stays "
        "on one side of a split"
    )
    assert splits == prepared(workspace)[0]  # read from the workspace
    for split in splits:
        assert not {id_.partition("/")[2].partition("_")[0] for id_ in split.train} & {
            id_.partition("/")[2].partition("_")[0] for id_ in split.test
        }


def test_splits_keep_the_segments_of_a_video_on_one_side(workspace, add_video):
    for film in range(4):
        for class_name, span in (("bend", "0.000-1.000"), ("run", "1.000-2.000"), ("run", "2.000-3.000")):
            add_video(class_name, f"film{film}_{span}", 12)
    splits, told = prepared(workspace)
    assert told == ["groups: 4, the videos of the segments, such as film0; each stays on one side of a split"]
    assert len(splits) == 3
    for split in splits:
        tested = {id_.partition("/")[2].partition("_")[0] for id_ in split.test}
        assert len(split.test) == 3 * len(tested)
    # Lists that name whole videos stand for their segments, and a video on both sides is told.
    lists = workspace.root / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 bend\n2 run\n")
    trained = ("bend/film0.avi 1", "bend/film1.avi 1", "run/film0.avi 2", "run/film1_1.000-2.000.avi 2")
    (lists / "trainlist01.txt").write_text("\n".join(trained))
    (lists / "testlist01.txt").write_text("bend/film2.avi\nrun/film3.avi\nrun/film1_2.000-3.000.avi\nrun/film9.avi\n")
    found = resolve(read_lists(lists)[0], load_catalogue(workspace))
    assert [video.id for video in found.train] == [
        *("bend/film0_0.000-1.000", "bend/film1_0.000-1.000", "run/film0_1.000-2.000", "run/film0_2.000-3.000"),
        "run/film1_1.000-2.000",
    ]
    assert found.missing_test == ["run/film9"]
    assert found.leaking_groups == ["film1"]
