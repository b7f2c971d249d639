"""`show-flow`: what is seen is what is stored, for one frame or all, and what becomes of bad requests."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import extract_flow, extract_frames
from pipelines.drawing.flow_picture import FlowPicture
from pipelines.drawing.flow_source import FlowHistogram
from pipelines.drawing.text import shortened, text_width
from pipelines.errors import MissingError, UsageError, VideoError
from pipelines.runtime.progress import Progress
from pipelines.show_flow import Config, Result, run
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.workspace import Workspace
from pipelines.video.isolation import Decoder, IsolatedReader
from pipelines.video.synthetic import write_video
from stres_cli.app import app
from tests.helpers import worker_functions

WriteClip = Callable[..., np.ndarray]
FRAMES, HEIGHT, WIDTH, ENLARGED = 6, 48, 64, 5
# The panels of such a clip: its left and top, as large as the enlarged clip.
FRAME, FLOW, X, Y = (16, 88), (352, 88), (16, 400), (352, 400)


@pytest.fixture
def clip(tmp_path: Path, write_clip: WriteClip) -> np.ndarray:
    """Six frames of 48x64 that move by a pixel, in `videos/walk/a.mkv`."""
    return write_clip(tmp_path / "videos/walk/a.mkv", FRAMES, HEIGHT, WIDTH)


@pytest.fixture
def show(tmp_path: Path) -> Callable[..., Result]:
    def call(video: str | Path = "videos/walk/a.mkv", **settings: Any) -> Result:
        path = tmp_path / video
        name = str(path) if path.exists() else str(video)
        if path.exists():
            settings = {"method": "farneback", **settings}
        return run(Config(tmp_path / "work", name, **settings))

    return call


@pytest.fixture
def stored(tmp_path: Path, clip: np.ndarray) -> Workspace:
    """The flow of the clip, stored."""
    settings = extract_flow.Config(tmp_path / "work", str(tmp_path / "videos"), method="farneback", workers=1)
    assert extract_flow.run(settings).done == 1
    return Workspace(tmp_path / "work")


def picture(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def panel(canvas: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """A panel at its own size; every pixel must have been enlarged to a block of one colour."""
    left, top = place
    large = canvas[top : top + HEIGHT * ENLARGED, left : left + WIDTH * ENLARGED]
    small = large[::ENLARGED, ::ENLARGED]
    assert np.array_equal(small.repeat(ENLARGED, 0).repeat(ENLARGED, 1), large)
    return small


# ------------------------------------------------------------------ one frame


def test_the_middle_frame_is_shown_beside_its_flow(
    clip: np.ndarray, show: Callable[..., Result], stored: Workspace, tmp_path: Path
) -> None:
    result = show()
    assert result.output == tmp_path / "work/pictures/a-farneback-frame2.png"
    assert (result.frame, result.pictures) == (2, 1)
    canvas = picture(result.output)
    assert canvas.shape == (result.height, result.width, 3)
    assert np.array_equal(panel(canvas, FRAME), clip[2])
    with FlowFile(stored.flow_file("walk", "a")) as file:
        field = file.read(2, 3)[0]
    for place, plane in ((X, field[0]), (Y, field[1])):
        assert np.array_equal(panel(canvas, place), plane[..., None].repeat(3, -1))


@pytest.mark.parametrize("index", [0, 4])
def test_the_first_and_the_last_field_can_be_shown(clip: np.ndarray, show: Callable[..., Result], index: int) -> None:
    assert np.array_equal(panel(picture(show(frame=index).output), FRAME), clip[index])


def test_step_and_size_are_those_of_extract_flow(clip: np.ndarray, show: Callable[..., Result]) -> None:
    result = show(step=3, short_side=256, bound=5.0)
    assert (result.frame, result.step, result.bound) == (1, 3, 5.0)
    assert result.width > 3 * 340
    with pytest.raises(UsageError, match=r"--frame 3: the flow of .*a.mkv goes from frame 0 to frame 2"):
        show(step=3, frame=3)


@pytest.mark.parametrize("frame", [1, "all"])
def test_pictures_of_two_files_of_one_name_lie_beside_each_other(
    clip: np.ndarray, show: Callable[..., Result], tmp_path: Path, frame: int | str
) -> None:
    (tmp_path / "other").mkdir()
    other = shutil.copy(tmp_path / "videos" / "walk" / "a.mkv", tmp_path / "other" / "a.mkv")
    first, second = show(frame=frame), show(str(other), frame=frame)
    end = ".mp4" if frame == "all" else "-frame1.png"
    assert (first.output.name, second.output.name) == (f"a-farneback{end}", f"a-2-farneback{end}")
    assert [show(frame=frame).output, show(str(other), frame=frame).output] == [first.output, second.output]


def test_a_stored_id_shows_what_computing_it_shows(
    clip: np.ndarray, show: Callable[..., Result], stored: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = picture(show().output)
    monkeypatch.setattr("pipelines.optical_flow.methods.METHODS", ())  # nothing can be computed any more
    result = show("walk/a")
    assert result.output == stored.root / "pictures/walk/a-farneback-frame2.png"
    shown = picture(result.output)
    assert np.array_equal(shown[64:, FLOW[0] - 8 :], computed[64:, FLOW[0] - 8 :])
    assert np.array_equal(shown[X[1] - 20 :], computed[X[1] - 20 :])
    assert len(np.unique(panel(shown, FRAME).reshape(-1, 3), axis=0)) == 1  # no frames are stored


def test_stored_frames_are_shown_with_stored_flow(show: Callable[..., Result], stored: Workspace) -> None:
    extract_frames.run(extract_frames.Config(stored.root, str(stored.root.parent / "videos"), workers=1))
    canvas = picture(show("walk/a", frame=1).output)
    with FrameFile(stored.frames_file("walk", "a")) as frames:
        assert np.array_equal(panel(canvas, FRAME), frames.read_one(1))


def test_frames_of_another_size_than_their_flow_are_refused(show: Callable[..., Result], stored: Workspace) -> None:
    extract_frames.run(
        extract_frames.Config(stored.root, str(stored.root.parent / "videos"), 32, workers=1, overwrite=True)
    )
    with pytest.raises(MissingError, match="has 42x32 pixels, its flow 64x48: extract one of them again"):
        show("walk/a")


def test_a_container_that_announces_too_many_frames_has_its_middle_where_it_is(
    tmp_path: Path, show: Callable[..., Result]
) -> None:
    path = cut_video(tmp_path, share=0.3)
    with av.open(str(path)) as container:
        decoded = sum(1 for _ in container.decode(video=0))
    assert 2 < decoded < 19
    assert show(path).frame == (decoded - 1) // 2


# ------------------------------------------------------------------ all frames


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_video_has_a_picture_for_every_field(
    clip: np.ndarray, show: Callable[..., Result], tmp_path: Path, suffix: str
) -> None:
    result = show(output=tmp_path / f"flow{suffix}")
    with av.open(str(result.output)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(pictures) == result.pictures == FRAMES - 1
    assert {shown.shape for shown in pictures} == {(result.height, result.width, 3)}
    for shown, frame in zip(pictures, clip, strict=False):
        left, top = FRAME
        seen = shown[top + 2 : top + HEIGHT * ENLARGED : ENLARGED, left + 2 : left + WIDTH * ENLARGED : ENLARGED]
        assert np.abs(seen.astype(int) - frame).mean() < 12  # chroma is stored at half the size


def test_a_video_of_stored_flow_is_that_of_computed_flow(
    clip: np.ndarray, show: Callable[..., Result], stored: Workspace
) -> None:
    computed, shown = show(frame="all"), show("walk/a", frame="all")
    assert computed.output == stored.root / "pictures/a-farneback.mp4"
    assert shown.output == stored.root / "pictures/walk/a-farneback.mp4"
    same = ("pictures", "width", "height", "max_flow", "largest", "at_bound", "bound", "step", "method")
    assert [getattr(shown, name) for name in same] == [getattr(computed, name) for name in same]
    assert shown.pictures == FRAMES - 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pictures_of_a_variable_rate_are_shown_when_their_frames_are(
    tmp_path: Path, write_clip: WriteClip, show: Callable[..., Result], suffix: str
) -> None:
    times = [0.0, 1.0, 2.0, 2.04, 2.08, 2.12]
    write_clip(tmp_path / "videos/walk/a.mkv", times=times)
    settings = extract_flow.Config(tmp_path / "work", str(tmp_path / "videos"), method="farneback", workers=1)
    assert extract_flow.run(settings).done == 1
    for name, video in (("computed", "videos/walk/a.mkv"), ("stored", "walk/a")):
        output = tmp_path / f"{name}{suffix}"
        assert show(video, frame="all", output=output).pictures == FRAMES - 1
        with av.open(str(output)) as container:
            assert container.duration / av.time_base == pytest.approx(2.12, abs=1e-3)
            assert [frame.time for frame in container.decode(video=0)] == pytest.approx(times[:-1], abs=1e-3)


def test_a_truncated_video_is_shown_as_far_as_it_decodes(tmp_path: Path) -> None:
    said: list[Progress] = []
    config = Config(tmp_path / "work", str(cut_video(tmp_path)), method="farneback", frame="all")
    result = run(config, said.append)
    assert 10 < result.pictures < 39
    assert any("truncated" in progress.message and "of 40 frames" in progress.message for progress in said)


def cut_video(folder: Path, share: float = 0.6) -> Path:
    path = folder / "cut.avi"
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    write_video(path, np.stack([np.roll(noise, t, axis=1) for t in range(40)]))
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    return path


# ------------------------------------------------------------------ how much moves


def test_quantiles_are_those_of_all_vectors() -> None:
    fields = np.random.default_rng(0).normal(128, 20, (3, 2, 30, 40)).clip(0, 255).astype(np.uint8)
    motion = FlowHistogram(bound=20.0)
    for field in fields:
        motion.add(field)
    pixels = np.where(fields == 128, 0, fields * (40 / 255) - 20)
    lengths = np.hypot(pixels[:, 0], pixels[:, 1])
    for share in (0.5, 0.99, 1.0):
        expected = np.quantile(lengths, share, method="inverted_cdf")
        assert motion.quantile(share) == pytest.approx(expected, abs=1e-5)
    assert motion.at_bound() == pytest.approx(((fields == 0) | (fields == 255)).any(axis=1).mean())
    assert motion.scale() == pytest.approx(np.ceil(10 * motion.quantile(0.99)) / 10)


def test_where_nothing_moves_the_scale_is_one_stored_step() -> None:
    motion = FlowHistogram(bound=20.0)
    motion.add(np.full((2, 4, 4), 128, np.uint8))
    assert (motion.scale(), motion.quantile(1.0), motion.at_bound()) == (0.16, 0, 0)


def test_max_flow_settles_the_scale(clip: np.ndarray, show: Callable[..., Result]) -> None:
    weak, strong = (panel(picture(show(max_flow=scale).output), FLOW) for scale in (15.0, 1.0))
    assert weak.min(axis=-1).mean() > strong.min(axis=-1).mean() + 50


@pytest.mark.parametrize(("width", "height"), [(64, 48), (340, 256), (454, 256), (256, 454), (400, 40), (1280, 720)])
def test_pictures_of_any_size_hold_all_panels_and_are_even(width: int, height: int) -> None:
    layout = FlowPicture(width, height, 20.0, 3.0, "name " * 60 + "日本", "method")
    canvas = layout.draw(None, np.full((2, height, width), 128, np.uint8), 7)
    assert canvas.shape[1::-1] == layout.size
    assert all(side % 2 == 0 for side in layout.size)
    edge = np.concatenate([canvas[:4].reshape(-1), canvas[-4:].reshape(-1), canvas[:, -4:].reshape(-1)])
    assert (edge == 255).all()  # nothing reaches the edge, so nothing is cut


def test_text_is_shortened_in_its_middle_only_as_far_as_needed() -> None:
    text = "v_ApplyEyeMakeup_g01_c01.avi"
    whole = text_width(text, 13)
    assert shortened(text, whole, 13) == text
    for width in (60, 100, whole - 1):
        short = shortened(text, width, 13)
        start, end = short.split("…")
        assert text.startswith(start)
        assert text.endswith(end)
        one_more = f"{text[: len(start) + 1]}…{end}"
        assert text_width(short, 13) <= width < text_width(one_more, 13) + 13


# ------------------------------------------------------------------ wrong requests


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_flow": 0.0}, "--max-flow 0.0: give a number above 0"),
        ({"frame": -1}, "--frame -1: give an integer of at least 0, or all"),
        ({"frame": 5}, "--frame 5: the flow of .* goes from frame 0 to frame 4"),
        ({"output": Path("a.jpg")}, "--output must end in .png, .mp4 or .mkv or .avi, not 'a.jpg'"),
        ({"output": Path("a.png"), "frame": "all"}, "--frame all does not go with --output 'a.png'"),
        ({"output": Path("a.mp4"), "frame": 1}, "--frame 1 does not go with --output 'a.mp4'"),
        ({"method": "magic"}, "--method 'magic' is not known: give one of"),
        ({"bound": -1.0}, "--bound -1.0: give a number above 0"),
    ],
)
def test_wrong_settings_name_their_flag(
    clip: np.ndarray, show: Callable[..., Result], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        show(**settings)


def test_the_video_is_never_overwritten(clip: np.ndarray, show: Callable[..., Result], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the video itself"):
        show(output=tmp_path / "videos/walk/../walk/a.mkv")


@pytest.mark.parametrize(("setting", "value"), [("method", "dis"), ("bound", 5.0), ("step", 2), ("short_side", 64)])
def test_settings_do_not_go_with_stored_flow(
    show: Callable[..., Result], stored: Workspace, setting: str, value: object
) -> None:
    with pytest.raises(UsageError, match=f"--{setting.replace('_', '-')} does not go with walk/a"):
        show("walk/a", **{setting: value})


@pytest.mark.parametrize("video", ["nowhere.avi", "walk/b", "../work/x", "a/b/c"])
def test_what_is_neither_a_file_nor_stored_is_missing(show: Callable[..., Result], video: str) -> None:
    with pytest.raises(MissingError, match="VIDEO is a video file, or CLASS/VIDEO of flow stored in the workspace"):
        show(video)


@pytest.mark.parametrize("frame", [None, 0, "all"])
def test_a_video_too_short_or_damaged_is_named_with_the_reason(
    tmp_path: Path, write_clip: WriteClip, show: Callable[..., Result], frame: object
) -> None:
    write_clip(tmp_path / "one.mkv", frames=1)
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(VideoError, match=r"one.mkv cannot be shown: has 1 frame; flow.* needs at least 2"):
        show("one.mkv", frame=frame)
    with pytest.raises(VideoError, match=r"text.avi cannot be shown: not a video"):
        show("text.avi", frame=frame)
    assert not (tmp_path / "work").exists()


def test_a_codec_that_crashes_on_one_frame_or_all_is_named_with_its_video_and_the_exit_code_is_1(
    clip: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Decoder.open

    def open_and_die(self: Decoder, *given: Any, **options: Any) -> IsolatedReader:
        reader = opened(self, *given, **options)
        os.kill(reader._process._process.pid, signal.SIGSEGV)
        return reader

    video = shutil.copy(tmp_path / "videos/walk/a.mkv", tmp_path / "deadly.mkv")
    command = ("show-flow", video, "-w", tmp_path / "work", "--method", "farneback")
    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "open", open_and_die)
        shown = stres(*command)
    assert shown.exit_code == 1
    assert "deadly.mkv cannot be shown: the decoder died (killed by signal 11) on this video" in shown.stderr

    monkeypatch.setattr("pipelines.drawing.flow_source.store_flow", worker_functions.die)
    shown = stres(*command, "--all")
    assert shown.exit_code == 1
    assert "deadly.mkv cannot be shown: the worker process died (killed by signal 11) on this video" in shown.stderr


# ------------------------------------------------------------------ the command


def stres(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="stres")


def test_the_command_says_where_the_picture_lies(clip: np.ndarray, tmp_path: Path) -> None:
    call = ("show-flow", tmp_path / "videos/walk/a.mkv", "-w", tmp_path / "work", "--method", "farneback")
    done = stres(*call, "--method-option", "winsize=9", "--frame", 1)
    assert done.exit_code == 0
    written = tmp_path / "work/pictures/a-farneback-frame1.png"
    then = "stres extract-flow VIDEOS --method farneback --method-option winsize=9 --workspace"
    assert done.stdout.splitlines()[-1] == f"written: {written}; next: {then} {tmp_path / 'work'}"
    assert "frame 1 by farneback (winsize=9): colours full at" in done.stdout

    document = json.loads(stres(*call, "--all", "--json").stdout)
    assert (document["pictures"], document["frame"]) == (FRAMES - 1, None)
    assert Path(document["output"]).is_file()


def test_the_command_ends_with_the_code_of_what_went_wrong(clip: np.ndarray, tmp_path: Path) -> None:
    video = tmp_path / "videos/walk/a.mkv"
    (tmp_path / "text.avi").write_text("no video")
    codes = {
        1: [tmp_path / "text.avi"],
        2: [video, "--frame", "soon"],
        3: [tmp_path / "nowhere.avi"],
    }
    for code, arguments in codes.items():
        done = stres("show-flow", *arguments, "-w", tmp_path / "work", "--method", "farneback")
        assert (done.exit_code, done.stdout) == (code, "")
        assert done.stderr.startswith("error: ")
    both = stres("show-flow", video, "--all", "--frame", 1, "--json")
    assert (both.exit_code, json.loads(both.stdout)["exit_code"]) == (2, 2)
