"""`export-flow`: what is written can be read by others, and by `import-flow`, as what was stored."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipelines.errors import MissingError, UsageError
from pipelines.export_flow import Config, run
from pipelines.importing import flow as import_flow
from pipelines.runtime.progress import Progress
from pipelines.storage.failures import read_failures
from pipelines.storage.flow_file import FlowFile, new_flow_file
from pipelines.storage.workspace import Workspace

FIELDS, HEIGHT, WIDTH = 5, 32, 40


def write_flow(
    workspace: Workspace, id_: str, *, count: int = FIELDS, step: int = 1, bound: float = 20.0
) -> np.ndarray:
    """A flow artifact of smooth fields, which are returned: uint8 [F, 2, H, W]."""
    rng = np.random.default_rng(len(id_))
    coarse = rng.integers(60, 200, (count * 2, 4, 5), dtype=np.uint8)
    planes = [cv2.resize(plane, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR) for plane in coarse]
    fields = np.stack(planes).reshape(count, 2, HEIGHT, WIDTH)
    made = {"method": "brox", "method_parameters": "{}", "bound": bound, "step": step, "flow_input": "video"}
    source = {"source": f"{id_}.avi", "source_sha256": id_, "source_frames": count + step, "fps": 25.0}
    with new_flow_file(workspace.flow_file(*id_.split("/"))) as file:
        file.append(fields)
        file.finish({**made, **source, "short_side": HEIGHT, "width": WIDTH, "height": HEIGHT})
    return fields


def config(workspace: Workspace, output: Path, **settings: Any) -> Config:
    return Config(workspace.root, output, **{"workers": 1, **settings})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


NAMES = {
    "authors": ("u/a/frame000001.jpg", "v/a/frame000001.jpg"),
    "denseflow": ("walk/a/flow_x_00000.jpg", "walk/a/flow_y_00000.jpg"),
    "mmaction2": ("walk/a/x_00001.jpg", "walk/a/y_00001.jpg"),
}


@pytest.mark.parametrize("layout", NAMES)
def test_pictures_have_the_names_and_values_others_expect(empty, output, layout):
    fields = write_flow(empty, "walk/a")

    assert run(config(empty, output, layout=layout)).units == FIELDS

    assert len(list(output.rglob("*.jpg"))) == 2 * FIELDS
    for name, expected in zip(NAMES[layout], fields[0], strict=True):
        picture = cv2.imread(str(output / name), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (HEIGHT, WIDTH)
        assert np.abs(picture.astype(int) - expected).max() <= 4
    about = json.loads((output / "flow.json").read_text())
    assert about == {
        "schema": "stres/flow-pictures/1",
        "layout": layout,
        "format": "jpg",
        "first": int("frame" in NAMES[layout][0] or "x_00001" in NAMES[layout][0]),
        "flow_folder": str(empty.flow),
        "method": "brox",
        "method_parameters": {},
        "bound": 20.0,
        "step": 1,
    }


@pytest.mark.parametrize(
    ("layout", "format_", "step"), [*((layout, "png", 1) for layout in NAMES), ("denseflow", "png", 2)]
)
def test_what_is_exported_can_be_imported_again(empty, output, tmp_path, layout, format_, step):
    fields = write_flow(empty, "walk/a", step=step)
    run(config(empty, output, layout=layout, format=format_))
    again = Workspace(tmp_path / "again")

    result = import_flow.run(import_flow.Config(again.root, output, "brox", 20.0, step=step, workers=1))

    assert (result.done, result.failed) == (1, 0)
    (path,) = again.flow.rglob("*.h5")
    assert path.relative_to(again.flow).as_posix() == ("unlabelled/a.h5" if layout == "authors" else "walk/a.h5")
    with FlowFile(path) as file:
        np.testing.assert_array_equal(file.read(0, FIELDS), fields)


def test_jpeg_changes_values_by_little(empty, output, tmp_path):
    fields = write_flow(empty, "walk/a")
    run(config(empty, output))
    again = Workspace(tmp_path / "again")
    import_flow.run(import_flow.Config(again.root, output, "brox", 20.0, workers=1))

    with FlowFile(again.flow_file("unlabelled", "a")) as file:
        difference = file.read(0, FIELDS).astype(int) - fields
    assert 0 < np.abs(difference).mean() < 0.8
    assert np.abs(difference).max() <= 4


def test_again_does_only_what_is_not_whole_or_has_changed(empty, output):
    for name in ("whole", "incomplete", "changed"):
        write_flow(empty, f"walk/{name}")
    run(config(empty, output))
    (output / "v/incomplete/frame000003.jpg").unlink()
    fields = write_flow(empty, "walk/changed", count=3)

    again = run(config(empty, output))

    assert (again.done, again.skipped) == (2, 1)
    assert sorted(path.name for path in (output / "v/changed").iterdir()) == [f"frame{n:06d}.jpg" for n in (1, 2, 3)]
    picture = cv2.imread(str(output / "u/changed/frame000003.jpg"), cv2.IMREAD_UNCHANGED)
    assert np.abs(picture.astype(int) - fields[2, 0]).max() <= 4
    assert (output / "v/incomplete/frame000003.jpg").exists()
    assert sorted(path.name for path in output.iterdir()) == ["flow.json", "u", "v"]


def test_an_interruption_leaves_no_folder_half_full(empty, output):
    write_flow(empty, "walk/a", count=80)

    def interrupt(progress: Progress) -> None:
        if progress.metrics["pairs/s"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config(empty, output), interrupt)
    assert list(output.rglob("*.jpg")) == []
    assert run(config(empty, output)).units == 80


def test_left_over_folders_of_dead_processes_go(empty, output):
    write_flow(empty, "walk/a")
    host = os.uname().nodename.replace("-", "_")
    left_over = output / ".partial" / f".a.tmp-{host}-999999999-00000000"
    left_over.mkdir(parents=True)
    (left_over / "frame000001.jpg").touch()

    run(config(empty, output))

    assert not (output / ".partial").exists()


def test_another_kind_of_pictures_is_refused_beside_what_is_there(empty, output):
    write_flow(empty, "walk/a")
    run(config(empty, output))

    with pytest.raises(UsageError, match=r"another kind \(layout is 'authors', not 'denseflow'.*--overwrite"):
        run(config(empty, output, layout="denseflow"))


def test_two_videos_of_one_name_need_folders_for_classes(empty, output):
    write_flow(empty, "walk/a")
    write_flow(empty, "run/a")

    result = run(config(empty, output))

    assert (result.done, result.failed) == (1, 1)
    assert read_failures(empty)[0].reason.startswith("run/a has the same name, and --layout authors has no folders")
    assert run(config(empty, output.parent / "other", layout="denseflow")).done == 2


def test_a_damaged_artifact_is_a_row(empty, output):
    write_flow(empty, "walk/a")
    write_flow(empty, "walk/b")
    empty.flow_file("walk", "a").write_bytes(b"damaged")
    path = empty.flow_file("walk", "b")
    data = bytearray(path.read_bytes())
    write_flow(empty, "walk/c")
    with FlowFile(path) as file:
        at = file.file["flow"].id.get_chunk_info(1).byte_offset
    data[at : at + 64] = bytes(64)
    path.write_bytes(data)

    result = run(config(empty, output))

    assert (result.done, result.failed) == (1, 2)
    assert {row.video for row in read_failures(empty)} == {"a", "b"}
    assert sorted(path.name for path in (output / "u").iterdir()) == ["c"]


def test_a_dry_run_writes_nothing(empty, output):
    write_flow(empty, "walk/a")

    cost = run(config(empty, output, dry_run=True)).estimate

    assert cost is not None
    assert (cost.videos, cost.frames, cost.measured_videos) == (1, FIELDS, 1)
    assert not output.exists()


@pytest.mark.parametrize(("settings", "flag"), [({"layout": "tsn"}, "--layout"), ({"format": "gif"}, "--format")])
def test_settings_out_of_range_name_their_flag(empty, output, settings, flag):
    with pytest.raises(UsageError, match=flag):
        config(empty, output, **settings)


def test_a_workspace_without_flow_is_named(workspace, output):
    for path in workspace.flow.rglob("*.h5"):
        path.unlink()

    with pytest.raises(MissingError, match="run `stres extract-flow` first"):
        run(config(workspace, output))


def test_flow_of_another_workspace_of_equal_names_is_refused(empty, output, tmp_path):
    write_flow(empty, "walk/a")
    run(config(empty, output))
    other = Workspace(tmp_path / "other")
    write_flow(other, "walk/a")
    with pytest.raises(UsageError, match=r"another kind \(flow_folder is .*imported/flow.*other/flow"):
        run(config(other, output))
    assert run(config(other, output, overwrite=True)).done == 1


def test_an_export_of_stres_0_1_which_does_not_tell_whose_flow_it_is_is_continued(empty, output):
    write_flow(empty, "walk/a")
    run(config(empty, output))
    document = json.loads((output / "flow.json").read_text())
    del document["flow_folder"]
    (output / "flow.json").write_text(json.dumps(document))
    assert run(config(empty, output)).skipped == 1
