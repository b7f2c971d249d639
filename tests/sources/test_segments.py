"""Lists of segments: all their spellings, and what is refused."""

import json
from pathlib import Path

import pytest

from pipelines.errors import MissingError, UsageError
from pipelines.sources.segments import Segment, video_of
from pipelines.sources.videos import ReadAs, find_videos

SECONDS = Segment(500, 2000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "v_id1.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def found(folder: Path, text: str, name: str = "list.csv", **said: str | bool) -> list[tuple[str, str, Segment | None]]:
    (folder / name).write_text(text)
    videos = find_videos(folder / name, read_as=ReadAs(**said)).videos  # type: ignore[arg-type]
    return [(source.id, source.path.name, source.segment) for source in videos]


DECIMAL_COMMAS = (
    *(" 0,1 2,5 run", "  0,1  2,5  run fast", " 0,5 2 run", " 0 2,5 run", " 0,5, 2,5, run", " 0,5,2,5,run"),
    *(" 0:01,5 00:02,5 run", ' "0,5" "2,5" run', ",0,5,2,5,run", ",0,5,2,run", ", 0,5, 2,5, run", ";0,5,2,5,run"),
)
"""What follows a path, without a header."""

EPIC = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
    "P01_01_0,P01,a,00:00:00.560,00:00:00.50,00:00:02.00,30,120,open door,open,3,door,3,['door'],[3]\n"
)


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("path,start,end,label\na.mp4,0.5,2,run\n", SECONDS),
        ("label;end;start;path\nrun;2.0;0.5;a.mp4\n", SECONDS),
        ("video\tstart_time\tend_time\taction\na.mp4\t0:00.5\t0:02\trun\n", SECONDS),
        ("video-id,t-start,t-end,label\na,0.5,2.0,run\n", SECONDS),
        ("path,start,finish,label\na.mp4,0.5,2,run\n", SECONDS),
        ("path,from,to,label\na.mp4,0.5,2,run\n", SECONDS),
        ("path,onset,offset,label\na.mp4,0.5,2,run\n", SECONDS),
        ("path,begin,finish,label\na.mp4,0.5,2,run\n", SECONDS),
        ("path,OnsetFrame,OffsetFrame,label\na.mp4,12,50,run\n", Segment(12, 50, in_frames=True)),
        ("youtube_id,start,end,label,subset\na,.5,2.0,run,training\n", SECONDS),
        ("path,start_frame,end_frame,label\na.mp4,12,50,run\n", Segment(12, 50, in_frames=True)),
        ("video,type,type_idx,start,end,startFrame,endFrame,class\na,x,1,0.5,2.0,15,60,run\n", SECONDS),
        ("a.mp4,.5,2.0,run\n", SECONDS),
        ("a.mp4 0.5 00:02 run\n", SECONDS),
        ("path;start;end;label\na.mp4;0,5;2,0;run\n", SECONDS),
        ("a.mp4;0,5;2,0;run\n", SECONDS),
        ("a.mp4\t0,5\t2,0\trun\n", SECONDS),
        ("a.mp4 0,5;2,0;run\n", SECONDS),
        ("path start end label\na.mp4 0,5 2,0 run\n", SECONDS),
        ('{"path": "a.mp4", "start": 0.5, "end": 2, "label": "run"}\n', SECONDS),
        ('[{"path": "a.mp4", "start_frame": 12, "end_frame": 50, "label": "run"}]', Segment(12, 50, in_frames=True)),
        (EPIC.replace(",open,", ",run,"), SECONDS),
    ],
)
def test_columns_and_lines_of_all_spellings_are_segments(folder: Path, text: str, segment: Segment) -> None:
    name = "a_f12-50" if segment.in_frames else "a_0.500-2.000"
    assert found(folder, text) == [(f"run/{name}", "a.mp4", segment)]
    assert video_of(name) == "a"


def test_the_label_of_epic_kitchens_is_the_verb_unless_another_column_is_asked_for(folder: Path) -> None:
    assert found(folder, EPIC)[0][0] == "open/a_0.500-2.000"
    assert found(folder, EPIC, label_column="noun")[0][0] == "door/a_0.500-2.000"
    with pytest.raises(UsageError, match=r"--label-column thing: .* has the columns narration_id"):
        found(folder, EPIC, label_column="thing")
    with pytest.raises(UsageError, match=r"--label-column thing: the first line of .* names no such column"):
        found(folder, "a.mp4,1,2,run\n", label_column="thing")


