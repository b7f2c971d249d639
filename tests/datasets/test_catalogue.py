"""The catalogue is derived from the artifacts; `dataset.json` only spares opening them."""

import json
import os
import re
import subprocess
import sys

import pytest

from pipelines.datasets import catalogue as catalogue_module
from pipelines.datasets.catalogue import flow_provenance, load_catalogue
from pipelines.errors import MissingError
from pipelines.runtime import parallel_map


@pytest.fixture
def opened(monkeypatch):
    """The names of the artifacts that were opened."""
    names = []

    def peek(path, schema, wanted):
        names.append(f"{path.parent.parent.name}/{path.name}")
        return real(path, schema, wanted)

    real = catalogue_module.peek
    monkeypatch.setattr(catalogue_module, "peek", peek)
    return names


def test_videos_and_classes_are_listed_in_order_with_what_their_attributes_say(workspace, add_video):
    add_video("walk", "b.2", 15)
    add_video("bend", "ä #&[1]", 12, size=(32, 48), step=2)
    catalogue = load_catalogue(workspace)
    assert catalogue.classes == ["bend", "walk"]
    assert [video.id for video in catalogue.videos] == ["bend/ä #&[1]", "walk/b.2"]
    first = catalogue.videos[0]
    assert (first.frames, first.flow_fields, first.flow_step) == (12, 10, 2)
    assert (first.width, first.height, first.fps) == (48, 32, 25.0)
    assert first.frames_file == workspace.frames_file("bend", "ä #&[1]")
    assert first.flow_file == workspace.flow_file("bend", "ä #&[1]")
    assert (first.source, first.source_sha256) == ("/videos/bend/ä #&[1].avi", "bend-ä #&[1]")
    assert catalogue.problems == []


def test_a_video_with_one_artifact_only_is_listed_without_the_other(workspace, add_video):
    add_video("a", "frames_only", flow=None)
    add_video("a", "flow_only", None, length=17)
    flow_only, frames_only = load_catalogue(workspace).videos
    assert (flow_only.frames_file, flow_only.frames, flow_only.flow_fields) == (None, 17, 16)
    assert (frames_only.flow_file, frames_only.frames, frames_only.flow_fields) == (None, 20, 0)


def test_unfinished_files_and_other_files_are_no_videos(workspace, add_video):
    add_video("a", "whole")
    folder = workspace.frames / "a"
    for name in (".whole.h5.tmp-host-1-0123abcd", ".hidden.h5", "notes.txt"):
        (folder / name).write_text("x")
    (workspace.frames / "loose.h5").write_text("x")
    catalogue = load_catalogue(workspace)
    assert [video.id for video in catalogue.videos] == ["a/whole"]
    assert catalogue.problems == []


def test_a_second_load_opens_nothing_and_writes_nothing(workspace, add_video, opened):
    add_video("a", "one")
    add_video("b", "two")
    first = load_catalogue(workspace)
    assert len(opened) == 4
    before = workspace.dataset_file.stat()
    opened.clear()
    assert load_catalogue(workspace) == first
    assert opened == []
    after = workspace.dataset_file.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_only_changed_and_new_artifacts_are_opened_again(workspace, add_video, opened):
    add_video("a", "one")
    add_video("a", "two")
    load_catalogue(workspace)
    os.utime(workspace.flow_file("a", "one"), ns=(1, 1))
    add_video("a", "three", flow=None)
    workspace.flow_file("a", "two").unlink()
    opened.clear()
    catalogue = load_catalogue(workspace)
    assert sorted(opened) == ["flow/one.h5", "frames/three.h5"]
    assert [video.flow_file is None for video in catalogue.videos] == [False, True, True]


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", '{"schema": "stres/dataset/0"}', '{"schema": "stres/dataset/1", "flow_settings": 3}'],
)
def test_a_missing_or_broken_dataset_json_is_made_again(workspace, add_video, content):
    add_video("a", "one")
    first = load_catalogue(workspace)
    good = workspace.dataset_file.read_text()
    if content is None:
        workspace.dataset_file.unlink()
    else:
        workspace.dataset_file.write_text(content)
    assert load_catalogue(workspace) == first
    assert workspace.dataset_file.read_text() == good


def test_a_dataset_json_that_was_cut_or_laid_out_anew_is_made_again(workspace, add_video):
    add_video("a", "one")
    add_video("a", "two")
    first = load_catalogue(workspace)
    good = workspace.dataset_file.read_text()
    assert list(json.loads(good))[3:] == ["classes", "flow_settings", "videos"]
    for content in (good[: good.index("two")], good.replace("]\n}", ""), json.dumps(json.loads(good), indent=1)):
        workspace.dataset_file.write_text(content)
        assert load_catalogue(workspace) == first
        assert workspace.dataset_file.read_text() == good


