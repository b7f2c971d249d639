"""`extract-flow` on real files: every pair, the settings in the file, and what becomes of bad videos."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from pipelines import extract_frames
from pipelines.datasets.catalogue import load_catalogue
from pipelines.errors import MissingError, UsageError, VideoError
from pipelines.extract_flow import STAGE, Config, run
from pipelines.optical_flow import store as extraction
from pipelines.optical_flow.store import quantised_flow
from pipelines.runtime.growth import Growth
from pipelines.storage.failures import read_failures
from pipelines.storage.flow_file import FLOW_SCHEMA, FlowFile
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.hdf5 import peek
from pipelines.storage.quantise import quantise
from pipelines.storage.workspace import Workspace
from tests.helpers import worker_functions

WriteClip = Callable[..., np.ndarray]
DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return tmp_path / "videos"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


def config(workspace: Workspace, videos: Path | None, **settings: object) -> Config:
    named = None if videos is None else str(videos)
    return Config(workspace.root, named, **{"method": "farneback", "workers": 2, **settings})  # type: ignore[arg-type]


def expected_flow(clip: np.ndarray, step: int = 1, bound: float = 20.0) -> np.ndarray:
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
    fields = [
        cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        for before, after in zip(grey, grey[step:], strict=False)
    ]
    return quantise(np.stack(fields).transpose(0, 3, 1, 2), bound)


def stored(workspace: Workspace, class_name: str, video: str) -> np.ndarray:
    with FlowFile(workspace.flow_file(class_name, video)) as file:
        return file.read(0, len(file))


@pytest.mark.parametrize("frames", [2, 16, 17, 18, 33])
def test_every_pair_has_its_field_the_first_and_the_last_included(
    videos: Path, workspace: Workspace, write_clip: WriteClip, frames: int
) -> None:
    clip = write_clip(videos / "walk/a.mkv", frames=frames)
    result = run(config(workspace, videos))
    assert (result.done, result.units) == (1, frames - 1)
    assert np.array_equal(stored(workspace, "walk", "a"), expected_flow(clip))


@pytest.mark.parametrize("step", [2, 5])
def test_a_step_of_k_gives_t_minus_k_fields(
    videos: Path, workspace: Workspace, write_clip: WriteClip, step: int
) -> None:
    clip = write_clip(videos / "walk/a.mkv", frames=6)
    run(config(workspace, videos, step=step, bound=30))
    assert np.array_equal(stored(workspace, "walk", "a"), expected_flow(clip, step, 30))
    assert peek(workspace.flow_file("walk", "a"), FLOW_SCHEMA)["step"] == step


def test_runs_hold_every_pair_in_order() -> None:
    frames = [np.array(t) for t in range(11)]
    for step in (1, 3, 10, 11, 20):
        for size in (1, 4, 10, 100):
            runs = list(extraction.runs_of_frames(frames, step, size))
            pairs = [(int(a), int(b)) for run in runs for a, b in zip(run, run[step:], strict=False)]
            assert pairs == [(t, t + step) for t in range(11 - step)]
            assert all(len(run) == step + size for run in runs[:-1])


def test_the_file_says_how_it_was_made(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    write_clip(videos / "walk/a.mkv")
    run(config(workspace, videos, method="tvl1", method_options={"warps": "1", "nscales": "1"}, bound=5))
    attributes = peek(workspace.flow_file("walk", "a"), FLOW_SCHEMA)
    expected = {"method": "tvl1", "bound": 5.0, "step": 1, "flow_input": "video", "source_frames": 6, "short_side": 48}
    assert expected.items() <= attributes.items()
    assert attributes["engine"] == "numba"  # what `auto` was settled to
    parameters = json.loads(attributes["method_parameters"])
    assert (parameters["warps"], parameters["lambda"]) == (1, 0.15)
    assert {"fps", "source", "source_sha256", "source_bytes", "content_sha256", "stres_version"} <= set(attributes)


def test_flow_knows_when_the_frames_are_shown(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    times = [0.0, 1.0, 2.0, 2.04, 2.08, 2.12]
    write_clip(videos / "walk/a.mkv", times=times)
    run(config(workspace, videos))
    extract_frames.run(extract_frames.Config(workspace.root, str(videos)))
    other = Workspace(workspace.root.with_name("other"))
    shutil.copytree(workspace.frames, other.frames)
    run(config(other, None))
    for made in (workspace, other):  # from the video, and from the stored frames
        with FlowFile(made.flow_file("walk", "a")) as file:
            assert file.times == pytest.approx(times)
            assert file.attributes["fps"] == pytest.approx(6 / 2.16)
            assert file.attributes["times_from"] == "timestamps"


def test_gzip_stores_the_same_bytes(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    clip = write_clip(videos / "walk/a.mkv")
    run(config(workspace, videos, compression="gzip"))
    assert np.array_equal(stored(workspace, "walk", "a"), expected_flow(clip))
    assert run(config(workspace, videos)).skipped == 1  # compression is no reason to do it again


def test_a_method_that_gives_nan_fails_the_video() -> None:
    class Broken:
        input = "grey"
        batch_size = 4
        uses_device = False
        engine = "numpy"

        def flow(self, frame0: torch.Tensor, frame1: torch.Tensor) -> torch.Tensor:
            flow = torch.zeros(len(frame0), 2, *frame0.shape[1:])
            flow[-1, 0, 3, 3] = float("nan")
            return flow

    frames = [np.zeros((20, 30, 3), np.uint8) for _ in range(3)]
    with pytest.raises(VideoError, match="NaN or infinity"):
        list(quantised_flow(frames, Broken(), FlowSettings.of("broken", {}, 20, 1, "video"), "cpu"))  # type: ignore[arg-type]


def test_videos_without_a_pair_become_rows(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    write_clip(videos / "c/one.mkv", frames=1)
    write_clip(videos / "c/three.mkv", frames=3)
    assert [row.reason for row in run(config(workspace, videos)).failures] == ["has 1 frame; flow needs at least 2"]
    other = Workspace(workspace.root / "other")
    reasons = [row.reason for row in run(config(other, videos, step=3)).failures]
    assert reasons == [
        "has 1 frame; flow at --step 3 needs at least 4",
        "has 3 frames; flow at --step 3 needs at least 4",
    ]


def test_a_second_run_does_nothing(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    write_clip(videos / "c/a.b.mkv")
    run(config(workspace, videos))
    before = workspace.flow_file("c", "a.b").stat().st_mtime_ns
    assert ((result := run(config(workspace, videos))).skipped, result.done) == (1, 0)
    assert workspace.flow_file("c", "a.b").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"bound": 5.0}, "bound is 20.0, not 5.0"),
        ({"step": 2}, "step is 1, not 2"),
        ({"method": "dis"}, "method is 'farneback', not 'dis'"),
        ({"method_options": {"levels": "2"}}, '"levels": 2'),
        ({"short_side": 32}, "64x48, not 42x32"),
    ],
)
def test_other_settings_are_refused_by_name(
    videos: Path, workspace: Workspace, write_clip: WriteClip, settings: dict[str, object], difference: str
) -> None:
    write_clip(videos / "c/a.mkv")
    run(config(workspace, videos))
    with pytest.raises(UsageError) as error:
        run(config(workspace, videos, **settings))
    assert difference in str(error.value)
    assert "--overwrite" in str(error.value)


@pytest.mark.parametrize("settings", [{"bound": 5.0}, {"method": "dis"}])
def test_flow_that_could_not_be_used_beside_what_is_stored_is_not_computed(
    videos: Path, workspace: Workspace, write_clip: WriteClip, settings: dict[str, object]
) -> None:
    write_clip(videos / "c/a.mkv")
    run(config(workspace, videos))
    write_clip(others := videos.parent / "others/c/b.mkv")
    with pytest.raises(UsageError, match="--method farneback --bound 20 --step 1"):
        run(config(workspace, others.parents[1], **settings))
    assert not workspace.flow_file("c", "b").exists()
    assert run(config(workspace, others.parents[1])).done == 1


@pytest.mark.parametrize("broken", [{"bound": float("nan")}, {"method_parameters": "{"}, {"step": 0}])
def test_flow_whose_settings_are_broken_is_made_again_like_any_damaged_file(
    videos: Path, workspace: Workspace, write_clip: WriteClip, broken: dict[str, object]
) -> None:
    write_clip(videos / "walk/a.mkv")
    run(config(workspace, videos))
    before = stored(workspace, "walk", "a")
    with h5py.File(workspace.flow_file("walk", "a"), "r+") as file:
        file.attrs.update(broken)
    assert run(config(workspace, videos)).done == 1
    assert np.array_equal(stored(workspace, "walk", "a"), before)
    assert load_catalogue(workspace).problems == []


def test_flow_of_stored_frames_keeps_what_is_known_of_the_video(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    write_clip(videos / "c/a.b.mkv")
    extract_frames.run(extract_frames.Config(workspace.root, str(videos), workers=1))
    shutil.copytree(workspace.frames / "c", workspace.frames / ".put-aside")
    assert run(config(workspace, None)).done == 1
    attributes = peek(workspace.flow_file("c", "a.b"), FLOW_SCHEMA)
    assert attributes["flow_input"] == "jpeg"
    assert attributes["source"] == str(videos / "c/a.b.mkv")
    assert attributes["source_frames"] == 6
    assert stored(workspace, "c", "a.b").shape == (5, 2, 48, 64)
    assert run(config(workspace, None)).skipped == 1
    with pytest.raises(UsageError, match="flow_input is 'jpeg', not 'video'"):
        run(config(workspace, videos))
    write_clip(videos / "c/a.b.mkv", frames=9)
    extract_frames.run(extract_frames.Config(workspace.root, str(videos), workers=1))
    assert run(config(workspace, None)).done == 1  # other frames, other flow


def test_a_damaged_frames_file_is_one_row(videos: Path, workspace: Workspace, write_clip: WriteClip) -> None:
    for name in ("a", "b"):
        write_clip(videos / f"c/{name}.mkv")
    extract_frames.run(extract_frames.Config(workspace.root, str(videos), workers=1))
    workspace.frames_file("c", "a").write_bytes(b"damaged")
    result = run(config(workspace, None))
    assert (result.done, result.failed) == (1, 1)
    assert "is damaged" in result.failures[0].reason


def test_without_videos_and_frames_the_message_says_what_to_run(workspace: Workspace) -> None:
    with pytest.raises(MissingError, match="stres extract-frames"):
        run(config(workspace, None))
    workspace.root.mkdir(parents=True, exist_ok=True)
    with pytest.raises(MissingError, match=r"no frames in .*extract-frames"):
        run(config(workspace, None))


def test_a_process_killed_by_a_video_fails_that_video_alone(
    videos: Path, workspace: Workspace, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "deadly", "z"):
        write_clip(videos / f"c/{name}.mkv")
    monkeypatch.setattr(extraction, "store_flow", worker_functions.store_or_die)
    result = run(config(workspace, videos))
    assert (result.done, result.failed) == (2, 1)
    (row,) = read_failures(workspace)
    assert (row.stage, row.video) == (STAGE, "deadly")
    assert "killed by signal 11" in row.reason
    assert sorted(path.name for path in workspace.flow.rglob("*") if path.is_file()) == ["a.h5", "z.h5"]


def test_a_dry_run_measures_the_method_and_writes_nothing(
    videos: Path, workspace: Workspace, write_clip: WriteClip
) -> None:
    for number in range(4):
        write_clip(videos / f"c/{number}.avi", frames=8)
    cost = run(config(workspace, videos, dry_run=True)).estimate
    assert cost is not None
    assert (cost.videos, cost.frames, cost.measured_videos) == (4, 32, 4)
    assert 0 < cost.gigabytes < 32 * 2 * 48 * 64 / 1e9
    assert 0 < cost.hours < 1
    assert not workspace.root.exists()


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"method": "x"}, "--method"),
        ({"bound": 0}, "--bound"),
        ({"bound": float("nan")}, "--bound"),
        ({"step": 0}, "--step"),
        ({"compression": "lzf"}, "--compression"),
        ({"short_side": 256, "videos": None}, "--short-side"),
    ],
)
def test_settings_out_of_range_name_their_flag(tmp_path: Path, settings: dict[str, object], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        Config(tmp_path, **{"videos": "videos", **settings})  # type: ignore[arg-type]


def test_flow_does_not_depend_on_how_many_processes_turn_out_to_be_fastest(
    videos: Path, workspace: Workspace, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen as on a GPU."""
    monkeypatch.setattr("pipelines.runtime.growth._SECONDS", 0.0)
    monkeypatch.setattr("pipelines.extract_flow.growth_on", lambda device, mixer: Growth((1, 2), mixer, 2))
    names = ["x" * number for number in range(1, 9)]
    for name in names:
        write_clip(videos / f"walk/{name}.mkv")
    found = run(config(workspace, videos, workers=0))
    assert found.done == 8
    assert list(found.process_rates)[:1] == [1]
    other = Workspace(workspace.root.with_name("other"))
    assert run(config(other, videos, workers=1)).process_rates == {}
    for name in names:
        attributes = [peek(made.flow_file("walk", name), FLOW_SCHEMA) for made in (workspace, other)]
        assert attributes[0] == attributes[1]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real clips are not here")
def test_a_real_clip_becomes_the_papers_size(workspace: Workspace) -> None:
    clip = DATA / "hmdb51/wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi"
    result = run(config(workspace, clip, method="dis", method_options={"preset": "ultrafast"}))
    assert result.units == 47
    assert stored(workspace, "unlabelled", clip.stem).shape == (47, 2, 256, 460)
