"""`extract-frames` on real files: what is stored, what is done again, and what becomes of bad videos."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines import __version__, extract_flow
from pipelines.datasets.catalogue import load_catalogue
from pipelines.errors import StorageError, UsageError, VideoError
from pipelines.extract_frames import Config, run
from pipelines.jobs.frames import FrameTask, store_frames
from pipelines.runtime.progress import Progress
from pipelines.sources.videos import VideoSource
from pipelines.storage.failures import Failure, read_failures, record_outcomes
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.frames_file import FRAMES_SCHEMA, FrameFile
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from pipelines.video.synthetic import write_video

WriteClip = Callable[..., np.ndarray]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return tmp_path / "videos"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


def config(workspace: Workspace, videos: Path | str, **settings: object) -> Config:
    return Config(workspace.root, str(videos), workers=2, **settings)  # type: ignore[arg-type]


def test_all_frames_are_stored_with_their_provenance(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    clip = write_clip(videos / "walk/a.avi", frames=6)
    result = run(config(workspace, videos))
    assert (result.done, result.skipped, result.failed, result.units) == (1, 0, 0, 6)
    with FrameFile(workspace.frames_file("walk", "a")) as file:
        assert len(file) == 6
        decoded = np.stack(file.read(range(6)))
        attributes = file.attributes
    assert decoded.shape == clip.shape
    assert np.corrcoef(decoded.ravel(), clip.ravel())[0, 1] > 0.9  # JPEG halves the colours of this coarse noise
    source = videos / "walk/a.avi"
    assert attributes["source"] == str(source)
    assert attributes["source_bytes"] == source.stat().st_size
    expected = {"jpeg_quality": 95, "short_side": 48, "width": 64, "height": 48, "source_frames": 6, "fps": 25.0}
    assert expected.items() <= attributes.items()
    assert attributes["stres_version"] == __version__
    assert {"source_sha256", "content_sha256", "library_versions"} <= set(attributes)
    assert "truncated" not in attributes


def test_the_split_that_the_folders_say_is_stored_and_follows_a_video_that_moves(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    for path in ("train/walk/a.mkv", "train/walk/b.mkv", "val/walk/c.mkv", "val/run/d.mkv"):
        write_clip(videos / path, frames=2)
    result = run(config(workspace, videos))
    assert result.found is not None
    assert (result.found.classes, result.found.splits) == ({"run": 1, "walk": 3}, {"train": 2, "validation": 2})
    stored = {path.stem: peek(path, FRAMES_SCHEMA)["source_split"] for path in workspace.frames.glob("*/*.h5")}
    assert stored == {"a": "train", "b": "train", "c": "validation", "d": "validation"}

    (videos / "train/walk/b.mkv").rename(videos / "val/walk/b.mkv")
    again = run(config(workspace, videos))

    assert (again.done, again.skipped, again.failed) == (1, 3, 0)
    assert peek(workspace.frames_file("walk", "b"), FRAMES_SCHEMA)["source_split"] == "validation"


def test_how_videos_was_read_is_told_before_any_work(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    write_clip(videos / "walk/a.mkv", frames=2)
    (videos / "walk/notes.txt").touch()
    seen: list[Progress] = []
    result = run(config(workspace, videos), seen.append)
    told = [report.message for report in seen[:2]]
    assert told == ["class folders: 1 class, 1 video: walk 1", "skipped: 1 not a video by its name (1 .txt)"]
    assert result.found is not None
    assert result.found.sentences() == told


def test_the_times_at_which_frames_are_shown_are_stored_with_them(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    times = [0.0, 1.0, 2.0, 2.04, 2.08, 2.12]
    write_clip(videos / "walk/a.mkv", times=[3 + time for time in times])
    run(config(workspace, videos))
    with FrameFile(workspace.frames_file("walk", "a")) as file:
        assert file.times == pytest.approx(times)
        assert file.attributes["fps"] == pytest.approx(6 / 2.16)  # frames / duration
        assert file.attributes["times_from"] == "timestamps"
    assert load_catalogue(workspace).videos[0].fps == pytest.approx(6 / 2.16)


def test_frames_without_usable_timestamps_say_so(videos: Path, workspace: Workspace) -> None:
    (videos / "walk").mkdir(parents=True)
    pictures = np.random.default_rng(1).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    write_video(videos / "walk/a.avi", pictures, codec="libx264")  # AVI has decoding times only
    assert run(config(workspace, videos)).broken_times == 1
    assert run(config(workspace, videos)).broken_times == 0  # it is done; this run made nothing
    with FrameFile(workspace.frames_file("walk", "a")) as file:
        assert file.times == pytest.approx(np.arange(12) / 25)
        assert (file.attributes["fps"], file.attributes["times_from"]) == (25.0, "rate")
        assert "go back" in file.attributes["times_problem"]


def test_a_second_run_does_nothing_and_a_third_what_is_missing(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    for name in ("a", "b.c"):
        write_clip(videos / f"walk/{name}.mkv")
    run(config(workspace, videos))
    files = [workspace.frames_file("walk", name) for name in ("a", "b.c")]
    before = [file.stat().st_mtime_ns for file in files]
    assert (result := run(config(workspace, videos))).skipped == 2
    assert (result.done, result.units) == (0, 0)
    files[0].unlink()
    assert ((result := run(config(workspace, videos))).done, result.skipped) == (1, 1)
    assert files[1].stat().st_mtime_ns == before[1]


@pytest.mark.parametrize("name", ["a b", "a#1", "#b", "a&b", "a[1]", "a.b", "größe", "動" * 80, "'q\"", "-x", "%d"])
def test_any_name_a_file_can_have_works(videos: Path, workspace: Workspace, write_clip: WriteClip, name: str) -> None:
    write_clip(videos / f"c l&a#s [1]/{name}.mkv", frames=2)
    result = run(config(workspace, videos))
    assert (result.done, result.failed) == (1, 0)
    assert workspace.frames_file("c l&a#s [1]", name).is_file()
    assert run(config(workspace, videos)).skipped == 1


def test_bad_videos_become_rows_and_the_others_are_done(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    write_clip(videos / "c/good.mkv")
    write_clip(videos / "c/twice.mkv")
    write_clip(videos / "c/twice.avi")
    (videos / "c/empty.avi").touch()
    (videos / "c/text.avi").write_text("hello\n" * 50)
    (videos / "c/playlist.avi").write_text(f"ffconcat version 1.0\nfile '{videos}/c/good.mkv'\n")
    messages: list[str] = []
    result = run(config(workspace, videos), lambda progress: messages.append(progress.message))
    assert (result.done, result.failed) == (1, 4)
    reasons = {row.video: row.reason for row in read_failures(workspace)}
    assert sorted(reasons) == ["empty", "playlist", "text", "twice"]
    assert reasons["empty"] == "the file is empty"
    assert reasons["text"].startswith("not a video")
    assert reasons["playlist"].startswith("not a video")
    assert "twice.avi and " in reasons["twice"]
    assert "c/empty: the file is empty" in messages
    assert result.failures == read_failures(workspace)


def test_rows_vanish_when_their_video_succeeds_or_is_gone(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    write_clip(videos / "c/good.mkv")
    for name in ("mended", "deleted"):
        (videos / f"c/{name}.mkv").touch()
    other = Failure("extract-flow", "c", "good", "", "of another stage")
    record_outcomes(workspace, failed=[other])
    assert run(config(workspace, videos)).failed == 2
    write_clip(videos / "c/mended.mkv")
    (videos / "c/deleted.mkv").unlink()
    assert run(config(workspace, videos)).failed == 0
    assert [row.stage for row in read_failures(workspace)] == ["extract-flow"]


def test_rows_of_other_videos_that_still_fail_keep_counting(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    write_clip(videos / "c/good.mkv")
    (videos / "c/bad.mkv").touch()
    run(config(workspace, videos))
    assert run(config(workspace, videos / "c/good.mkv")).failed == 1


def test_a_listed_file_that_is_missing_is_a_row(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    write_clip(videos / "a.mkv")
    (videos / "list.txt").write_text("a.mkv walk\ngone.mkv run\n")
    result = run(config(workspace, videos / "list.txt"))
    (row,) = result.failures
    assert (row.class_name, row.video, row.path) == ("run", "gone", str(videos / "gone.mkv"))
    assert f"there is no {videos}/gone.mkv (nor " in row.reason
    assert f"line 2 gives 'gone.mkv', relative to {videos}" in row.reason


def test_a_truncated_video_is_a_row_or_is_stored_and_marked_where_allowed(videos: Path, workspace: Workspace) -> None:
    videos.mkdir()
    write_video(videos / "a.avi", np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8))
    content = (videos / "a.avi").read_bytes()
    (videos / "a.avi").write_bytes(content[: len(content) // 2])
    (row,) = run(config(workspace, videos)).failures
    assert row.reason.startswith("truncated: decoded ")
    assert row.reason.endswith(" of 40")
    assert not list(workspace.frames.rglob("*.h5"))
    assert run(config(workspace, videos, allow_truncated=True)).failed == 0
    attributes = peek(workspace.frames_file("unlabelled", "a"), FRAMES_SCHEMA)
    assert attributes["truncated"] is True
    assert attributes["decoded_frames"] == attributes["source_frames"] == int(row.reason.split()[2])
    assert attributes["container_frames"] == 40


def test_a_damaged_video_is_a_row_or_is_stored_and_marked_where_allowed(videos: Path, workspace: Workspace) -> None:
    videos.mkdir()
    write_video(videos / "a.avi", np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8))
    content = bytearray((videos / "a.avi").read_bytes())
    place = content.index(b"\0\0\1\xb6", len(content) // 2) + 40
    content[place : place + 8] = b"\xff" * 8
    (videos / "a.avi").write_bytes(content)
    (row,) = run(config(workspace, videos)).failures
    assert row.reason == "damaged: 1 of 20 frames"
    assert not list(workspace.frames.rglob("*.h5"))
    assert run(config(workspace, videos, allow_damaged=True)).failed == 0
    attributes = peek(workspace.frames_file("unlabelled", "a"), FRAMES_SCHEMA)
    assert (attributes["damaged"], attributes["damaged_frames"], attributes["source_frames"]) == (True, 1, 20)
    flow_of = functools.partial(extract_flow.Config, workspace.root, method="farneback", workers=1)
    (row,) = extract_flow.run(flow_of(str(videos))).failures
    assert row.reason == "damaged: 1 of 20 frames"
    assert extract_flow.run(flow_of(str(videos), allow_damaged=True)).failed == 0
    from_video = peek(workspace.flow_file("unlabelled", "a"), FLOW_SCHEMA)
    assert extract_flow.run(flow_of(overwrite=True)).failed == 0  # of the stored frames
    for attributes in (from_video, peek(workspace.flow_file("unlabelled", "a"), FLOW_SCHEMA)):
        assert (attributes["damaged"], attributes["damaged_frames"]) == (True, 1)


def test_another_size_is_refused_before_any_work(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    write_clip(videos / "c/a.mkv")
    run(config(workspace, videos))
    write_clip(videos / "c/b.mkv")
    with pytest.raises(UsageError) as error:
        run(config(workspace, videos, short_side=32))
    for part in (str(workspace.frames_file("c", "a")), "64x48, not 42x32", "--overwrite", "--workspace"):
        assert part in str(error.value)
    assert not workspace.frames_file("c", "b").exists()
    assert run(config(workspace, videos, short_side=48)).done == 1  # the same size, now asked for
    assert run(config(workspace, videos, short_side=32, overwrite=True)).done == 2
    assert peek(workspace.frames_file("c", "a"), FRAMES_SCHEMA)["short_side"] == 32


def test_damaged_files_and_changed_sources_are_made_again(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    for name in ("a", "b", "c"):
        write_clip(videos / f"c/{name}.mkv")
    run(config(workspace, videos))
    workspace.frames_file("c", "a").write_bytes(b"damaged")
    write_clip(videos / "c/b.mkv", frames=9)
    assert ((result := run(config(workspace, videos))).done, result.skipped) == (2, 1)
    assert peek(workspace.frames_file("c", "b"), FRAMES_SCHEMA)["source_frames"] == 9


def test_left_over_temporary_files_of_dead_processes_go(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    write_clip(videos / "c/a.mkv")
    run(config(workspace, videos))
    host = next(iter(os.uname().nodename.split()))
    left_over = workspace.frames / "c" / f".a.h5.tmp-{host.replace('-', '_')}-999999999-00000000"
    left_over.touch()
    run(config(workspace, videos))
    assert not left_over.exists()


def test_an_interruption_leaves_nothing_half_made(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    write_clip(videos / "c/a.mkv", frames=400, width=32)

    def interrupt(progress: Progress) -> None:
        if progress.metrics.get("frames/s"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config(workspace, videos), interrupt)
    assert [path for path in workspace.frames.rglob("*") if path.is_file()] == []
    assert run(config(workspace, videos)).units == 400


def test_a_full_disk_ends_the_command(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    for name in ("a", "b", "c"):
        write_clip(videos / f"c/{name}.mkv", frames=60)
    code = (
        "import resource, sys; from pathlib import Path; from pipelines.extract_frames import Config, run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "run(Config(Path(sys.argv[1]), sys.argv[2], workers=1))"
    )
    command = [sys.executable, "-c", code, str(workspace.root), str(videos)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "pipelines.errors.StorageError: cannot write" in done.stderr
    assert read_failures(workspace) == []
    assert [path for path in workspace.frames.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("in_place", [True, False], ids=["written over", "replaced"])
def test_a_source_that_changes_while_it_is_read_is_a_row(
    videos: Path, workspace: Workspace, write_clip: WriteClip, in_place: bool
) -> None:
    """Else frames of the old file would carry the hash of the new one, and pass for done ever after."""
    path = videos / "a" / "clip.mkv"
    write_clip(path, frames=40)
    write_clip(videos / "other.mkv", frames=20)
    target = workspace.frames_file("a", "clip")

    def change(units: int) -> None:
        other = videos / "other.mkv"
        if in_place and other.exists():
            path.write_bytes(other.read_bytes())
        elif other.exists():
            other.rename(path)

    with pytest.raises(VideoError, match="the file changed while it was read"):
        store_frames(FrameTask(VideoSource("a", "clip", path), target, None, allow_truncated=True), change)
    assert not target.exists()


def test_a_dry_run_estimates_and_writes_nothing(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    for number in range(4):
        write_clip(videos / f"c/{number}.avi", frames=8)
    (videos / "c/bad.avi").touch()
    result = run(config(workspace, videos, dry_run=True))
    cost = result.estimate
    assert cost is not None
    assert (cost.videos, cost.frames) == (5, 40)  # the unreadable one counts as an average one
    assert [(row.video, row.reason) for row in cost.failures] == [("bad", "the file is empty")]
    assert result.failed == 1
    assert cost.measured_videos >= 2
    assert 0 < cost.hours < 1
    assert not workspace.root.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: False)  # the superuser may write everywhere
        with pytest.raises(StorageError, match="permission denied: choose another --workspace"):
            run(config(workspace, videos, dry_run=True))
    run(config(workspace, videos))
    stored = sum(path.stat().st_size for path in workspace.frames.rglob("*.h5")) / 4 * 5 / 1e9
    assert cost.gigabytes < stored < 60 * cost.gigabytes  # HDF5's own share is large in tiny files


def test_a_dry_run_names_segments_behind_the_end(tmp_path: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    write_clip(tmp_path / "film.mkv", frames=50)  # 2 s
    (tmp_path / "list.csv").write_text("path,start,end,label\nfilm.mkv,0,1,a\nfilm.mkv,3,4,a\n")
    result = run(config(workspace, tmp_path / "list.csv", dry_run=True))
    assert [row.video for row in result.failures] == ["film_3.000-4.000"]
    assert "starts behind the end of the video" in result.failures[0].reason


@pytest.mark.parametrize(("settings", "flag"), [({"short_side": 3}, "--short-side"), ({"workers": -1}, "--workers")])
def test_settings_out_of_range_name_their_flag(tmp_path: Path, settings: dict[str, int], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        Config(tmp_path, "videos", **settings)  # type: ignore[arg-type]
