"""List files in the forms that people have them, what their messages say, and which contradictions are refused."""

import contextlib
from pathlib import Path

import pytest

from pipelines.errors import UsageError
from pipelines.sources.lists import read_list
from pipelines.sources.videos import ReadAs, VideoList, find_videos


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with some videos."""
    for name in ("v/r/c.avi", "v/r/d.avi", "v/a b/c.avi", "v/a b/x, y.avi", "v/12 7.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, name: str = "list.txt", **settings: object) -> VideoList:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return find_videos(name, read_as=ReadAs(**settings))  # type: ignore[arg-type]


def labels(found: VideoList) -> dict[str, str]:
    assert [video.problem for video in found.videos] == [""] * len(found.videos)
    return {str(video.path.relative_to(Path.cwd())): video.class_name for video in found.videos}


@pytest.mark.parametrize(
    "text",
    [
        "v/r/c.avi playing guitar\nv/a b/c.avi running\n",
        "v/r/c.avi\tplaying guitar\nv/a b/c.avi\trunning\n",
        "v/r/c.avi,playing guitar\nv/a b/c.avi,running\n",
        "v/r/c.avi, playing guitar\r\nv/a b/c.avi, running\r\n",
        "v/r/c.avi;playing guitar\nv/a b/c.avi;running\n",
        '"v/r/c.avi" "playing guitar"\n"v/a b/c.avi" running\n',
        "'v/r/c.avi' playing guitar\n'v/a b/c.avi' 'running'\n",
        '"v/r/c.avi","playing guitar"\n"v/a b/c.avi","running"\n',
        "path label\nv/r/c.avi playing guitar\nv/a b/c.avi running\n",
        "path,label\nv/r/c.avi,playing guitar\nv/a b/c.avi,running\n",
        'label,video_path\n"playing guitar","v/r/c.avi"\nrunning,v/a b/c.avi\n',
        "# path label\nv/r/c.avi playing guitar\nv/a b/c.avi running\n",
        "#path,label\nv/r/c.avi,playing guitar\nv/a b/c.avi,running\n",
        '# label path\n"playing guitar" v/r/c.avi\nrunning "v/a b/c.avi"\n',
        "File_Name\tFrames\tClass\nv/r/c.avi\t12\tplaying guitar\nv/a b/c.avi\t12\trunning\n",
        "id;path;class_id;class_name\n1;v/r/c.avi;0;playing guitar\n2;v/a b/c.avi;1;running\n",
        '{"file_name": "v/r/c.avi", "label": "playing guitar"}\n{"file_name": "v/a b/c.avi", "label": "running"}\n',
        "v/r/c.avi\t\tplaying guitar\nv/a b/c.avi\t\trunning\n",
        "v/r/c.avi,\tplaying guitar\nv/a b/c.avi,\trunning\n",
        'v/r/c.avi,"playing guitar"\nv/a b/c.avi,running\n',
        '[{"path": "v/r/c.avi", "label": "playing guitar"}, {"path": "v/a b/c.avi", "label": "running"}]',
        "v\\r\\c.avi playing guitar\nv\\a b\\c.avi running\n",
        "./v/r/c.avi playing guitar\nv//a b/c.avi running\n",
    ],
)
def test_a_path_and_a_label_are_found_in_every_usual_form(data, text):
    assert labels(read(text)) == {"v/r/c.avi": "playing guitar", "v/a b/c.avi": "running"}


def test_commas_blanks_and_numbers_in_names_mislead_nobody(data):
    text = 'v/a b/x, y.avi red, hot\nv/12 7.avi 3 balls\n"v/r/c.avi","cold, blue"\n'
    assert labels(read(text)) == {"v/a b/x, y.avi": "red, hot", "v/12 7.avi": "3 balls", "v/r/c.avi": "cold, blue"}
    assert labels(read("v/a b/x, y.avi 2\nv/12 7.avi 3\n")) == {"v/a b/x, y.avi": "2", "v/12 7.avi": "3"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_lists_that_windows_programs_write_are_read(data, encoding):
    text = "v/r/c.avi red\r\nv/r/d.avi blue\r\n"
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    Path("list.txt").write_bytes((mark + text).encode(encoding))
    assert labels(find_videos("list.txt")) == {"v/r/c.avi": "red", "v/r/d.avi": "blue"}


def test_joined_lists_and_names_as_macos_writes_them_are_read(data):
    (data / "cafe\u0301.avi").touch()
    found = read("v/r/c.avi red\n\ufeffv/r/d.avi blue\ncaf\xe9.avi red\n")
    assert labels(found) == {"v/r/c.avi": "red", "v/r/d.avi": "blue", "cafe\u0301.avi": "red"}


def test_what_would_be_stored_out_of_sight_or_under_no_name_is_refused(data):
    (data / "v/.c.avi").touch()
    found = read(f"v/.c.avi red\nv/r/c.avi .red\nv/{'a' * 300}.avi red\nv/r/d.avi blue\n")
    assert [video.id for video in found.videos] == ["blue/d"]
    assert ["begins with a dot" in one.problem for one in found.problems] == [True, True, False]


def test_a_split_of_another_name_is_told_and_a_video_is_in_one_split(data):
    found = read("path,label,split\nv/r/c.avi,red,train\nv/r/d.avi,blue,fold 2\n")
    assert [video.split for video in found.videos] == ["", "train"]
    assert "1 row of list.txt in no split: fold 2 is none of train, validation and test" in found.account.notes
    with pytest.raises(UsageError, match=r"line 3 has v/r/c\.avi in the split 'test'.* a video belongs to one split"):
        read("path,label,split\nv/r/c.avi,red,train\nv/r/c.avi,red,test\n")


def test_a_line_break_within_quotes_is_part_of_a_path(data):
    (data / "new\nline").mkdir()
    (data / "new\nline" / "c.avi").write_bytes(b"x")
    assert labels(read('path,label\n"new\nline/c.avi",red\n')) == {"new\nline/c.avi": "red"}


def test_minus_one_beside_numbers_is_no_label(data):
    Path("classes.txt").write_text("red\nblue\n")
    assert labels(read("v/r/c.avi -1\nv/r/d.avi 0\n")) == {"v/r/c.avi": "unlabelled", "v/r/d.avi": "red"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "v/r/c.avi,red,train\nv/r/d.avi,blue,test\n",
            r"line 1: several columns follow 'v/r/c.avi' \('red,train'\)",
        ),
        ("v/r/c.avi\tred\t12\n", "line 1: several columns follow"),
        ('{"path": "v/r/c.avi", "label": "red"}\n5\n', "line 2 is not a JSON object of columns"),
        ('{"path": "v/r/c.avi", "label": ["red"]}\n', r"label is \[\"red\"\]: a video has one path and one class"),
    ],
)
def test_what_is_no_column_of_a_list_is_no_class(data, text, message):
    with pytest.raises(UsageError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("path,genre\nv/r/c.avi,red\n", "path, genre"),
        ("genre,path\nred,v/r/c.avi\n", "genre, path"),
        ('"Path","Genre"\nv/r/c.avi,red\n', "path, genre"),
        ("id;video;genre\n1;v/r/c.avi;red\n", "id, video, genre"),
        ("path\tgenre\nv/r/c.avi\tred\n", "path, genre"),
        ("path genre\nv/r/c.avi red\n", "path, genre"),
    ],
)
def test_a_header_whose_label_has_an_unknown_name_is_refused_and_is_no_video(data, text, columns):
    with pytest.raises(UsageError, match=rf"line 1 names columns \({columns}\), but none .*call the one .* label"):
        read(text)


def test_a_header_of_paths_and_splits_alone_has_unlabelled_videos(data):
    found = read("path,split\nv/r/c.avi,train\nv/r/d.avi,test\n")
    assert [(video.class_name, video.split) for video in found.videos] == [
        ("unlabelled", "train"),
        ("unlabelled", "test"),
    ]


@pytest.mark.parametrize("name", ["video 3", "clip red"])
def test_a_file_named_as_a_column_is_a_video(data, name):
    Path(name.partition(" ")[0]).write_bytes(b"x")
    assert [video.problem for video in read(f"{name}\n").videos] == [""]


@pytest.mark.parametrize(
    "text",
    [
        "path,label,label\nv/r/c.avi,red,blue\n",
        "path,Label,label\nv/r/c.avi,red,blue\n",
        "path\tpath\tlabel\nv/r/c.avi\tv/r/d.avi\tred\n",
        '{"path": "v/r/c.avi", "label": "red", "Label": "blue"}\n',
        '{"path": "v/r/c.avi", "label": "red", "label": "blue"}\n',
    ],
)
def test_a_column_that_stands_twice_is_refused(data, text):
    with pytest.raises(UsageError, match=r"names the column (label|path) 2 times|'label' appears twice"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "v/r/c.avi 0\nv/r/d.avi red\n",
        "v/r/d.avi red\nv/r/c.avi -1\n",
        "path,label\nv/r/c.avi,0\nv/r/d.avi,red\n",
    ],
)
def test_labels_that_mix_numbers_and_names_are_refused(data, text):
    with pytest.raises(UsageError, match=r"line \d has the number (0|-1) as its label, .* the name 'red'"):
        read(text)


@pytest.mark.parametrize("text", ["v/r/c.avi 12 0\nv/a b/c.avi 14 1\n", "v/r/c.avi,12,0\nv/a b/c.avi,14,1\n"])
def test_frames_before_the_label_are_passed_over(data, text):
    assert labels(read(text)) == {"v/r/c.avi": "0", "v/a b/c.avi": "1"}


def test_kinetics_annotations_name_videos_by_id_and_times(data):
    for name in ("v/id-_1_000001_000011.mp4", "v/id2_000012_000022.mp4"):
        Path(name).write_bytes(b"x")
    text = "label,youtube_id,time_start,time_end,split\nplaying guitar,id-_1,1,11,train\nrunning,id2,12,22,val\n"
    found = read(text, "v/kinetics400.csv")
    assert {video.id: (video.split, video.problem) for video in found.videos} == {
        "playing guitar/id-_1_000001_000011": ("train", ""),
        "running/id2_000012_000022": ("validation", ""),
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("val.csv", "validation"),
        ("kinetics400_val_list_videos.txt", "validation"),
        ("sthv2_train_list_videos.txt", "train"),
        ("ucf101_train_split_1_videos.txt", ""),
        ("my_videos.txt", ""),
    ],
)
def test_a_list_named_after_its_split_says_which_split_its_videos_are_in(data, name, split):
    assert {video.split for video in read("v/r/c.avi red\n", name).videos} == {split}


def test_ucf101s_own_lists_give_classes_not_numbers(data):
    for name in ("UCF-101/Bend/a.avi", "UCF-101/Walk/b.avi"):
        (data / name).parent.mkdir(parents=True)
        (data / name).write_bytes(b"x")
    (data / "lists").mkdir()
    (data / "lists/classInd.txt").write_text("1 Bend\n2 Walk\n")
    train = read("Bend/a.avi 1\nWalk/b.avi 2\n", "lists/trainlist01.txt", relative_to=data / "UCF-101")
    assert labels(train) == {"UCF-101/Bend/a.avi": "Bend", "UCF-101/Walk/b.avi": "Walk"}
    test = read("UCF-101/Bend/a.avi\n", "lists/testlist01.txt")  # found from the folder above the list's
    assert labels(test) == {"UCF-101/Bend/a.avi": "Bend"}


def test_hmdb51s_marks_are_no_labels(data):
    with pytest.raises(UsageError, match=r"split list of HMDB51.*--splits"):
        read("c.avi 1\n", "wave_test_split1.txt")


# ------------------------------------------------------------------ numbers and names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classInd.txt", "1 playing guitar\n2 running\n"),  # mmaction2 counts from 0 beside it
        ("labels.txt", "playing guitar\nrunning\n"),
        ("kinetics_label_map_k400.txt", "playing guitar\nrunning\n"),
        ("classes.txt", "0 playing guitar\n1 running\n"),
        ("names.json", '{"\\"playing guitar\\"": 0, "running": 1}'),
        ("names.json", '{"0": "playing guitar", "1": "running"}'),
        ("names.json", '["playing guitar", "running"]'),
        ("names.csv", "id,name\n0,playing guitar\n1,running\n"),
    ],
)
def test_numbers_get_the_names_that_a_file_gives_them(data, name, text):
    (data / name).write_text(text)
    given = {} if name.endswith(".txt") else {"class_names": data / name}
    found = read("v/r/c.avi 0\nv/a b/c.avi 1\n", **given)
    assert labels(found) == {"v/r/c.avi": "playing guitar", "v/a b/c.avi": "running"}
    assert any("0 is playing guitar" in note for note in found.account.notes)


def test_names_without_numbers_count_from_1_where_the_list_does(data):
    (data / "labels.txt").write_text("red\nblue\n")
    assert labels(read("v/r/c.avi 1\nv/a b/c.avi 2\n")) == {"v/r/c.avi": "red", "v/a b/c.avi": "blue"}


def test_where_the_first_number_cannot_be_told_it_is_asked_for(data):
    (data / "labels.txt").write_text("red\nblue\ngreen\n")
    with pytest.raises(UsageError, match=r"first class is number 0 or 1"):
        read("v/r/c.avi 1\nv/a b/c.avi 2\n")


def test_folders_tell_where_the_numbers_begin_and_may_not_contradict(data):
    for name in ("blue/x.avi", "green/y.avi"):
        (data / name).parent.mkdir()
        (data / name).write_bytes(b"x")
    (data / "labels.txt").write_text("red\nblue\ngreen\n")
    assert labels(read("blue/x.avi 1\ngreen/y.avi 2\n")) == {"blue/x.avi": "blue", "green/y.avi": "green"}
    with pytest.raises(UsageError, match=r"line 2: green/y.avi has the label 0, which .*labels.txt calls 'red'"):
        read("blue/x.avi 1\ngreen/y.avi 0\n")


def test_numbers_that_the_names_do_not_reach_are_refused(data):
    (data / "labels.txt").write_text("red\nblue\n")
    with pytest.raises(UsageError, match=r"names 2 classes.*the labels 0 to 7"):
        read("v/r/c.avi 0\nv/a b/c.avi 7\n")


def test_several_files_of_names_are_told_and_none_is_taken(data):
    for name in ("labels.txt", "classes.txt"):
        (data / name).write_text("red\nblue\n")
    found = read("v/r/c.avi 0\nv/a b/c.avi 1\n")
    assert labels(found) == {"v/r/c.avi": "0", "v/a b/c.avi": "1"}
    assert any("classes.txt, labels.txt" in note for note in found.account.notes)


@pytest.mark.parametrize("text", ["0 red\n0 blue\n", "0 red\n1 red\n"])
def test_names_that_contradict_each_other_are_refused(data, text):
    (data / "labels.txt").write_text(text)
    with pytest.raises(UsageError, match="correct it"):
        read("v/r/c.avi 0\n")


# ------------------------------------------------------------------ what is looked for, and what is in the way


def test_a_missing_video_says_every_path_looked_for_and_the_folder_it_is_relative_to(data):
    (video,) = read("gone/x.avi red\n", "lists/list.txt").videos
    assert video.problem == (
        f"there is no {data}/lists/gone/x.avi (nor {data}/gone/x.avi): lists/list.txt, line 1 gives 'gone/x.avi', "
        f"relative to {data}/lists; --relative-to names another folder"
    )


@pytest.mark.parametrize("line", ["V/R/c.avi red", "v\\r\\C.AVI red", "{data}/v/R/C.avi red"])
def test_a_path_that_differs_in_case_alone_is_asked_about(data, line):
    (video,) = read(line.format(data=data) + "\n").videos
    assert video.problem.startswith("there is no ")
    assert video.problem.endswith(f". Did you mean {data}/v/r/c.avi? Upper and lower case differ")


@pytest.mark.parametrize("line", ["v/r/c red", "v/r/c.mp4 red", "v\\R\\c.MKV red"])
def test_a_path_that_differs_in_the_suffix_alone_is_asked_about(data, line):
    (video,) = read(f"{line}\n").videos
    assert video.problem.endswith(f". Did you mean {data}/v/r/c.avi? The suffix differs")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("v/gone.avi 3 red.avi", ""),
        ("red v/gone.avi", "the columns are swapped"),
        ("'v/gone one.avi red", "Its quotation marks may be the reason"),
        ("D:\\videos\\a.avi red", "a Windows path"),
        ("12 gone red", "An extra column, or another separator, may be the reason"),
        ("12,v/r/c.avi,red", "An extra column, or another separator, may be the reason"),
        ("v/r/c.avi|red", "An extra column, or another separator, may be the reason"),
        ("~/v/r/c.avi red", "Addresses, ~ and variables are not followed"),
    ],
)
def test_what_is_in_the_way_is_named(data, line, told):
    (video,) = read(f"{line}\n").videos
    assert told in video.problem
    assert "there is no" in video.problem


@pytest.mark.parametrize("text", ["v/r 12 0\nv/a b 14 1\n", "v/r,12,0\n", "v/r red\n"])
def test_a_list_of_folders_of_pictures_is_for_import_frames(data, text):
    with pytest.raises(UsageError, match=r"stres import-frames DIR --list list\.txt"):
        read(text)


def test_such_a_list_tells_import_frames_the_classes(data):
    Path("list.txt").write_text("v/r 12 0\nv/a b 14 1\n")
    listed, _ = read_list(Path("list.txt"), whole_videos=True, pictures=True)
    assert [(video.path.name, video.class_name) for video in listed] == [
        ("r", "0"),
        ("a b", "1"),
    ]


def test_a_list_of_frames_is_named_as_that(data):
    with pytest.raises(UsageError, match=r"lists frames, not videos"):
        read('original_vido_id video_id frame_id path labels\nABC 0 0 ABC/1.jpg "1,2"\n')


# ------------------------------------------------------------------ contradictions


@pytest.mark.parametrize("again", ["v/r/c.avi blue", "./v/r/c.avi blue", '"v/r/c.avi" blue'])
def test_a_video_with_two_labels_is_refused_with_both_lines(data, again):
    with pytest.raises(UsageError, match=r"line 3: .* has the label 'blue', but list\.txt, line 1 gives it 'red'"):
        read(f"v/r/c.avi red\nv/r/d.avi blue\n{again}\n")


def test_a_line_given_again_is_told(data):
    assert "1 line of list.txt repeats a video" in read("v/r/c.avi red\nv/r/c.avi red\n").account.notes


@pytest.mark.parametrize("line", ["v/r/c.avi 1,5", "v/r/c.avi 1, 5, 7"])
def test_several_labels_of_a_video_are_refused(data, line):
    with pytest.raises(UsageError, match="several labels"):
        read(f"{line}\nv/r/d.avi 3\n")


def test_further_columns_of_numbers_are_refused(data):
    with pytest.raises(UsageError, match=r"the path 'v/r/c.avi' is followed by '0 12 30'"):
        read("v/r/c.avi 0 12 30\n")


def test_videos_without_a_label_among_labelled_ones_are_told(data):
    found = read("v/r/c.avi red\nv/r/d.avi\n")
    assert labels(found) == {"v/r/c.avi": "red", "v/r/d.avi": "unlabelled"}
    assert "1 of 2 videos of list.txt has no label" in found.account.notes


def test_a_row_of_too_many_columns_names_its_line(data):
    with pytest.raises(UsageError, match=r"line 3 has 3 columns, the header 2"):
        read("path,label\nv/r/c.avi,red\nv/r/d.avi,blue, dark\n")


@pytest.mark.parametrize(
    "text", ['v/r/c.avi a\n"', 'v/r/c.avi a\n"v/12 7.avi"\x0cb', "v/r/c.avi\ra", '{"file_name": "v/r/c.avi"}\n 1\n']
)
def test_what_a_damaged_list_leaves_is_read_or_refused_in_words(data, text):
    with contextlib.suppress(UsageError):
        assert read(text).videos
