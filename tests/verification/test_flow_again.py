"""`verify` computes flow again: by the stated method, from the stated source, in processes of one width each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines import extract_flow, extract_frames, verify
from pipelines.storage.failures import read_failures
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.workspace import Workspace
from pipelines.verification import one_flow, recomputing
from pipelines.verification.faults import FaultFound
from pipelines.verification.tasks import FlowOrigin, RecomputeTask
from pipelines.video.synthetic import write_video
from stres_cli.app import app
from tests.verification import deadly
from tests.verification.planting import FLOW, FRAMES, clip, fields_of, found, rewrite_flow, set_attribute

Verify = Callable[..., verify.Result]
ONE = ("drift", "v_drift_g00_c01")
FIELDS = FRAMES - 1


def task_of(id_: str, *, all_fields: bool = False) -> RecomputeTask:
    return RecomputeTask(id_, FlowOrigin("flow.h5", "a.avi", True, "tvl1", 64, "0.2.0"), all_fields)


def make_wrong(path: Path, index: int, **attributes: Any) -> None:
    """A quarter of one field, x only, off by 60 grey levels; all checksums and hashes are right."""
    fields = fields_of(path)
    corner = fields[index, 0, : fields.shape[2] // 2, : fields.shape[3] // 2]
    corner[:] = np.where(corner < 128, 190, 65)
    rewrite_flow(path, fields, **attributes)


# ------------------------------------------------------------------ which fields


def test_one_field_of_each_third_is_computed_again_the_same_ones_every_time() -> None:
    chosen = {tuple(task_of(f"a/{number}").fields(30)) for number in range(40)}

    assert len(chosen) > 5  # not of every video the same
    for fields in chosen:
        assert [field // 10 for field in fields] == [0, 1, 2]
    assert task_of("a/1").fields(30) == task_of("a/1").fields(30)
    assert [list(task_of("a/b").fields(count)) for count in (1, 2, 3)] == [[0], [0, 1], [0, 1, 2]]
    assert list(task_of("a/b", all_fields=True).fields(30)) == list(range(30))


@pytest.mark.parametrize(("depth", "fields"), [("quick", 0), ("stored", 9 * 3), ("full", 9 * FIELDS)])
def test_sound_flow_is_computed_again_as_deep_as_asked_for(
    healthy: Workspace, verified: Verify, depth: str, fields: int
) -> None:
    result = verified(healthy, depth=depth)

    assert (result.faults, result.not_recomputed) == ([], {})
    assert (result.recomputed_videos, result.recomputed_fields) == (9 if fields else 0, fields)


def test_flow_of_stored_frames_is_computed_again_from_them(
    workspace: Workspace, videos: Path, verified: Verify
) -> None:
    extract_flow.run(extract_flow.Config(workspace.root, None, workers=1, overwrite=True, **{**FLOW, "step": 2}))

    result = verified(workspace, depth="full")

    assert (result.faults, result.recomputed_fields) == ([], 9 * (FRAMES - 2))
    path = workspace.flow_file(*ONE)
    make_wrong(path, 3)
    assert found(verified(workspace, depth="full")) == {("/".join(ONE), "wrong flow")}


# ------------------------------------------------------------------ what is wrong


def test_a_field_that_the_method_does_not_give_is_named_with_how_far_it_is_off(
    workspace: Workspace, verified: Verify
) -> None:
    make_wrong(workspace.flow_file(*ONE), index := task_of("/".join(ONE)).fields(FIELDS)[1])

    (fault,) = verified(workspace).faults

    assert (fault.kind, fault.subject, fault.remake) == ("wrong flow", "/".join(ONE), ("flow",))
    assert fault.detail.startswith(f"field {index} is not what farneback gives for its frames: 1")
    assert " % of its bytes are off by more than 4 grey levels, by up to " in fault.detail  # the bound is 5


def test_a_field_outside_the_sample_is_found_where_all_are_computed_again(
    workspace: Workspace, verified: Verify
) -> None:
    sample = task_of("/".join(ONE)).fields(FIELDS)
    make_wrong(workspace.flow_file(*ONE), next(index for index in range(FIELDS) if index not in sample))

    assert verified(workspace).faults == []
    assert found(verified(workspace, depth="full")) == {("/".join(ONE), "wrong flow")}


def rule_of(attributes: dict[str, Any]) -> one_flow._Rule:
    """The rule for a flow file with these attributes."""
    settings = SimpleNamespace(method=attributes["method"], bound=attributes["bound"])
    return one_flow._Rule(cast(FlowFile, SimpleNamespace(settings=settings, attributes=attributes)))


@pytest.mark.parametrize(("bound", "levels"), [(20.0, 1), (5.0, 4), (100.0, 1), (0.5, 16)])
def test_rounding_is_a_sixth_of_a_pixel_in_few_bytes(bound: float, levels: int) -> None:
    rule = rule_of({"method": "tvl1", "bound": bound, "library_versions": _versions()})
    computed = np.full((2, 10, 100), 100, np.uint8)

    rule.check(0, computed + np.uint8(levels), computed)
    few, more = computed.copy(), computed.copy()
    few.flat[:100] += np.uint8(levels + 1)  # a twentieth
    more.flat[:120] += np.uint8(levels + 1)
    rule.check(0, few, computed)
    with pytest.raises(FaultFound, match=f"6 % of its bytes are off by more than {levels} grey level"):
        rule.check(0, more, computed)


@pytest.mark.parametrize(
    "about",
    [
        {"method": "tvl1", "library_versions": '{"av": "1.0"}'},
        {"method": "tvl1", "library_versions": "no JSON"},
        {"method": "tvl1"},
        {"method": "raft"},
    ],
    ids=str,
)
def test_what_other_libraries_or_a_gpu_computed_may_differ_more(about: dict[str, str]) -> None:
    rule = rule_of({"library_versions": _versions(), "bound": 20.0, **about} if len(about) < 3 else about)
    computed = np.full((2, 10, 100), 100, np.uint8)
    stored = computed.copy()
    stored.flat[: 2000 * 3 // 10] = 90
    allowed = about["method"] == "raft" or about.get("library_versions", "") != ""

    if allowed:
        rule.check(0, stored, computed)
    stored.flat[: 2000 * 4 // 10] = 90
    with pytest.raises(FaultFound, match="40 %"):
        rule.check(0, stored, computed)


def _versions() -> str:
    from pipelines.jobs.attributes import stored_library_versions

    return stored_library_versions()


def test_a_source_that_decodes_to_other_frames_than_stated_is_wrong_flow(
    workspace: Workspace, verified: Verify
) -> None:
    """As where another stream is decoded now: the file is what it was."""
    path = workspace.flow_file(*ONE)
    set_attribute(path, source_width=32, source_height=24)

    (fault,) = verified(workspace).faults

    assert (fault.kind, fault.detail) == ("wrong flow", "its source shows pictures of 64x48, not 32x24")

    set_attribute(path, source_width=64, source_height=48, source_frames=FRAMES - 2)
    workspace.frames_file(*ONE).unlink()
    rewrite_flow(path, fields_of(path)[:-2])
    (fault,) = (fault for fault in verified(workspace, depth="full").faults if fault.kind == "wrong flow")
    assert fault.detail == f"its source has {FRAMES} frames, not the {FRAMES - 2} it states"


def test_flow_of_a_damaged_source_that_does_not_say_so_is_wrong(tmp_path: Path, verified: Verify) -> None:
    """As 0.1.0 stored it: the pictures that the decoder made up looked like any others."""
    path, workspace = tmp_path / "videos/c/a.avi", Workspace(tmp_path / "work")
    path.parent.mkdir(parents=True)
    write_video(path, clip(7, (2, 1)))
    content = bytearray(path.read_bytes())
    place = content.index(b"\0\0\1\xb6", len(content) // 2) + 40
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    settings: dict[str, Any] = {"workers": 1, "allow_damaged": True, **FLOW}
    assert extract_flow.run(extract_flow.Config(workspace.root, str(tmp_path / "videos"), **settings)).done == 1

    assert found(verified(workspace, depth="full")) == {("frames", "missing")}
    set_attribute(workspace.flow_file("c", "a"), damaged=None, damaged_frames=None)
    (fault,) = (fault for fault in verified(workspace, depth="full").faults if fault.kind == "wrong flow")
    assert fault.detail.startswith("its source is damaged: ")
    assert fault.detail.endswith(f" of {FRAMES} frames, which it does not say")


def test_wrong_flow_is_queued_and_made_again(workspace: Workspace, videos: Path, verified: Verify) -> None:
    make_wrong(workspace.flow_file(*ONE), task_of("/".join(ONE)).fields(FIELDS)[0])

    result = verified(workspace, fix=True)

    assert [(one.stage, one.video) for one in result.requeued] == [("extract-flow", ONE[1])]
    (row,) = read_failures(workspace)
    assert row.reason.startswith("verify found wrong flow: field ")
    done = extract_flow.run(extract_flow.Config(workspace.root, str(videos), workers=1, **FLOW)).done
    assert (done, verified(workspace, depth="full").faults) == (1, [])


# ------------------------------------------------------------------ what cannot be recomputed


def test_why_flow_is_not_computed_again_is_counted_and_no_fault(
    workspace: Workspace, verified: Verify, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where no weights are, and none are fetched to
    names = sorted((path.parent.name, path.stem) for path in workspace.flow.glob("*/*.h5"))
    raft = json.dumps({"model": "raft_large", "weights": "torchvision:Raft_Large_Weights.C_T_SKHT_V2", "updates": 12})
    for name, changed in zip(
        names,
        [
            {"source": str(tmp_path / "gone.mkv")},
            {"flow_input": "imported"},
            {"method": "theirs"},
            {"method_parameters": json.dumps({"winsize": 9})},
            {"method": "raft", "method_parameters": raft},
            {"flow_input": "jpeg", "frames_sha256": None},
        ],
        strict=False,
    ):
        if "frames_sha256" in changed:
            del changed["frames_sha256"]
        set_attribute(workspace.flow_file(*name), **changed)

    result = verified(workspace)

    assert {kind for _, kind in found(result)} == {"settings"}
    assert result.recomputed_videos == 3
    assert result.not_recomputed == {
        "its source is gone": 1,
        "it was imported": 1,
        "its method is not one of stres": 1,
        "the frames it was made from are not there": 1,
        "its method has other parameters in this version": 1,
        "the weights of its method are not on this machine": 1,
    }


def test_flow_of_a_changed_source_is_not_computed_again(workspace: Workspace, verified: Verify, tmp_path: Path) -> None:
    source = tmp_path / f"{ONE[1]}.mkv"
    write_video(source, clip(99, (1, 1)), codec="ffv1", pixels="bgr0")
    set_attribute(workspace.flow_file(*ONE), source=str(source))

    result = verified(workspace)

    assert found(result) == {("/".join(ONE), "source changed")}
    assert result.not_recomputed == {"its source has changed": 1}
    assert result.recomputed_videos == 8


# ------------------------------------------------------------------ the kernels that 0.1.0 mixed up


@pytest.fixture(scope="module")
def two_widths(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Flow of 64 and of 200 pixels' width. Only to be read."""
    folder = tmp_path_factory.mktemp("widths")
    wide = np.stack([cv2.resize(frame, (200, 48)) for frame in clip(5, (1, 2))])
    for name, frames in (("narrow", clip(4, (2, 1))), ("wide", wide), ("deadly", clip(6, (1, 1)))):
        (folder / "videos/c").mkdir(parents=True, exist_ok=True)
        write_video(folder / f"videos/c/{name}.mkv", frames, codec="ffv1", pixels="bgr0")
    workspace = Workspace(folder / "work")
    extract_frames.run(extract_frames.Config(workspace.root, str(folder / "videos"), workers=1))
    extract_flow.run(extract_flow.Config(workspace.root, str(folder / "videos"), workers=1, **FLOW))
    return workspace


