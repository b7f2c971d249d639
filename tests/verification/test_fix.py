"""`verify --fix`: what is broken is queued, and the same extracting commands make it again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines import extract_flow, extract_frames, verify
from pipelines.storage.failures import Failure, read_failures, record_outcomes
from pipelines.storage.flow_file import FLOW_SCHEMA
from pipelines.storage.hdf5 import peek
from pipelines.storage.workspace import Workspace
from pipelines.verification.requeue import Requeued, commands
from tests.verification.planting import FLOW, fields_of, found, rewrite_flow, set_attribute

Verify = Callable[..., verify.Result]

DAMAGED, TURNED, LOST = ("drift", "v_drift_g00_c01"), ("fall", "v_fall_g01_c01"), ("rise", "v_rise_g02_c01")


@pytest.fixture
def broken(workspace: Workspace) -> Workspace:
    """Frames of one video damaged, flow of another turned, of a third lost."""
    workspace.frames_file(*DAMAGED).write_bytes(b"damaged")
    path = workspace.flow_file(*TURNED)
    rewrite_flow(path, fields_of(path)[:, ::-1])
    workspace.flow_file(*LOST).unlink()
    return workspace


def rows(workspace: Workspace) -> dict[tuple[str, str, str], Failure]:
    return {row.key: row for row in read_failures(workspace)}


def test_nothing_is_changed_unless_asked_for(broken: Workspace, verified: Verify) -> None:
    before = {path: path.stat().st_mtime_ns for path in broken.root.rglob("*") if path.is_file()}

    result = verified(broken)

    assert (result.requeued, result.commands) == ([], [])
    assert {path: path.stat().st_mtime_ns for path in broken.root.rglob("*") if path.is_file()} == before


def test_what_is_broken_is_set_aside_and_a_row_until_it_is_made_again(
    broken: Workspace, videos: Path, verified: Verify
) -> None:
    turned = broken.flow_file(*TURNED).read_bytes()
    record_outcomes(broken, failed=[Failure("evaluate", *TURNED, "/a/path", "of another stage")])

    result = verified(broken, fix=True)

    assert {(one.kind, one.class_name, one.video) for one in result.requeued} == {
        ("frames", *DAMAGED),
        ("flow", *TURNED),
        ("flow", *LOST),
    }
    assert (broken.set_aside / "frames" / DAMAGED[0] / f"{DAMAGED[1]}.h5").read_bytes() == b"damaged"
    assert (broken.set_aside / "flow" / TURNED[0] / f"{TURNED[1]}.h5").read_bytes() == turned
    assert not broken.frames_file(*DAMAGED).exists()
    assert not broken.flow_file(*TURNED).exists()
    recorded = rows(broken)
    assert set(recorded) == {
        ("extract-frames", *DAMAGED),
        ("extract-flow", *TURNED),
        ("extract-flow", *LOST),
        ("evaluate", *TURNED),
    }
    row = recorded["extract-flow", *TURNED]
    assert row.reason.startswith("verify found turned flow: it fits its frames with x and y swapped")
    assert row.path == str(videos / TURNED[0] / f"{TURNED[1]}.mkv")
    assert row.time

    work = f"-w {broken.root}"
    assert result.commands == [
        f"stres extract-frames {videos} {work}",
        f"stres extract-flow {videos} --method farneback --method-option winsize=9 --bound 5 {work}",
    ]
    assert {kind for _, kind in found(verified(broken))} == {"missing", "split names absent videos"}

    frames = extract_frames.run(extract_frames.Config(broken.root, str(videos), workers=1))
    flow = extract_flow.run(extract_flow.Config(broken.root, str(videos), workers=1, **FLOW))
    assert (frames.done, flow.done) == (1, 2)
    assert set(rows(broken)) == {("evaluate", *TURNED)}
    assert found(verified(broken, depth="full")) == set()


def test_a_second_fix_loses_nothing(broken: Workspace, verified: Verify) -> None:
    verified(broken, fix=True)
    before = rows(broken)

    result = verified(broken, fix=True)

    assert set(rows(broken)) == set(before)
    assert len(result.requeued) == 3
    assert (broken.set_aside / "frames" / DAMAGED[0] / f"{DAMAGED[1]}.h5").exists()


def test_a_video_broken_in_both_stays_known(workspace: Workspace, verified: Verify) -> None:
    for kind in ("frames", "flow"):
        workspace.artifact_file(kind, *DAMAGED).write_bytes(b"damaged")

    verified(workspace, fix=True)
    result = verified(workspace)

    assert ("/".join(DAMAGED), "missing") in found(result)
    assert set(rows(workspace)) == {("extract-frames", *DAMAGED), ("extract-flow", *DAMAGED)}


def test_what_was_imported_is_to_be_imported_again(workspace: Workspace, verified: Verify) -> None:
    path = workspace.flow_file(*TURNED)
    pictures = "/theirs/u/v_fall_g01_c01/frame*.jpg /theirs/v/v_fall_g01_c01/frame*.jpg"
    rewrite_flow(path, fields_of(path)[:, ::-1], source=pictures, flow_input="imported")

    result = verified(workspace, fix=True)

    assert (result.sources_absent, len(result.faults)) == (0, 1)
    assert [(one.stage, one.source) for one in result.requeued] == [("import-flow", pictures)]
    (row,) = read_failures(workspace)
    aside = workspace.set_aside / "flow" / TURNED[0] / f"{TURNED[1]}.h5"
    assert (row.stage, row.path) == ("import-flow", str(aside))
    assert aside.exists()
    assert result.commands[0].startswith("stres import-flow DIR --method farneback")


def test_commands_name_what_was_asked_for_when_it_was_made(workspace: Workspace, verified: Verify) -> None:
    for path in workspace.flow.glob("*/*.h5"):
        made = peek(path, FLOW_SCHEMA)
        set_attribute(path, source_width=2 * made["width"], source_height=512, flow_input="jpeg")
    for path in workspace.frames.glob("*/*.h5"):
        set_attribute(path, source_width=128, source_height=512)  # of which 48 pixels are not what is made by itself
    reports, _ = verify._check_each(verify._tasks(workspace, "quick")[0], 1, lambda progress: None)
    usual = reports[0].artifacts["flow"].flow_settings
    lost = [Requeued("frames", "extract-frames", "a b", "v", "/data/my videos/a b/g/v.avi")]
    lost += [Requeued("flow", "extract-flow", "c", "w", "/else/where/w.avi")]

    made = commands(Workspace(Path("my work")), lost, reports, usual)

    assert made == [
        "stres extract-frames '/data/my videos' --short-side 48 -w 'my work'",
        "stres extract-flow --method farneback --method-option winsize=9 --bound 5 -w 'my work'",
    ]


def test_a_field_of_no_motion_is_no_reason_to_make_flow_again(workspace: Workspace, verified: Verify) -> None:
    """A picture that stands still for two frames has constant flow, which is right."""
    path = workspace.flow_file(*TURNED)
    fields = fields_of(path)
    fields[3] = np.array([128, 127], dtype=np.uint8)[:, None, None]
    rewrite_flow(path, fields)
    frames = workspace.frames_file(*TURNED)
    repeat_a_frame(frames, 3)

    assert verified(workspace, fix=True).requeued == []


def repeat_a_frame(path: Path, index: int) -> None:
    """Frame `index` in the place of the next, too."""
    from pipelines.storage.frames_file import FRAMES_SCHEMA, FrameFile, new_frames_file

    made = peek(path, FRAMES_SCHEMA)
    for name in ("schema", "stres_version", "content_sha256"):
        del made[name]
    with FrameFile(path) as file:
        jpegs = [file.read_jpeg(t) for t in range(len(file))]
    jpegs[index + 1] = jpegs[index]
    with new_frames_file(path) as writer:
        for jpeg in jpegs:
            writer.append(jpeg)
        writer.finish(made)
