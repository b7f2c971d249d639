"""Class over time: every window is a clip of its own, memory is that of one window, and the files say it all."""

import csv
import json
import os
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from pipelines import predict
from pipelines.errors import UsageError
from pipelines.prediction.overlay import shown_size
from pipelines.prediction.sliding import Slider
from pipelines.prediction.timeline import Timeline, Window
from pipelines.prediction.timeline_files import _clock, free_paths
from pipelines.prediction.timeline_picture import ROWS, clock, draw_timeline, shown_classes
from pipelines.prediction.windows import Duration, Windows
from pipelines.sources.videos import VideoSource, find_videos
from pipelines.storage.atomic import temporary_name
from pipelines.storage.hdf5 import even_times
from pipelines.storage.workspace import UNLABELLED
from pipelines.video.synthetic import write_video
from pipelines.video.timing import Timing

FRAMES = 47
SETTINGS = {"timeline": True, "window": "20f", "hop": "10f", "crops": 3, "step": "joint1", "device": "cpu"}
STARTS = [0, 10, 20, 27]  # the last window ends with the video


@pytest.fixture(scope="module")
def pictures():
    noise = np.random.default_rng(1).integers(0, 256, (8, 40, 3), dtype=np.uint8)
    texture = cv2.resize(noise, (160, 32), interpolation=cv2.INTER_CUBIC)
    return np.stack([texture[:, t : t + 40] for t in range(FRAMES)])


