"""What is stored under a video's name was made from that very video: by its source, not by its name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import extract_flow, extract_frames
from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.dataset_file import read_dataset_file
from pipelines.errors import UsageError
from pipelines.jobs.resume import Sources, _size_option
from pipelines.jobs.task import ExtractResult, VideoTask
from pipelines.storage.atomic import locked
from pipelines.storage.failures import read_failures
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Kind, Workspace

WriteClip = Callable[..., np.ndarray]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The sources that were read to be compared."""
    read: list[Path] = []

    of_file = Sources.sha256

    def sha256(files: Sources[VideoTask], task: VideoTask) -> str:
        read.append(task.source.path)
        return of_file(files, task)

    monkeypatch.setattr(Sources, "sha256", sha256)
    return read


def frames(workspace: Workspace, videos: Path, **settings: object) -> ExtractResult:
    return extract_frames.run(extract_frames.Config(workspace.root, str(videos), workers=1, **settings))  # type: ignore[arg-type]


def flow(workspace: Workspace, videos: Path | None, **settings: object) -> ExtractResult:
    named = None if videos is None else str(videos)
    options = {"method": "farneback", "workers": 1, **settings}
    return extract_flow.run(extract_flow.Config(workspace.root, named, **options))  # type: ignore[arg-type]


def source_of(workspace: Workspace) -> str:
    return str(peek(workspace.frames_file("x", "c"), FRAMES_SCHEMA)["source"])


