"""Segments of untrimmed videos: each is what the whole video has there, and the video is gone through once."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipelines import extract_flow, extract_frames, verify
from pipelines.datasets.catalogue import load_catalogue
from pipelines.errors import VideoError
from pipelines.jobs import frames as frames_stage
from pipelines.jobs import segments
from pipelines.jobs.frames import FrameTask
from pipelines.jobs.segments import announced_frames
from pipelines.jobs.task import ExtractResult
from pipelines.optical_flow import segments as flow_stage
from pipelines.optical_flow.batch import BatchFlow
from pipelines.optical_flow.methods import make_method
from pipelines.optical_flow.store import FlowTask, runs_of_frames, store_flow
from pipelines.sources.segments import Segment
from pipelines.sources.videos import VideoSource
from pipelines.storage.failures import Failure, read_failures, record_outcomes
from pipelines.storage.flow_file import FLOW_SCHEMA, FlowFile
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from pipelines.video.decoding import VideoReader
from tests.helpers import worker_functions
from tests.helpers.films import texture, write_film

WriteClip = Callable[..., np.ndarray]
T = 30  # frames of the film, 25 a second
# Two that overlap, one that touches, one behind a gap, two of one frame and none; by frames they are FRAMES.
SPANS = [Segment(0, 320), Segment(200, 480), Segment(480, 640), Segment(800, 5000), Segment(40, 80), Segment(41, 79)]
FRAMES = [(0, 8), (5, 12), (12, 16), (20, 30), (1, 2), None]


@pytest.fixture
def film(tmp_path: Path, write_clip: WriteClip) -> Path:
    path = tmp_path / "films/film.mkv"
    write_clip(path, frames=T, height=32, width=48)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every video that is opened to be decoded in this process."""
    paths: list[Path] = []
    of_reader = VideoReader.__init__

    def init(reader: VideoReader, path: Path, *arguments: object, **options: object) -> None:
        paths.append(path)
        of_reader(reader, path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoReader, "__init__", init)
    return paths


def frame_tasks(film: Path, folder: Path, spans: list[Segment], **settings: bool) -> list[FrameTask]:
    sources = [VideoSource("c", span.name(film.stem), film, segment=span) for span in spans]
    return [
        FrameTask(source, folder / f"{source.video}.h5", None, **{"allow_truncated": False, **settings})
        for source in sources
    ]


def flow_task(film: Path, target: Path, method: str, options: dict[str, str], step: int) -> FlowTask:
    settings = FlowSettings.of(method, make_method(method, options).parameters, 20, step, "video")
    return FlowTask(VideoSource("c", film.stem, film), target, settings, tuple(sorted(options.items())))


def no_report(units: int) -> None:
    pass


@pytest.mark.parametrize("in_frames", [False, True])
def test_frames_of_segments_are_those_of_the_whole_video_decoded_once(
    film: Path, tmp_path: Path, opened: list[Path], in_frames: bool
) -> None:
    whole = FrameTask(VideoSource("c", "film", film), tmp_path / "whole.h5", None, False)
    assert frames_stage.store_frames(whole, no_report) == T
    opened.clear()
    spans, units = SPANS, list[int]()
    if in_frames:
        spans = [Segment(*(frames or (7, 7)), in_frames=True) for frames in FRAMES]
    tasks = frame_tasks(film, tmp_path / "parts", spans)
    outcomes = frames_stage.store_segments(tasks, units.append)
    assert opened == [film]
    assert sum(units) == sum(stop - first for first, stop in filter(None, FRAMES))
    with FrameFile(whole.target) as all_frames:
        for task, outcome, frames in zip(tasks, outcomes, FRAMES, strict=True):
            if frames is None:
                assert isinstance(outcome, VideoError)
                assert str(outcome) == f"no frame is shown within {task.source.segment}"
                assert not task.target.exists()
                continue
            first, stop = frames
            assert outcome == stop - first
            with FrameFile(task.target) as file:
                assert len(file) == stop - first
                for index in range(len(file)):
                    assert np.array_equal(file.read_jpeg(index), all_frames.read_jpeg(first + index))
                assert file.times == pytest.approx(np.arange(stop - first) / 25, abs=0.002)
                about = file.attributes
            assert about["source_sha256"] == all_frames.attributes["source_sha256"]
            assert (about["source"], about["segment_first_frame"], about["fps"]) == (str(film), first, 25.0)
            assert about["segment"] == str(task.source.segment)
            end = (stop if in_frames else task.source.segment.end / 40) / 25  # type: ignore[union-attr]
            assert about["segment_start"] == pytest.approx(first / 25, abs=0.002)
            assert about["segment_end"] == pytest.approx(end, abs=0.002)


