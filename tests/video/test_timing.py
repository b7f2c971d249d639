"""Each frame has the time at which a player shows it; timestamps that cannot be true give way to the average rate."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from pipelines.video.decoding import VideoReader
from pipelines.video.encoding import encode
from pipelines.video.synthetic import write_video
from pipelines.video.timing import FrameClock, Timing

SLOW_THEN_FAST = [0.0, 0.5, 1.0, 1.5, *(2 + np.arange(25) / 25).round(3).tolist()]
"""2 frames a second, then 25: 29 frames in 3 seconds."""


def pictures(frames: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (frames, 48, 64, 3), dtype=np.uint8)


def timing_of(path: Path) -> Timing:
    with VideoReader(path) as reader:
        for _ in reader:
            pass
        return reader.timing


def clock(
    stamps: Sequence[float | None], *, fps: float = 25.0, tick: float = 0.001, may_restart: bool = False
) -> Timing:
    """Of frames with these timestamps in a container that says so."""
    stream = SimpleNamespace(average_rate=fps, guessed_rate=fps, time_base=tick)
    flags = 0x0200 if may_restart else 0  # AVFMT_TS_DISCONT
    made = FrameClock(SimpleNamespace(format=SimpleNamespace(flags=flags)), stream)  # type: ignore[arg-type]
    for stamp in stamps:
        made.add(SimpleNamespace(time=stamp, duration=0, time_base=None))  # type: ignore[arg-type]
    return made.timing()


# ------------------------------------------------------------------ timestamps


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mkv", "ffv1", "bgr0"), ("a.mkv", "libx264", "yuv420p"), ("a.mp4", "libx264", "yuv420p")],
)
def test_frames_of_a_variable_rate_have_the_times_of_their_timestamps(
    tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    write_video(tmp_path / name, pictures(29), codec=codec, pixels=pixels, times=SLOW_THEN_FAST)
    found = timing_of(tmp_path / name)
    assert found.times.tolist() == pytest.approx(SLOW_THEN_FAST)
    with av.open(str(tmp_path / name)) as container:
        assert found.times.tolist() == pytest.approx([frame.time for frame in container.decode(video=0)])
    assert (found.origin, found.problem) == ("timestamps", "")
    assert found.fps == pytest.approx(29 / 3)  # frames / duration, whatever rate the container names
    assert found.duration == pytest.approx(3.0)


@pytest.mark.parametrize("first", [1.5, 100.0])
@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])  # MP4 says so by an edit list
def test_times_count_from_the_first_frame_wherever_the_film_starts(tmp_path: Path, name: str, first: float) -> None:
    write_video(tmp_path / name, pictures(29), codec="libx264", times=[first + time for time in SLOW_THEN_FAST])
    found = timing_of(tmp_path / name)
    assert found.times.tolist() == pytest.approx(SLOW_THEN_FAST)
    assert found.duration == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mkv", "ffv1", "bgr0"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "mpeg4", "yuv420p"),
    ],
)
def test_a_constant_rate_is_the_one_that_the_container_names(
    tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    write_video(tmp_path / name, pictures(30), codec=codec, pixels=pixels)
    found = timing_of(tmp_path / name)
    assert (found.fps, found.origin) == (25.0, "timestamps")
    assert found.times == pytest.approx(np.arange(30) / 25)
    assert found.duration == 1.2


def test_milliseconds_of_a_container_do_not_make_a_rate_variable() -> None:
    found = clock([round(index / 29.97, 3) for index in range(3000)], fps=29.97)
    assert (found.fps, found.origin) == (29.97, "timestamps")


def test_a_rate_that_the_timestamps_contradict_is_frames_over_duration() -> None:
    assert clock([index / 10 for index in range(20)], fps=1000.0).fps == pytest.approx(10)


# ------------------------------------------------------------------ timestamps that cannot be true


@pytest.mark.parametrize(
    ("stamps", "problem"),
    [
        ([None] * 5, "its frames have no timestamps"),
        ([None, 0.0, 0.04, 0.08, 0.12], "1 of its 5 frames has no timestamp"),
        ([0.0] * 5, "its timestamps stand still"),
        ([0.04, 0.16, 0.12, 0.2, 0.08], "its timestamps go back at frame 2"),
        ([-0.04, -0.08, 0.0, 0.04, 0.08], "its timestamps go back at frame 1"),
        ([0.0, 0.04, 1e9, 1e9 + 0.04, 1e9 + 0.08], "its timestamps leap over more than 30 hours at frame 2"),
    ],
)
def test_times_follow_the_average_rate_where_timestamps_cannot_be_true(
    stamps: list[float | None], problem: str
) -> None:
    found = clock(stamps)
    assert found.times == pytest.approx(np.arange(5) / 25)
    assert (found.fps, found.origin, found.problem) == (25.0, "rate", problem)


def test_times_are_of_25_frames_a_second_where_nothing_tells_a_rate() -> None:
    found = clock([None] * 5, fps=0.0)
    assert (found.times[-1], found.fps, found.origin) == (4 / 25, 25.0, "assumed")


def test_an_avi_whose_frames_are_reordered_has_the_times_of_its_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", pictures(30), codec="libx264")  # AVI has decoding times only
    found = timing_of(tmp_path / "a.avi")
    assert found.origin == "rate"
    assert "go back" in found.problem
    assert found.times == pytest.approx(np.arange(30) / 25)


def test_a_missing_timestamp_lies_between_its_neighbours() -> None:
    assert clock([0.0, None, 1.0, 1.5]).times.tolist() == [0.0, 0.5, 1.0, 1.5]


def test_negative_timestamps_are_as_good_as_any() -> None:
    assert clock([-0.5, 0.0, 1.0]).times.tolist() == [0.0, 0.5, 1.5]


@pytest.mark.parametrize("second", [1.4, 95443.0])
def test_a_clock_that_starts_anew_runs_on_where_the_container_allows_it(second: float) -> None:
    joined = [*(5 + np.arange(10) / 25), *(second + np.arange(10) / 25)]
    assert clock(joined, may_restart=True).times == pytest.approx(np.arange(20) / 25)


def test_a_transport_stream_joined_of_two_runs_on(tmp_path: Path) -> None:
    parts = []
    for number in range(2):
        path = tmp_path / f"{number}.ts"
        with av.open(str(path), "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for picture in pictures(10):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        parts.append(path.read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    found = timing_of(tmp_path / "a.ts")
    assert len(found.times) == 20
    assert found.times == pytest.approx(np.arange(20) / 25)


def test_a_bare_stream_of_pictures_has_the_times_of_its_rate(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.m1v"), "w", format="mpeg1video") as container:
        stream = container.add_stream("mpeg1video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in pictures(29):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    found = timing_of(tmp_path / "a.m1v")
    assert (found.fps, found.origin, found.problem) == (25.0, "rate", "its container has no timestamps")
    assert found.times == pytest.approx(np.arange(29) / 25)


def test_one_frame_lasts_as_long_as_the_rate_says() -> None:
    found = clock([3.0])
    assert (found.times.tolist(), found.duration) == ([0.0], 0.04)


# ------------------------------------------------------------------ written again


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("times", [SLOW_THEN_FAST, [0.0, 0.0, 0.1, 5.0], [0.0, 1.0], [0.0]])
def test_what_is_encoded_is_shown_at_the_same_times(tmp_path: Path, name: str, times: list[float]) -> None:
    duration = times[-1] + 3
    shown = Timing(np.array(times), len(times) / duration, "timestamps")
    assert encode(tmp_path / name, iter(pictures(len(times))), shown) == len(times)
    found = timing_of(tmp_path / name)
    assert found.times == pytest.approx(times, abs=1e-3)  # two at one time are a tick apart
    assert found.duration == pytest.approx(duration, abs=1e-3)


def test_an_avi_repeats_its_pictures_until_the_next_is_due(tmp_path: Path) -> None:
    given = pictures(29)
    assert encode(tmp_path / "a.avi", iter(given), Timing(np.array(SLOW_THEN_FAST), 29 / 3, "timestamps")) == 29
    with VideoReader(tmp_path / "a.avi") as reader:
        frames = np.stack(list(reader)).astype(int)
    assert (len(frames), reader.timing.fps) == (75, 25)
    for second in (0.0, 0.44, 0.52, 1.88, 2.0, 2.04, 2.96):
        shown = int(np.searchsorted(SLOW_THEN_FAST, second + 1e-6)) - 1
        errors = np.abs(frames[round(second * 25)] - given).mean(axis=(1, 2, 3))
        assert errors.argmin() == shown