def test_activitynet_is_read_as_it_is_and_its_files_are_found(folder: Path) -> None:
    annotations = [{"segment": [0.5, 2.0], "label": "run"}, {"segment": [1, 3], "label": "jump"}]
    database = {
        "id1": {"duration": 9.0, "subset": "training", "annotations": annotations},
        "b": {"subset": "validation", "annotations": annotations[:1]},
        "a": {"subset": "testing", "annotations": []},
    }
    (folder / "anet.json").write_text(json.dumps({"version": "1.3", "database": database, "taxonomy": []}, indent=1))
    read = find_videos(folder / "anet.json")
    assert [(source.id, source.split) for source in read.videos] == [
        ("jump/v_id1_1.000-3.000", "train"),
        ("run/b_0.500-2.000", "validation"),
        ("run/v_id1_0.500-2.000", "train"),
    ]
    assert read.account is not None
    assert read.account.sentences() == [
        f"list {folder / 'anet.json'}: 2 classes, 3 segments of 2 videos: jump 1, run 2",
        "splits: train 2, validation 1 segment",
    ]


def test_annotations_that_cannot_be_used_are_left_out_and_counted(folder: Path) -> None:
    spans = [([-0.1, 2], "run"), ([2, 3], "dive"), ([2.0, 3.0], "cliff dive"), ([5, 4], "run"), ([6, 7], "run")]
    annotations = [{"segment": span, "label": label} for span, label in spans]
    database = {"a": {"subset": "training", "annotations": [*annotations, {"label": "run"}, annotations[0]]}}
    listed = folder / "thumos.json"
    listed.write_text(json.dumps({"database": database}))
    read = find_videos(listed)
    assert [source.id for source in read.videos] == ["run/a_0.000-2.000", "run/a_6.000-7.000"]
    assert read.account is not None
    assert read.account.notes == [
        f"2 unusable annotations of {listed} left out (video a, annotation 4: the segment ends at '4', which is not "
        "after its start, '5')",
        f"1 segment of {listed} left out, with more than one label (a 2.000-3.000: cliff dive and dive): keep one "
        "label each",
        f"1 line of {listed} repeats a segment",
    ]
    database["a"]["annotations"] = annotations[1:3]
    listed.write_text(json.dumps({"database": database}))
    with pytest.raises(MissingError, match=r"no videos in .*with more than one label \(a 2.000-3.000"):
        find_videos(listed)
    listed.write_text(json.dumps({"database": {"a": {"annotations": annotations[3:4]}}}))
    with pytest.raises(UsageError, match="json, video a, annotation 1: the segment ends at '4'"):
        find_videos(listed)


def test_kinetics_annotations_still_name_clips_that_are_cut_already(folder: Path) -> None:
    (folder / "abc_000001_000011.mp4").touch()
    text = "label,youtube_id,time_start,time_end,split\nrun,abc,1,11,train\n"
    assert found(folder, text) == [("run/abc_000001_000011", "abc_000001_000011.mp4", None)]


def test_a_repeated_line_counts_once_and_a_segment_without_a_label_is_left_out(folder: Path) -> None:
    (folder / "l.csv").write_text(
        "path,start,end,label\na.mp4,0,1,run\na.mp4,0.0,1.0,run\na.mp4,1,2,\nb.mp4,1,2,jump\n"
    )
    read = find_videos(folder / "l.csv")
    assert [source.id for source in read.videos] == ["jump/b_1.000-2.000", "run/a_0.000-1.000"]
    assert read.account is not None
    assert read.account.notes == [
        f"1 segment of {folder / 'l.csv'} without a label: left out",
        f"1 line of {folder / 'l.csv'} repeats a segment",
    ]


