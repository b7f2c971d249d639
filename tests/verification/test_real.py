"""On real clips: no false alarm, and flow turned in any way is found. Skipped where the clips are not there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import extract_flow, extract_frames, verify
from pipelines.storage.workspace import Workspace
from tests.verification.planting import fields_of, found, rewrite_flow

DATA = Path(__file__).parents[3] / "shared" / "data"
CLIPS = (
    "ucf101/Punch/v_Punch_g03_c01.avi",
    "hmdb51/wave/TrumanShow_wave_f_nm_np1_fr_med_26.avi",
    "weizmann/videos/walk/denis_walk.avi",
    "weizmann/videos/wave1/daria_wave1.avi",  # in which hardly anything moves
)
METHODS: dict[str, dict[str, Any]] = {
    "farneback": {"method": "farneback"},
    "farneback --step 2": {"method": "farneback", "step": 2},
    "tvl1": {"method": "tvl1", "method_options": {"warps": "2"}},
}

Verify = Callable[..., verify.Result]
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real clips at ../shared/data")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """A workspace for each of METHODS, short side 64. Only to be read."""
    root = tmp_path_factory.mktemp("real")
    for clip in CLIPS:
        link = root / "clips" / Path(clip).parent.name / Path(clip).name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(DATA / clip)
    frames = Workspace(root / "frames")
    extract_frames.run(extract_frames.Config(frames.root, str(root / "clips"), short_side=64, workers=2))
    workspaces = {}
    for number, (name, settings) in enumerate(METHODS.items()):
        workspaces[name] = Workspace(root / f"work{number}")
        workspaces[name].root.mkdir(parents=True)
        workspaces[name].frames.symlink_to(frames.frames)
        extract_flow.run(extract_flow.Config(workspaces[name].root, workers=2, **settings))
    return workspaces


@pytest.mark.parametrize("method", METHODS)
def test_healthy_real_clips_have_no_faults(real: dict[str, Workspace], verified: Verify, method: str) -> None:
    result = verified(real[method], depth="full")

    assert (result.videos, result.files) == (4, 8)
    assert result.faults == []
    assert result.not_oriented <= 1


TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "x negated": lambda fields: np.stack([255 - fields[:, 0], fields[:, 1]], axis=1),
    "y negated": lambda fields: np.stack([fields[:, 0], 255 - fields[:, 1]], axis=1),
    "x and y negated": lambda fields: 255 - fields,
    "x and y swapped": lambda fields: fields[:, ::-1],
}
MOVING = ("Punch/v_Punch_g03_c01", "wave/TrumanShow_wave_f_nm_np1_fr_med_26")  # in both directions


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turn", TURNS)
def test_turned_flow_of_real_clips_is_found(
    real: dict[str, Workspace], verified: Verify, tmp_path: Path, method: str, turn: str
) -> None:
    workspace = Workspace(tmp_path / "work")
    for id_ in MOVING:
        for kind in ("frames", "flow"):
            target = workspace.root / kind / f"{id_}.h5"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((real[method].root / kind / f"{id_}.h5").read_bytes())
        rewrite_flow(target, TURNS[turn](fields_of(target)))

    result = verified(workspace)

    assert found(result) == {(id_, "turned flow") for id_ in MOVING}
    assert all(f"fits its frames with {turn}: " in fault.detail for fault in result.faults)