@pytest.fixture(scope="module")
def over_time(trained_on_videos, pictures, tmp_path_factory):
    """The result of a timeline with an overlay, and what was spied on: frames held, after each."""
    folder = tmp_path_factory.mktemp("timeline")
    write_video(folder / "a.clip.mkv", pictures, codec="ffv1", pixels="bgr0")
    held = []
    add = Slider.add

    def spy(self, frame, time):
        add(self, frame, time)
        held.append((len(self.frames), len(self.flow.kept)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Slider, "add", spy)
        config = predict.Config(
            [str(folder / "a.clip.mkv")],
            trained_on_videos.workspace.root,
            output=folder / "out",
            overlay=True,
            **SETTINGS,
        )
        return predict.run(config), held, folder


@pytest.fixture(scope="module")
def document(over_time):
    return json.loads((over_time[2] / "out" / "a.clip.json").read_text())


def test_each_window_is_predicted_as_a_clip_of_its_own(trained_on_videos, over_time, document, pictures):
    _, _, folder = over_time
    assert [(window["start_frame"], window["end_frame"]) for window in document["windows"]] == [
        (start, start + 20) for start in STARTS
    ]
    for window in document["windows"]:
        cut = folder / f"{window['start_frame']}.mkv"
        write_video(cut, pictures[window["start_frame"] : window["end_frame"]], codec="ffv1", pixels="bgr0")
        settings = {"crops": 3, "step": "joint1", "device": "cpu"}
        alone = predict.run(predict.Config([str(cut)], trained_on_videos.workspace.root, **settings)).predictions[0]
        for stream, values in alone.probabilities.items():
            np.testing.assert_allclose(window["probabilities"][stream], values, rtol=0, atol=2e-6)
    assert len({tuple(window["probabilities"]["fused"]) for window in document["windows"]}) == len(STARTS)


def test_of_a_long_video_only_one_window_is_held(over_time):
    _, held, _ = over_time
    assert len(held) == FRAMES
    assert max(frames for frames, _ in held) == 20
    assert max(fields for _, fields in held) <= 20


def test_windows_that_overlap_share_their_flow(over_time):
    (prediction,) = over_time[0].predictions
    # Centers 5, 10 (9.5 to even) and 14 of a window need its fields 0..18: all but the video's last have a frame.
    assert prediction.pairs == FRAMES - 1


def test_the_video_as_a_whole_is_the_mean_of_its_windows(over_time, document):
    (prediction,) = over_time[0].predictions
    assert prediction.timeline.windows == len(STARTS)
    mean = np.mean([window["probabilities"]["fused"] for window in document["windows"]], axis=0)
    np.testing.assert_allclose(prediction.probabilities["fused"], mean, atol=0.02)  # of logits, so only nearly


def test_the_table_has_a_row_a_window_and_a_column_a_class(over_time, document):
    with (over_time[2] / "out" / "a.clip.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["start_seconds"] for row in rows] == ["0.000", "0.400", "0.800", "1.080"]
    for row, window in zip(rows, document["windows"], strict=True):
        assert [float(row[name]) for name in document["classes"]] == window["probabilities"]["fused"]
        assert row["class"] == window["class"]
        assert float(row["probability"]) == max(window["probabilities"]["fused"])


def test_the_overlay_shows_every_frame_with_the_classes_below(over_time, pictures):
    (prediction,) = over_time[0].predictions
    with av.open(str(prediction.timeline.files["mp4"])) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(shown) == FRAMES
    width, height = shown_size(40, 32)
    assert {frame.shape[1] for frame in shown} == {width}
    for frame, picture in zip(shown[::9], pictures[::9], strict=True):
        small = cv2.resize(frame[:height], (40, 32), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - picture).mean() < 12
        assert frame[height:].std() > 10  # letters and bars
    assert (shown[0][height:] != shown[-1][height:]).any()


def test_a_video_shorter_than_the_window_is_one_window(trained_on_videos, tmp_path):
    video = [str(trained_on_videos.video("jump/jump2"))]
    whole = predict.run(predict.Config(video, trained_on_videos.workspace.root, crops=3, step="joint1", device="cpu"))
    config = predict.Config(video, trained_on_videos.workspace.root, output=tmp_path, **(SETTINGS | {"window": "9"}))
    (prediction,) = predict.run(config).predictions
    assert prediction.timeline.windows == 1
    assert prediction.logits == whole.predictions[0].logits
    (segment,) = prediction.timeline.segments
    assert (segment.start, segment.end) == (0, 24 / 25)


def test_the_overlay_never_replaces_the_video(trained_on_videos, tmp_path):
    video = tmp_path / "a.mp4"
    write_video(video, np.full((12, 32, 40, 3), 80, np.uint8))
    before = video.read_bytes()
    config = predict.Config([str(video)], trained_on_videos.workspace.root, output=tmp_path, overlay=True, **SETTINGS)
    with pytest.raises(predict.UsageError, match=r"holds .*a.mp4, which its overlay would replace"):
        predict.run(config)
    assert video.read_bytes() == before


def test_a_timeline_that_a_killed_prediction_left_half_written_goes_with_the_next(own_trained_on_videos, tmp_path):
    video = tmp_path / "a.mkv"
    write_video(video, np.full((12, 32, 40, 3), 80, np.uint8), codec="ffv1", pixels="bgr0")
    folder = own_trained_on_videos.workspace.root / "predictions"
    left_over = temporary_name(folder / "b.csv").name.replace(f"-{os.getpid()}-", "-999999999-")
    for place in (folder / "jump", folder.parent):  # where a timeline and where failures.csv would stand
        place.mkdir(parents=True, exist_ok=True)
        (place / left_over).write_text("half a file")
    predict.run(predict.Config([str(video)], own_trained_on_videos.workspace.root, **SETTINGS))
    assert list(folder.parent.rglob(".*")) == []


def test_timelines_of_videos_of_one_name_lie_side_by_side(trained_on_videos, tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "a.mkv", np.full((12, 32, 40, 3), 80, np.uint8), codec="ffv1", pixels="bgr0")
    videos = [str(tmp_path / folder / "a.mkv") for folder in ("x", "y")]
    result = predict.run(predict.Config(videos, trained_on_videos.workspace.root, output=tmp_path / "out", **SETTINGS))
    assert [prediction.timeline.files["csv"].name for prediction in result.predictions] == ["a.csv", "a-2.csv"]
    for video, name in zip(videos[::-1], ("a-2.csv", "a.csv"), strict=True):  # one by one they keep their places
        config = predict.Config([video], trained_on_videos.workspace.root, output=tmp_path / "out", **SETTINGS)
        assert predict.run(config).predictions[0].timeline.files["csv"].name == name


# ------------------------------------------------------------------ a variable frame rate

SLOW_THEN_FAST = [*(np.arange(8) / 2), *(4 + np.arange(100) / 25)]
"""2 frames a second for 4 seconds, then 25 for 4 more."""


@pytest.fixture(scope="module")
def uneven(trained_on_videos, pictures, tmp_path_factory):
    """The result, its folder and the video's true times, by PyAV."""
    folder = tmp_path_factory.mktemp("uneven")
    clip = np.concatenate([pictures, pictures, pictures])[: len(SLOW_THEN_FAST)]
    write_video(folder / "a.mp4", clip, codec="libx264", times=SLOW_THEN_FAST)
    settings = SETTINGS | {"window": "1s", "hop": "1s", "overlay": True}
    config = predict.Config(
        [str(folder / "a.mp4")], trained_on_videos.workspace.root, output=folder / "out", **settings
    )
    with av.open(str(folder / "a.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    return predict.run(config), folder / "out", times


def test_windows_of_seconds_are_of_time_with_a_variable_rate(uneven):
    result, out, times = uneven
    with (out / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["start_seconds"], row["end_seconds"]) for row in rows] == [
        (f"{second}.000", f"{second + 1}.000") for second in range(8)
    ]
    assert [int(row["start_frame"]) for row in rows] == [0, 2, 4, 6, 8, 33, 58, 83]
    assert [float(row["start_seconds"]) for row in rows] == [times[int(row["start_frame"])] for row in rows]
    (prediction,) = result.predictions
    assert prediction.seconds == pytest.approx(8)
    assert (prediction.timeline.segments[0].start, prediction.timeline.segments[-1].end) == (0, pytest.approx(8))


def test_the_document_says_the_true_times(uneven):
    _, out, times = uneven
    document = json.loads((out / "a.json").read_text())
    assert document["video_seconds"] == pytest.approx(8)
    assert document["fps"] == pytest.approx(108 / 8)
    assert (document["window"], document["hop"], document["times_from"]) == ("1 s", "1 s", "timestamps")
    ends = [*times, 8]
    for window in document["windows"]:
        assert window["start_seconds"] == pytest.approx(times[window["start_frame"]])
        assert window["end_seconds"] == pytest.approx(ends[window["end_frame"]])


def test_frames_of_the_overlay_are_shown_when_the_videos_are(uneven):
    _, out, times = uneven
    with av.open(str(out / "a.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(8)
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(times, abs=1e-4)


def test_windows_of_frames_have_the_times_of_their_frames(trained_on_videos, pictures, tmp_path):
    write_video(tmp_path / "a.mkv", pictures[:30], codec="ffv1", pixels="bgr0", times=SLOW_THEN_FAST[:30])
    config = predict.Config([str(tmp_path / "a.mkv")], trained_on_videos.workspace.root, output=tmp_path, **SETTINGS)
    predict.run(config)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["start_frame"], row["start_seconds"], row["end_seconds"]) for row in rows] == [
        ("0", "0.000", "4.480"),
        ("10", "4.080", "4.880"),
    ]


@pytest.mark.parametrize("window", ["1f", "0.01s"])
def test_a_window_too_short_for_flow_is_called_as_long_as_it_is(trained_on_videos, pictures, tmp_path, window):
    write_video(tmp_path / "a.mkv", pictures[:3], codec="ffv1", pixels="bgr0")
    settings = SETTINGS | {"window": window, "hop": None}
    predict.run(
        predict.Config([str(tmp_path / "a.mkv")], trained_on_videos.workspace.root, output=tmp_path, **settings)
    )
    document = json.loads((tmp_path / "a.json").read_text())
    assert (document["window"], document["window_frames"]) == ("2 frames", 2)
    assert {one["end_frame"] - one["start_frame"] for one in document["windows"]} == {2}


def test_a_video_whose_timestamps_go_back_is_predicted_by_its_rate_and_says_so(trained_on_videos, pictures, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, pictures.shape, dtype=np.uint8)  # which x264 codes out of order
    write_video(tmp_path / "a.avi", noise, codec="libx264")  # AVI has decoding times only
    settings = SETTINGS | {"window": "1s", "hop": "0.4s"}
    config = predict.Config([str(tmp_path / "a.avi")], trained_on_videos.workspace.root, output=tmp_path, **settings)
    (prediction,) = predict.run(config).predictions
    assert "go back" in prediction.warning
    document = json.loads((tmp_path / "a.json").read_text())
    assert [(window["start_frame"], window["end_frame"]) for window in document["windows"]] == [
        (0, 25),
        (10, 35),
        (20, 45),
        (22, 47),
    ]
    assert document["times_from"] == "rate"


def spans_of(times, end, window, hop, least=2):
    """The windows of frames shown then, as they are settled one after the other."""
    windows = Windows(Duration.parse("--window", window), Duration.parse("--hop", hop), least)
    spans = []
    for time in times:
        needed = windows.oldest() if windows.times else 0
        settled = windows.add(float(time))
        assert all(start >= needed for start, _ in settled)  # no frame is wanted that was let go
        spans += settled
    needed = windows.oldest()
    last = windows.finish(end)
    assert all(start >= needed for start, _ in last)
    return spans + last


@pytest.mark.parametrize("frames", [1, 30, 50, 51, 99, 100, 101, 250])
def test_at_an_even_rate_windows_of_seconds_are_those_of_as_many_frames(frames):
    times = even_times(frames, 25)
    assert spans_of(times, frames / 25, "2s", "1s") == spans_of(range(frames), frames, "50f", "25f")


@pytest.mark.parametrize(
    ("window", "hop"), [("1s", "1s"), ("2s", "0.3s"), ("20f", "1s"), ("0.5s", "40f"), ("0.01", "0.01")]
)
@pytest.mark.parametrize("seed", range(4))
def test_windows_leave_no_frame_out_and_are_never_the_same(window, hop, seed):
    gaps = np.random.default_rng(seed).choice([0.0, 0.02, 0.04, 0.5, 7.0], 200, p=[0.05, 0.4, 0.4, 0.1, 0.05])
    times = np.cumsum(gaps) - gaps[0]
    spans = spans_of(times, times[-1] + 0.04, window, hop)
    assert (spans[0][0], spans[-1][1]) == (0, 200)
    assert len(set(spans)) == len(spans)
    for (start, end), (later, _) in pairwise(spans):
        assert start <= later <= end
    assert all(end - start >= 2 for start, end in spans)


def test_a_frame_that_is_shown_for_a_day_is_in_few_windows():
    assert len(spans_of([0.0, 0.04, 86400.0, 86400.04], 86400.08, "1s", "0.01s")) <= 6


# ------------------------------------------------------------------ time and classes


def timeline(winners, classes=4, frames=100, length=20, hop=10):
    windows = []
    for place, winner in enumerate(winners):
        values = [0.1 / classes] * classes
        values[winner] += 0.9
        windows.append(Window(place * hop, place * hop + length, {"fused": values}))
    names = [f"class {index}" for index in range(classes)]
    lengths = Duration(length, in_frames=True), Duration(hop, in_frames=True)
    return Timeline(names, windows, Timing(even_times(frames, 25), 25.0, "timestamps"), *lengths, 0, {})


def test_segments_follow_one_another_from_the_beginning_to_the_end():
    segments = timeline([0, 0, 2, 2, 2, 1, 0, 0, 0]).segments()
    assert [segment.class_name for segment in segments] == ["class 0", "class 2", "class 1", "class 0"]
    assert (segments[0].start, segments[-1].end) == (0, 4)
    assert [a.end for a in segments[:-1]] == [b.start for b in segments[1:]]
    # Between the windows with middles 20 and 30, and 50 and 60.
    assert (segments[1].start, segments[1].end) == (25 / 25, 55 / 25)
    assert segments[1].probability == pytest.approx(0.925)


@pytest.mark.parametrize("seed", range(3))
def test_a_moment_has_the_class_of_the_nearest_window_if_that_is_sure(seed):
    chance = np.random.default_rng(seed)
    windows = [
        Window(start, start + 20, {"fused": list(chance.dirichlet([0.5] * 3))}) for start in [*range(0, 60, 5), 63, 80]
    ]
    lengths = Duration(20, in_frames=True), Duration(5, in_frames=True)
    video = Timeline(list("abc"), windows, Timing(even_times(100, 25), 25.0, ""), *lengths, 0, {}, threshold=0.6)
    middles = np.array([(window.start + window.end) / 2 / 25 for window in windows])
    for time in np.arange(0.003, 4, 0.01):
        nearest = windows[int(np.argmin(np.abs(middles - time)))].probabilities["fused"]
        expected = ["abc"[int(np.argmax(nearest))]] if max(nearest) >= 0.6 else []
        assert [one.class_name for one in video.segments() if one.start <= time < one.end] == expected
    names = [(one.class_name, one.end) for one in video.segments()]
    assert all((a, end) != (b.class_name, b.start) for (a, end), b in zip(names, video.segments()[1:], strict=False))


def test_segments_are_listed_and_shown_as_subtitles(over_time, document):
    folder = over_time[2]
    with (folder / "out" / "a.clip.segments.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "start", "end", "label", "score"]
    video = str(folder / "a.clip.mkv")
    found = [(video, one["start"], one["end"], one["class_name"], one["probability"]) for one in document["segments"]]
    listed = [(path, float(start), float(end), label, float(score)) for path, start, end, label, score in rows[1:]]
    assert [row[0::3] for row in listed] == [row[0::3] for row in found]
    np.testing.assert_allclose([row[1:3] for row in listed], [row[1:3] for row in found], atol=5e-4)
    titles = (folder / "out" / "a.clip.srt").read_text().split("\n\n")
    assert len(titles) == len(rows) - 1
    assert titles[0].startswith("1\n00:00:00,000 --> 00:00:0")
    assert titles[-1].splitlines()[1].endswith("--> 00:00:01,880")
    assert titles[0].splitlines()[2].startswith(f"{listed[0][3]} ")
    assert _clock(3723.4567) == "01:02:03,457"


@pytest.mark.parametrize("name", ["a.clip.segments.csv", "a.clip.json"])
def test_the_segments_of_a_timeline_are_read_back_as_a_list_of_videos(over_time, document, name):
    folder = over_time[2]
    found = find_videos(folder / "out" / name).videos
    assert {source.path for source in found} == {folder / "a.clip.mkv"}
    assert sorted((source.segment.start, source.segment.end, source.class_name) for source in found) == [
        (round(1000 * one["start"]), round(1000 * one["end"]), one["class_name"]) for one in document["segments"]
    ]
    with pytest.raises(
        UsageError, match=r"lists segments, such as 0\.000-.* of a\.clip\.mkv, and predict looks at whole"
    ):
        predict._sources(predict.Config([str(folder / "out" / name)], folder))


def test_the_list_of_one_videos_segments_is_not_the_table_of_another(tmp_path):
    sources = [VideoSource(UNLABELLED, name, tmp_path / f"{name}.mp4") for name in ("x", "x.segments", "segments")]
    assert [path.name for path in free_paths(tmp_path, sources)] == ["x", "x.segments-2", "segments"]


def test_the_picture_shows_the_classes_that_win_longest_first():
    many = timeline([7, 7, 3, 7, 90], classes=101)
    assert shown_classes(many)[:3] == [7, 3, 90]
    assert len(shown_classes(many)) == ROWS


@pytest.mark.parametrize("video", [timeline([0, 1]), timeline([5, 90, 100] * 1200, classes=101, frames=36100)])
def test_the_picture_is_a_png_whatever_the_length(video):
    picture = cv2.imdecode(np.frombuffer(draw_timeline(video, "a $b_c^ \x07.mp4", "run x"), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[0] > 200
    assert picture.shape[1] > 900


def test_lengths_are_seconds_or_frames():
    read = [Duration.parse("--window", text).frames(25) for text in ("2", "0.5s", "50f", " 1.5 s", "1f", ".02")]
    assert read == [50, 12, 50, 38, 1, 1]
    assert [str(Duration.parse("--hop", text)) for text in ("2", "50f")] == ["2 s", "50 frames"]


@pytest.mark.parametrize("text", ["", "0", "-1", "2m", "f", "1e3", "nan"])
def test_what_is_no_length_is_refused(text):
    with pytest.raises(predict.UsageError, match="--hop"):
        Duration.parse("--hop", text)


def test_times_are_written_as_long_as_they_have_to_be():
    assert [clock(7, total) for total in (9, 90, 9000)] == ["7", "0:07", "0:00:07"]


@pytest.mark.parametrize(
    ("size", "shown"), [((40, 32), (480, 384)), ((1920, 1080), (1280, 720)), ((641, 479), (642, 480))]
)
def test_overlays_have_even_sides_and_room_for_letters(size, shown):
    width, height = shown_size(*size)
    assert width % 2 == height % 2 == 0
    assert abs(width - shown[0]) <= 2
    assert abs(height - shown[1]) <= 2