@pytest.mark.parametrize(
    ("rows", "refusal"),
    [
        ("a.mp4,2,2,run", r"line 2: the segment ends at '2', which is not after its start, '2'"),
        ("a.mp4,3,2,run", r"line 2: the segment ends at '2', which"),
        ("a.mp4,0,1,run\na.mp4,-1,2,run", r"line 3: '-1' is no time from 0 on"),
        ("a.mp4,nan,2,run", r"line 2: 'nan' is no time from 0 on"),
        ("a.mp4,0,inf,run", r"line 2: 'inf' is no time from 0 on"),
        ("a.mp4,one,2,run", r"line 2: 'one' is no time: give seconds, or hours:minutes:seconds"),
        ("a.mp4,0,,run", r"line 2 says no end"),
        ("a.mp4,0,1,run\na.mp4,0,1.0,jump", r"line 3: the segment 0.000-1.000 of a.mp4 has the label 'jump', but .* 2"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(folder: Path, rows: str, refusal: str) -> None:
    with pytest.raises(UsageError, match=refusal):
        found(folder, f"path,start,end,label\n{rows}\n")


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("path,start_frame,end_frame,label\na.mp4,1.5,2,run\n", "line 2: '1.5' is no number of a frame"),
        (
            "path,start,end,label,split\na.mp4,0,1,run,train\na.mp4,1,2,run,test\n",
            "line 3 has a.mp4 in the split 'test'",
        ),
        ("path,label,start,end\na.mp4,run,0.5\n", "line 2 says no end"),
        ('{"path": "a.mp4", "start": 0.5, "end": null, "label": "run"}\n', "line 1 says no end"),
        ("a.mp4,0,1,run\nb.mp4,run\n", "line 2: 'b.mp4,run' is not as the lines before"),
        ("a.mp4;0,1;x;run\n", r"line 1: several columns follow 'a.mp4' \('0,1;x;run'\): name them"),
        ("b.mp4;0,5;2;run\na.mp4\t0,1\tx\trun\n", "line 2: .* is not as the lines before"),
        ("a.mp4,0,run,train\n", r"line 1: several columns .* \(path,label,split, or path,start,end,label\)"),
        *((f"a.mp4{line}\n", r"line 1: the commas in '.* decimal point \(0\.5\)") for line in DECIMAL_COMMAS),
        ("a.mp4,0,1,run,train\n", "line 1: several columns follow"),
        *((f"a.mp4{line}\n", "line 1: a.mp4 has several labels") for line in (",0.5,2,3", " 0,5 2,5", " 0,5 2,5 3")),
        ("start_seconds,end_seconds,start_frame,end_frame,class,probability,run\n0,1,0,25,run,1,1\n", "segments.csv"),
    ],
)
def test_what_is_no_list_of_segments_is_refused(folder: Path, text: str, refusal: str) -> None:
    with pytest.raises(UsageError, match=refusal):
        found(folder, text)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("path,start,until,label\na.mp4,0,1,run\n", "line 2: the column start says .* starts, .*: call that one end "),
        ("path,t0,to,label\na.mp4,0,1,run\n", r"line 2: the column to says .* ends, .* \(known are start, start_time"),
        ("path,start_frame,end,label\na.mp4,0,1,run\n", "the column end says .* ends, .*: call that one start "),
        ("path,begin_frame,last,label\na.mp4,0,1,run\n", "the column begin_frame says .*: call that one end_frame "),
        ('{"path": "a.mp4", "start": 0, "label": "run"}\n', "line 1: the column start says .* give --whole-videos"),
    ],
)
def test_a_start_or_an_end_alone_is_not_taken_for_a_whole_video(folder: Path, text: str, refusal: str) -> None:
    with pytest.raises(UsageError, match=refusal):
        found(folder, text)
    assert found(folder, text, whole_videos=True) == [("run/a", "a.mp4", None)]
    (folder / "metadata.csv").write_text("file_name,start,label\na.mp4,0,run\nb.mp4,0,run\nv_id1.mp4,0,run\n")
    (folder / "list.csv").unlink()
    assert {source.class_name for source in find_videos(folder).videos} == {"run"}


def test_a_row_without_start_and_end_is_the_whole_video(folder: Path) -> None:
    (folder / "l.csv").write_text("path,label,start,end\na.mp4,run,0.5,2\na.mp4,walk,,\nb.mp4,jump,,\n")
    read = find_videos(folder / "l.csv")
    assert [source.id for source in read.videos] == ["jump/b", "run/a_0.500-2.000", "walk/a"]
    assert read.account is not None
    assert read.account.videos == 2
    assert read.account.notes == [f"2 rows of {folder / 'l.csv'} without start and end: the whole video"]
    with pytest.raises(UsageError, match=r"line 3 has a.mp4 in the split 'test'"):
        found(folder, "path,label,start,end,split\na.mp4,run,0.5,2,train\na.mp4,run,,,test\n")


@pytest.mark.parametrize(
    "text",
    [
        "path,label,start,end\na.mp4,run,0.5,2\nb.mp4,jump,7,3\n",
        "a.mp4,0.5,2,run\nb.mp4,7,3,jump\n",
        '{"path": "a.mp4", "start": 0.5, "end": 2, "label": "run"}\n{"path": "b.mp4", "start": "x", "label": "jump"}\n',
    ],
)
def test_starts_and_ends_of_clips_that_are_cut_already_count_for_nothing(folder: Path, text: str) -> None:
    assert [one[0] for one in found(folder, text, whole_videos=True)] == ["jump/b", "run/a"]


def test_starts_and_ends_beside_a_folder_of_clips_say_what_they_were_cut_from(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,start,end,label\na.mp4,0,1,run\nb.mp4,x,2,jump\nv_id1.mp4,,,run\n")
    assert [source.id for source in find_videos(folder).videos] == ["jump/b", "run/a", "run/v_id1"]


def test_segments_beside_a_folder_of_videos_are_not_taken_for_its_labels(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,start,end,label\na.mp4,0,1,run\na.mp4,1,2,jump\n")
    with pytest.raises(UsageError, match=r"line 3: .*'jump', but .*line 2 gives it 'run'.* give .*metadata.csv as VID"):
        find_videos(folder)