@pytest.fixture
def old(two_widths: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The same as if it were of 0.1.0, and farneback the method that was wrong in it: compiling TV-L1 takes long."""
    monkeypatch.setattr(recomputing, "_FAULTY_METHOD", "farneback")
    shutil.copytree(two_widths.root, tmp_path / "work")
    for path in (tmp_path / "work/flow").glob("*/*.h5"):
        set_attribute(path, stres_version="0.1.0")
    return Workspace(tmp_path / "work")


def test_the_widths_of_the_kernels_are_those_of_0_1_0() -> None:
    widths = [1, 176, 177, 340, 368, 369, 454, 752, 753, 1520, 1521]
    kernels = [FlowOrigin("", "", True, "tvl1", width, "0.1.0").kernel_width for width in widths]

    assert kernels == [176, 176, 368, 368, 368, 752, 752, 752, 1520, 1520, 3056]


def test_flow_that_0_1_0_may_have_mixed_up_is_named_where_nothing_is_computed(old: Workspace, verified: Verify) -> None:
    result = verified(old, depth="quick")

    assert found(result) == {(f"c/{name}", "suspect flow") for name in ("narrow", "wide", "deadly")}
    assert result.faults[0].detail == (
        "it was made by stres 0.1.0 with tvl1 among videos of other widths, whose kernels could be mixed up"
    )
    assert verified(old, depth="quick", fix=True).requeued == []


def test_all_fields_of_suspects_are_computed_again_and_clear_or_convict_them(old: Workspace, verified: Verify) -> None:
    result = verified(old)
    assert (result.faults, result.recomputed_fields) == ([], 3 * FIELDS)

    sample = task_of("c/wide").fields(FIELDS)
    unseen = next(index for index in range(FIELDS) if index not in sample)
    path = old.flow_file("c", "wide")
    make_wrong(path, unseen)
    set_attribute(path, stres_version="0.1.0")

    result = verified(old, fix=True)

    assert found(result) == {("c/wide", "wrong flow")}
    assert [one.video for one in result.requeued] == ["wide"]


def test_suspects_that_cannot_be_computed_again_are_named_with_the_reason(old: Workspace, verified: Verify) -> None:
    set_attribute(old.flow_file("c", "wide"), source="/gone.mkv")

    (fault,) = verified(old, fix=True).faults

    assert (fault.subject, fault.kind, fault.remake) == ("c/wide", "suspect flow", ())
    assert fault.detail.endswith("; it was not recomputed: its source is gone")


def test_flow_of_one_kernel_or_of_another_version_is_not_suspect(old: Workspace, verified: Verify) -> None:
    set_attribute(old.flow_file("c", "narrow"), stres_version="0.2.0")
    assert {subject for subject, _ in found(verified(old, depth="quick"))} == {"c/wide", "c/deadly"}

    for kind in ("frames", "flow"):
        old.artifact_file(kind, "c", "wide").unlink()
    assert verified(old, depth="quick").faults == []


# ------------------------------------------------------------------ processes


def test_a_process_computes_flow_of_one_width_only(
    two_widths: Workspace, old: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that no kernels of another width, however they were compiled, are in the process that judges."""
    monkeypatch.setattr(one_flow, "recompute", deadly.note_width)

    result = verify.run(verify.Config(old.root, workers=1))

    assert result.recomputed_videos == 3
    processes: dict[str, set[str]] = {}
    for path in old.flow.glob("* *"):
        process, width = path.name.split()
        processes.setdefault(process, set()).add(width)
    assert sorted(map(sorted, processes.values())) == [["200"], ["64"]]


@pytest.mark.parametrize(
    ("where", "function", "kind", "number"),
    [
        ("pipelines.verify.check_one", deadly.check_or_die, "damaged", 11),
        ("pipelines.verification.one_flow.recompute", deadly.recompute_or_die, "recomputation", 6),
    ],
)
def test_a_process_that_dies_while_verifying_is_named_with_its_video_and_the_exit_code_is_1(
    two_widths: Workspace, monkeypatch: pytest.MonkeyPatch, where: str, function: Any, kind: str, number: int
) -> None:
    monkeypatch.setattr(where, function)

    shown = CliRunner().invoke(app, ["verify", "-w", str(two_widths.root), "--workers", "1", "--json"])

    assert shown.exit_code == 1, shown.output
    document = json.loads(shown.stdout)
    (fault,) = document["faults"]
    assert (fault["subject"], fault["kind"]) == ("c/deadly", kind)
    assert f"the worker process died (killed by signal {number}) on this video" in fault["detail"]
    assert document["recomputed_videos"] == 2
    assert "  c/deadly: " in shown.stderr


def test_decoding_on_the_way_to_a_field_is_progress(two_widths: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A film may decode for longer than a process without progress is waited for."""
    monkeypatch.setattr(one_flow, "_REPORTED", 2)
    told: list[int] = []
    ((report,), _) = verify._check_each(verify._tasks(two_widths, "stored")[0][:1], 1, lambda progress: None)
    (task,) = recomputing.flow_tasks([report], "stored")

    assert one_flow.recompute(task, told.append).fields == 3
    assert told.count(0) >= task.fields(FIELDS)[-1] // 2
    assert sum(told) == 3


def test_what_was_computed_again_is_said_with_what_was_not(workspace: Workspace) -> None:
    set_attribute(workspace.flow_file(*ONE), source="/gone.mkv")

    shown = CliRunner().invoke(app, ["verify", "-w", str(workspace.root), "--workers", "1"])

    assert shown.exit_code == 0, shown.output
    assert "the flow of 8 videos was recomputed (24 fields); not recomputed: of 1 its source is gone" in (
        shown.stdout.splitlines()
    )


# ------------------------------------------------------------------ marks


def test_videos_stored_though_truncated_or_damaged_are_told_and_no_fault(
    workspace: Workspace, verified: Verify
) -> None:
    other = ("fall", "v_fall_g01_c01")
    for kind in ("frames", "flow"):
        set_attribute(workspace.artifact_file(kind, *ONE), truncated=True, decoded_frames=FRAMES)
        set_attribute(workspace.artifact_file(kind, *other), damaged=True, damaged_frames=3)

    result = verified(workspace)

    assert (result.faults, result.truncated, result.damaged) == ([], ["/".join(ONE)], ["/".join(other)])
    shown = CliRunner().invoke(app, ["verify", "-w", str(workspace.root), "--quick", "--workers", "1"])
    line = (
        f"stored although incomplete: 1 truncated (--allow-truncated): {'/'.join(ONE)}; 1 damaged (--allow-damaged): "
    )
    assert f"{line}{'/'.join(other)}" in shown.stdout.splitlines()


@pytest.mark.parametrize(
    "marks",
    [
        {"truncated": True, "decoded_frames": 3},
        {"damaged": True, "damaged_frames": 0},
        {"damaged": True, "damaged_frames": FRAMES + 1},
        {"damaged": True},
    ],
    ids=str,
)
def test_marks_that_contradict_the_frames_are_inconsistent(
    workspace: Workspace, verified: Verify, marks: dict[str, Any]
) -> None:
    set_attribute(workspace.flow_file(*ONE), **marks)

    assert found(verified(workspace, depth="quick")) == {("/".join(ONE), "inconsistent")}