@pytest.mark.parametrize(
    ("method", "options", "step"),
    [
        ("farneback", {}, 1),
        ("farneback", {}, 3),
        ("tvl1", {"warps": "2", "nscales": "2", "outer_iterations": "3"}, 1),  # which stops early, each pair by itself
    ],
)
def test_flow_of_every_pair_is_that_of_the_whole_video_and_computed_once(
    film: Path, tmp_path: Path, opened: list[Path], method: str, options: dict[str, str], step: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = flow_task(film, tmp_path / "whole.h5", method, options, step)
    store_flow(whole, no_report)
    with FlowFile(whole.target) as file:
        all_fields = file.read(0, len(file))
    opened.clear()
    computed: list[int] = []
    flow_of = flow_stage.quantised_flow

    def counted(*arguments: Any) -> Iterator[BatchFlow]:
        with contextlib.closing(flow_of(*arguments)) as batches:
            for made in batches:
                computed.append(len(made.fields))
                yield made

    monkeypatch.setattr(flow_stage, "quantised_flow", counted)
    sources = [VideoSource("c", span.name("film"), film, segment=span) for span in SPANS]
    tasks = [replace(whole, source=source, target=tmp_path / f"parts/{source.video}.h5") for source in sources]
    outcomes = flow_stage.store_segments(tasks, no_report)
    assert opened == [film]
    of_segments = [range(first, stop - step) for first, stop in filter(None, FRAMES)]
    needed = set().union(*of_segments)
    assert len(needed) <= sum(computed) <= len(needed) + step - 1  # two that overlap by less than a step
    for task, outcome, frames in zip(tasks, outcomes, FRAMES, strict=True):
        if frames is None or frames[1] - frames[0] <= step:
            assert isinstance(outcome, VideoError)
            assert ("no frame" if frames is None else "flow") in str(outcome)
            assert not task.target.exists()
            continue
        first, stop = frames
        assert outcome == stop - first - step
        with FlowFile(task.target) as file:
            assert np.array_equal(file.read(0, len(file)), all_fields[first : stop - step])
            assert file.attributes["largest_displacement"] > 0
            assert file.attributes["source_frames"] == stop - first


def test_no_pair_reaches_over_a_gap() -> None:
    frames = [None, *map(np.array, range(5)), None, np.array(9), None, *map(np.array, range(20, 23))]
    runs = [[int(frame) for frame in run] for run in runs_of_frames(frames, 1, 3)]
    assert runs == [[0, 1, 2, 3], [3, 4], [20, 21, 22]]


def test_frames_are_found_by_when_they_are_shown(tmp_path: Path, write_clip: WriteClip) -> None:
    film, times = tmp_path / "film.mkv", [0.0, 1.0, 2.0, 2.04, 2.08, 3.0]
    write_clip(film, times=times)
    tasks = frame_tasks(film, tmp_path / "parts", [Segment(1000, 2050), Segment(2080, 9000)])
    assert frames_stage.store_segments(tasks, no_report) == [3, 2]
    with FrameFile(tasks[0].target) as file:
        assert file.times == pytest.approx([0, 1, 1.04])
        assert file.attributes["fps"] == pytest.approx(3 / 1.08)


def test_timestamps_that_go_back_are_replaced_for_segments_as_for_the_video(tmp_path: Path, opened: list[Path]) -> None:
    film = tmp_path / "film.avi"
    write_film(film, "libx264", "yuv420p", texture(T), options={"bf": "2"})
    tasks = frame_tasks(film, tmp_path / "parts", [Segment(0, 400), Segment(400, 800), Segment(5, 9, in_frames=True)])
    assert frames_stage.store_segments(tasks, no_report) == [10, 10, 4]
    assert len(opened) == 3  # to be decoded, to find the times, to be decoded
    with FrameFile(tasks[1].target) as file:
        assert (file.attributes["times_from"], file.attributes["segment_first_frame"]) == ("rate", 10)


def test_a_segment_behind_the_last_timestamp_is_looked_for_again_where_timestamps_stand_still(tmp_path: Path) -> None:
    write_film(tmp_path / "film.avi", "mjpeg", "yuvj420p", texture(T))
    film = tmp_path / "film.mkv"
    with av.open(str(tmp_path / "film.avi")) as source, av.open(str(film), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is not None:  # which the last one lacks, which is empty
                packet.pts = packet.dts = packet.pts // 3 * 3
                packet.stream = stream
                container.mux(packet)
    with VideoReader(film, allow_truncated=True) as reader:
        assert len([*reader]) == T
        assert (reader.stamp, reader.timing.duration) == pytest.approx((1.08, 3.6))
    tasks = frame_tasks(film, tmp_path / "parts", [Segment(1200, 2000)], allow_truncated=True)
    units: list[int] = []
    assert frames_stage.store_segments(tasks, units.append) == [7]  # of 0.12 s
    assert units.count(0) == 3  # signs of life: of each pass, also of that which finds the times


def test_a_cut_or_damaged_film_fails_what_lies_behind(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    write_film(film, "mjpeg", "yuvj420p", texture(T))
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    spans = [Segment(0, 200), Segment(200, 800), Segment(900, 1000)]
    first, second, third = frames_stage.store_segments(frame_tasks(film, tmp_path / "parts", spans), no_report)
    assert first == 5
    assert str(second) == str(third)
    assert str(second).startswith("truncated: decoded ")
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["film_0.000-0.200.h5"]
    allowed = frame_tasks(film, tmp_path / "allowed", spans, allow_truncated=True)
    first, second, third = frames_stage.store_segments(allowed, no_report)
    assert isinstance(second, int)
    assert "starts behind the end of the video, which has" in str(third)
    with FrameFile(allowed[1].target) as file:
        assert file.attributes["truncated"]
        assert file.attributes["decoded_frames"] == second < 15


def test_flow_is_stored_of_segments_before_a_cut_as_frames_are(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    write_film(film, "mjpeg", "yuvj420p", texture(T))
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    whole = flow_task(film, tmp_path / "whole.h5", "farneback", {}, 1)
    # One alone, one that ends while another goes on, one behind the cut.
    spans = [Segment(0, 120), Segment(160, 400), Segment(320, 800), Segment(900, 1000)]
    sources = [VideoSource("c", span.name("film"), film, segment=span) for span in spans]
    tasks = [replace(whole, source=source, target=tmp_path / f"parts/{source.video}.h5") for source in sources]
    outcomes = flow_stage.store_segments(tasks, no_report)
    assert outcomes[:2] == [2, 5]
    assert all(str(outcome).startswith("truncated: decoded ") for outcome in outcomes[2:])
    assert [task.target.exists() for task in tasks] == [True, True, False, False]


def test_the_flow_of_a_segment_is_stored_before_the_next_one_is_reached(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "_REPORTED", 1)
    whole = flow_task(film, tmp_path / "whole.h5", "farneback", {}, 1)
    sources = [VideoSource("c", span.name("film"), film, segment=span) for span in (SPANS[0], SPANS[3])]
    tasks = [replace(whole, source=source, target=tmp_path / f"parts/{source.video}.h5") for source in sources]
    decoded = 0

    def report(units: int) -> None:
        nonlocal decoded
        if units:  # by the thread that stores
            return
        decoded += 1
        for _ in range(1000):
            if decoded < 16 or tasks[0].target.exists():
                return
            time.sleep(0.01)
        raise AssertionError("decoding goes on, but the first segment is not stored")

    assert flow_stage.store_segments(tasks, report) == [7, 9]


def test_how_many_frames_a_segment_will_have_is_told_before(film: Path, tmp_path: Path) -> None:
    with VideoReader(film) as reader:
        tasks = frame_tasks(film, tmp_path, [Segment(0, 320), Segment(800, 9000), Segment(20, 25, in_frames=True)])
        assert [announced_frames(task, reader) for task in tasks] == [8, 10, 5]


# ------------------------------------------------------------------ the stages


def frames_of(workspace: Workspace, videos: Path, **settings: object) -> ExtractResult:
    return extract_frames.run(extract_frames.Config(workspace.root, str(videos), workers=1, **settings))  # type: ignore[arg-type]


def test_a_list_of_segments_from_its_files_to_failures_and_what_is_missing_is_made_again(
    film: Path, tmp_path: Path
) -> None:
    listed = film.parent / "list.csv"
    listed.write_text("path,start,end,label\nfilm.mkv,0,.4,walk\nfilm.mkv,0.2,0.6,run\nfilm.mkv,0.6,1.2,walk\n")
    with listed.open("a") as file:
        file.write("film.mkv,7,8,run\nother.mkv,0,1,run\n")
    workspace = Workspace(tmp_path / "work")
    result = frames_of(workspace, listed)
    assert (result.done, result.failed, result.units, result.what) == (3, 2, 10 + 10 + 15, "segment")
    assert [(row.video, row.reason.partition(",")[0]) for row in read_failures(workspace)] == [
        ("film_7.000-8.000", "the segment 7.000-8.000 starts behind the end of the video"),
        ("other_0.000-1.000", read_failures(workspace)[1].reason.partition(",")[0]),
    ]
    made = {path: path.stat().st_mtime_ns for path in workspace.frames.rglob("*.h5")}
    missing = workspace.frames_file("run", "film_0.200-0.600")
    missing.unlink()
    again = frames_of(workspace, listed)
    assert (again.done, again.skipped, again.failed) == (1, 2, 2)
    assert missing.exists()
    assert all(path.stat().st_mtime_ns == time for path, time in made.items() if path != missing)

    assert again.unlisted == []
    corrected = film.parent / "corrected.csv"
    corrected.write_text(listed.read_text().replace(",.4,", ",.3,"))
    for overwrite in (False, True):
        told = frames_of(workspace, corrected, overwrite=overwrite, dry_run=True)
        assert told.unlisted == ["walk/film_0.000-0.400"]

    flow = extract_flow.Config(workspace.root, str(listed), method="farneback", workers=1)
    assert extract_flow.run(flow).done == 3
    verified = verify.run(verify.Config(workspace.root, depth="full", workers=1))
    assert {fault.subject for fault in verified.faults} <= {"run/film_7.000-8.000", "run/other_0.000-1.000"}
    assert verified.recomputed_fields == 9 + 9 + 14
    from_frames = Workspace(tmp_path / "from-frames")
    from_frames.root.mkdir()
    workspace.frames.rename(from_frames.frames)
    extract_flow.run(extract_flow.Config(from_frames.root, method="farneback", workers=1))
    assert peek(from_frames.flow_file("run", "film_0.200-0.600"), FLOW_SCHEMA)["segment"] == "0.200-0.600"
    assert extract_flow.run(extract_flow.Config(from_frames.root, method="farneback", workers=1)).skipped == 3
    assert [(video.id, video.frames) for video in load_catalogue(from_frames).videos] == [
        ("run/film_0.200-0.600", 10),
        ("walk/film_0.000-0.400", 10),
        ("walk/film_0.600-1.200", 15),
    ]


def test_rows_stay_of_other_names_that_a_file_has_by_its_segments(film: Path, tmp_path: Path) -> None:
    workspace, listed = Workspace(tmp_path / "work"), film.parent / "list.csv"
    listed.write_text("film.mkv,0,.1,run\n")
    failed = Failure("extract-frames", "run", "film_7.000-8.000", str(film), "")
    record_outcomes(workspace, failed=[failed])
    frames_of(workspace, listed)
    assert [row.video for row in read_failures(workspace)] == [failed.video]
    whole = film.parent / "walk" / film.name
    whole.parent.mkdir()
    film.rename(whole)
    record_outcomes(workspace, failed=[replace(failed, path=str(whole), video=name) for name in ("film", failed.video)])
    frames_of(workspace, film.parent)
    assert [row.video for row in read_failures(workspace)] == [failed.video]  # the whole film has another name now


def test_segments_finished_before_their_process_died_are_done(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = film.parent / "list.csv"
    listed.write_text("film.mkv,0,.4,run\nfilm.mkv,.4,.8,run\n")
    monkeypatch.setattr(frames_stage, "store_segments", worker_functions.store_one_and_die)
    workspace = Workspace(tmp_path / "work")
    result = frames_of(workspace, listed)
    assert (result.done, result.failed) == (1, 1)
    assert [(row.video, row.reason) for row in read_failures(workspace)] == [
        ("film_0.400-0.800", "the worker process died (killed by signal 11) on this video")
    ]