def same_size(path: Path, write_clip: WriteClip, value: int) -> None:
    """An uncompressed clip: of equal bytes whatever it shows."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25, options={})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"  # type: ignore[attr-defined]
        for _ in range(6):
            picture = np.full((48, 64, 3), value, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            container.mux(stream.encode(frame))  # type: ignore[attr-defined]
        container.mux(stream.encode())  # type: ignore[attr-defined]


def with_equal_bytes(folder: Path, write_clip: WriteClip) -> tuple[Path, Path]:
    for name, value in (("a", 30), ("b", 200)):
        same_size(folder / name / "x/c.avi", write_clip, value)
    sizes = {(folder / name / "x/c.avi").stat().st_size for name in "ab"}
    assert len(sizes) == 1
    return folder / "a", folder / "b"


def with_other_bytes(folder: Path, write_clip: WriteClip) -> tuple[Path, Path]:
    for name, count in (("a", 6), ("b", 9)):
        write_clip(folder / name / "x/c.avi", frames=count)
    return folder / "a", folder / "b"


@pytest.mark.parametrize("make", [with_equal_bytes, with_other_bytes], ids=["equal bytes", "other bytes"])
def test_another_video_of_a_stored_name_is_refused_and_what_is_stored_stays(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip, make: Callable[..., tuple[Path, Path]]
) -> None:
    first, second = make(tmp_path, write_clip)
    frames(workspace, first)
    before = workspace.frames_file("x", "c").read_bytes()
    result = frames(workspace, second)
    assert (result.done, result.skipped, result.failed) == (0, 0, 1)
    (row,) = read_failures(workspace)
    assert row.reason.startswith(f"two sources of one name: {first}/x/c.avi and {second}/x/c.avi")
    assert workspace.frames_file("x", "c").read_bytes() == before
    assert frames(workspace, second, dry_run=True).failures[0].reason == row.reason
    assert frames(workspace, first).failed == 0  # the row is of the other one
    assert frames(workspace, second, overwrite=True).done == 1
    assert source_of(workspace) == f"{second}/x/c.avi"


@pytest.mark.parametrize("make", [with_equal_bytes, with_other_bytes], ids=["equal bytes", "other bytes"])
def test_flow_of_another_video_than_the_stored_frames_show_is_refused_and_frames_beside_flow(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip, make: Callable[..., tuple[Path, Path]]
) -> None:
    first, second = make(tmp_path, write_clip)
    frames(workspace, first)
    assert "two sources of one name" in flow(workspace, second).failures[0].reason
    assert not workspace.flow_file("x", "c").exists()
    assert flow(workspace, first).failed == 0
    workspace.frames_file("x", "c").unlink()
    assert "two sources of one name" in frames(workspace, second).failures[0].reason
    assert not workspace.frames_file("x", "c").exists()


def test_frames_and_flow_of_different_videos_do_not_belong_together(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    first, second = with_equal_bytes(tmp_path, write_clip)
    frames(workspace, first)
    flow(workspace, second, overwrite=True)  # or made by stres 0.1
    catalogue = load_catalogue(workspace)
    assert catalogue.videos == []
    assert "different videos" in catalogue.problems[0].reason


def test_a_moved_folder_is_done_and_its_videos_are_read_but_once(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip, reads: list[Path]
) -> None:
    write_clip(tmp_path / "a/x/c.avi")
    frames(workspace, tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "moved")
    for _ in range(2):
        assert ((result := frames(workspace, tmp_path / "moved")).skipped, result.done) == (1, 0)
    assert reads == [tmp_path / "moved/x/c.avi"]
    assert source_of(workspace) == str(tmp_path / "a/x/c.avi")  # provenance: it was made from there


def test_nothing_is_read_where_place_size_and_time_are_the_recorded_ones(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip, reads: list[Path]
) -> None:
    path = tmp_path / "a/x/c.avi"
    write_clip(path)
    frames(workspace, tmp_path / "a")
    recorded = peek(workspace.frames_file("x", "c"), FRAMES_SCHEMA)["source_mtime_ns"]
    assert recorded == path.stat().st_mtime_ns
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert frames(workspace, tmp_path / "a").skipped == frames(workspace, tmp_path / "link").skipped == 1
    assert reads == []
    os.utime(path)
    assert frames(workspace, tmp_path / "a").skipped == 1  # touched, not changed
    assert reads == [path]


def test_a_file_that_changed_in_its_place_is_made_again_and_named(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    path = tmp_path / "a/x/c.avi"
    same_size(path, write_clip, 30)
    frames(workspace, tmp_path / "a")
    flow(workspace, tmp_path / "a")
    same_size(path, write_clip, 200)
    os.utime(path, ns=(1, 1))  # older, as a copy that keeps times
    result = frames(workspace, tmp_path / "a")
    assert (result.done, result.skipped, result.changed) == (1, 0, ["x/c"])
    result = flow(workspace, tmp_path / "a")
    assert (result.done, result.changed) == (1, ["x/c"])
    assert load_catalogue(workspace).problems == []


def test_another_video_is_refused_though_the_stored_one_is_gone_and_overwrite_takes_it(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    first, second = with_other_bytes(tmp_path, write_clip)
    frames(workspace, first)
    (first / "x/c.avi").unlink()
    reason = frames(workspace, second).failures[0].reason
    assert f"{first}/x/c.avi, which is no longer there" in reason
    assert "--overwrite" in reason
    assert source_of(workspace) == f"{first}/x/c.avi"
    assert frames(workspace, second, overwrite=True).done == 1


def test_a_listed_file_that_is_missing_is_not_done_by_another_files_artifact(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    write_clip(tmp_path / "a/x/c.avi")
    frames(workspace, tmp_path / "a")
    (tmp_path / "list.txt").write_text("b/x/c.avi x\n")
    result = frames(workspace, tmp_path / "list.txt")
    assert (result.done, result.skipped, result.failed) == (0, 0, 1)
    assert result.failures[0].reason.startswith(f"there is no {tmp_path / 'b/x/c.avi'}")


def test_artifacts_of_stres_0_1_which_tell_no_time_are_compared_by_place_and_size(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = with_equal_bytes(tmp_path, write_clip)
    frames(workspace, first)
    import h5py

    with h5py.File(workspace.frames_file("x", "c"), "r+") as file:
        del file.attrs["source_mtime_ns"]
    os.utime(first / "x/c.avi")
    assert frames(workspace, first).skipped == 1
    assert reads == []
    assert frames(workspace, second).failed == 1
    assert reads == [second / "x/c.avi"]


@pytest.mark.parametrize("first", ["frames", "flow"])
def test_another_size_than_the_stored_frames_or_flow_is_refused_before_any_work(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip, first: str
) -> None:
    write_clip(tmp_path / "a/x/c.avi")
    one, other = (frames, flow) if first == "frames" else (flow, frames)
    one(workspace, tmp_path / "a", short_side=32)
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"x/c would not fit.* is 42x32, not 64x48; give --short-side 32"):
            other(workspace, tmp_path / "a", dry_run=dry_run)
    assert other(workspace, tmp_path / "a", overwrite=True).misfits == 1
    assert other(workspace, tmp_path / "a", short_side=32, overwrite=True).misfits == 0
    assert load_catalogue(workspace).problems == []


@pytest.mark.parametrize(("first", "second"), [(frames, frames), (flow, flow), (frames, flow)])
def test_videos_are_not_stored_beside_others_of_another_size(
    tmp_path: Path,
    workspace: Workspace,
    write_clip: WriteClip,
    first: Callable[..., object],
    second: Callable[..., object],
) -> None:
    write_clip(tmp_path / "a/x/c.avi", frames=2)
    write_clip(tmp_path / "b/x/d.avi", frames=2)
    first(workspace, tmp_path / "a", short_side=32)
    for dry_run in (True, False):
        with pytest.raises(UsageError, match=r"of \w+/x/c its size is 42x32, not 64x48; give --short-side 32"):
            second(workspace, tmp_path / "b", dry_run=dry_run)
    second(workspace, tmp_path / "b", short_side=32)
    assert [video.width for video in load_catalogue(workspace).videos] == [42, 42]


@pytest.mark.parametrize("kind", ["frames", "flow"])
def test_another_size_than_that_of_a_command_at_work_is_refused(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip, kind: Kind
) -> None:
    """In a new workspace nothing is stored yet that tells the size."""
    write_clip(tmp_path / "a/x/c.avi")
    at_work = workspace.unfinished_file(kind)
    at_work.parent.mkdir()
    at_work.write_text("--short-side 32")
    with locked(at_work, shared=True):
        for store in (frames, flow):
            with pytest.raises(UsageError, match=rf"is storing {kind} in .*-side 32\), .* \(--short-side not given\)"):
                store(workspace, tmp_path / "a")
        assert not list(workspace.root.glob("*/*/*.h5"))
        for store in (frames, flow):
            assert store(workspace, tmp_path / "a", short_side=32).done == 1
    assert at_work.exists()
    assert frames(workspace, tmp_path / "a", overwrite=True).done == 1  # as beside the mark of one that was stopped


def test_flow_of_other_settings_beside_what_is_stored_is_told_at_the_end(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    """As of two commands at once, or where only some of the videos are made again."""
    write_clip(tmp_path / "a/x/c.avi", frames=2)
    write_clip(tmp_path / "b/x/d.avi", frames=2)
    told: list[str] = []
    for folder, bound in (("a", 20.0), ("b", 10.0)):
        config = extract_flow.Config(
            workspace.root, str(tmp_path / folder), method="farneback", workers=1, bound=bound, overwrite=True
        )
        extract_flow.run(config, lambda progress: told.append(progress.message))
    (sentence,) = (text for text in told if "contradict" in text)
    assert "c.h5 has bound 20.0" in sentence
    assert "d.h5 has 10.0" in sentence


def test_the_catalogue_is_read_once_at_the_end(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has 200,000 videos in a large workspace."""
    write_clip(tmp_path / "a/x/c.avi", frames=2)
    read: list[Path] = []

    def noted(path: Path) -> Any:
        read.append(path)
        return read_dataset_file(path)

    monkeypatch.setattr("pipelines.datasets.catalogue.read_dataset_file", noted)
    extract_flow.run(extract_flow.Config(workspace.root, str(tmp_path / "a"), method="farneback", workers=1))
    assert read == [workspace.dataset_file]


def test_the_option_that_gave_a_size_is_named() -> None:
    stored = {"width": 64, "height": 48, "source_width": 64, "source_height": 48}
    assert _size_option(stored) == "leave out --short-side"
    assert _size_option(stored | {"width": 42, "height": 32}) == "give --short-side 32"


def test_all_can_be_made_at_another_size_one_after_the_other(
    tmp_path: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    write_clip(tmp_path / "a/x/c.avi")
    frames(workspace, tmp_path / "a")
    flow(workspace, tmp_path / "a")
    assert frames(workspace, tmp_path / "a", short_side=32, overwrite=True).done == 1
    assert flow(workspace, tmp_path / "a", short_side=32, overwrite=True).done == 1
    assert peek(workspace.flow_file("x", "c"), FLOW_SCHEMA)["width"] == 42