def test_an_artifact_that_stays_damaged_does_not_have_dataset_json_written_again(workspace, add_video):
    add_video("a", "one")
    workspace.frames_file("a", "two").write_bytes(b"no HDF5")
    assert [row.video for row in load_catalogue(workspace).problems] == ["two"]
    before = workspace.dataset_file.stat().st_mtime_ns
    assert [row.video for row in load_catalogue(workspace).problems] == ["two"]
    assert workspace.dataset_file.stat().st_mtime_ns == before


def test_very_many_artifacts_are_examined_by_processes_alike(workspace, add_video, monkeypatch):
    for number in range(4):
        add_video("ab"[number % 2], f"v{number}")
    workspace.flow_file("a", "v0").write_bytes(b"no HDF5")
    expected = load_catalogue(workspace)
    workspace.dataset_file.unlink()
    monkeypatch.setattr(parallel_map, "FEW", 1)
    assert load_catalogue(workspace) == expected
    assert len(expected.problems) == 1


def test_an_entry_of_dataset_json_with_wrong_types_is_not_believed(workspace, add_video):
    add_video("a", "one")
    first = load_catalogue(workspace)
    text = workspace.dataset_file.read_text()
    workspace.dataset_file.write_text(text.replace('"frames": 20', '"frames": "20"'))
    assert load_catalogue(workspace) == first
    assert workspace.dataset_file.read_text() == text


def test_a_damaged_artifact_is_a_problem_and_counts_as_absent(workspace, add_video):
    add_video("a", "cut")
    add_video("a", "whole")
    path = workspace.flow_file("a", "cut")
    path.write_bytes(path.read_bytes()[:500])
    catalogue = load_catalogue(workspace)
    assert [(video.id, video.flow_file is None) for video in catalogue.videos] == [("a/cut", True), ("a/whole", False)]
    [problem] = catalogue.problems
    assert (problem.class_name, problem.video, problem.path) == ("a", "cut", str(path))
    assert "damaged" in problem.reason


def test_an_artifact_without_its_frame_count_is_a_problem(workspace, add_video):
    add_video("a", "one", flow=None, source_frames="many")
    catalogue = load_catalogue(workspace)
    assert catalogue.videos == []
    assert "broken attribute" in catalogue.problems[0].reason


@pytest.mark.parametrize(
    "flow", [{"fps": float("nan")}, {"bound": float("inf")}, {"method_parameters": '{"tau": NaN}'}]
)
def test_an_attribute_that_is_not_finite_is_a_problem_and_never_in_a_json_file(workspace, add_video, flow):
    add_video("a", "one", flow=flow)
    catalogue = load_catalogue(workspace)
    assert "broken attribute" in catalogue.problems[0].reason
    json.loads(workspace.dataset_file.read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        ({"source_frames": 19}, "20 and 19 frames"),
        ({"source_sha256": "another"}, "different versions"),
        ({"width": 80, "height": 64}, "differ in size (40x32 and 80x64)"),
    ],
)
def test_frames_and_flow_of_different_videos_are_a_problem(workspace, add_video, flow, reason):
    add_video("a", "one", flow=flow)
    catalogue = load_catalogue(workspace)
    assert catalogue.videos == []
    assert reason in catalogue.problems[0].reason


def test_flow_provenance_is_what_all_flow_files_share(workspace, add_video):
    add_video("a", "one")
    add_video("a", "two", flow={"flow_input": "jpeg"})
    add_video("a", "no_flow", flow=None)
    assert flow_provenance(load_catalogue(workspace)).to_json() == {
        "method": "tvl1",
        "method_parameters": {"tau": 0.25},
        "bound": 20.0,
        "step": 1,
        "short_side": 32,
        "flow_input": None,
    }


@pytest.mark.parametrize("name", ["method", "method_parameters", "bound"])
def test_contradicting_flow_files_are_named(workspace, add_video, name):
    other = {"method": "farneback", "method_parameters": '{"tau": 0.1}', "bound": 5.0}[name]
    add_video("a", "one")
    add_video("a", "two", flow={name: other})
    catalogue = load_catalogue(workspace)
    with pytest.raises(MissingError, match=rf"one\.h5 has {name} .*two\.h5 has {re.escape(str(other))}"):
        flow_provenance(catalogue)


def test_a_workspace_without_flow_has_no_provenance(workspace, add_video):
    add_video("a", "one", flow=None)
    assert flow_provenance(load_catalogue(workspace)) is None


def test_without_a_workspace_the_message_says_what_to_run(workspace):
    workspace.root.rmdir()
    with pytest.raises(MissingError, match="extract-frames"):
        load_catalogue(workspace)


def test_catalogue_and_splits_load_no_heavy_library():
    heavy = ["numpy", "torch", "cv2", "h5py", "sklearn"]
    code = f"import sys, pipelines.datasets.splits; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
