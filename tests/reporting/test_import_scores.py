"""Scores of other programs as runs: found by name, checked against split lists, and reported as ours are."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from typer.testing import CliRunner

from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.metrics import stream_metrics
from pipelines.evaluation.scores import read_scores
from pipelines.importing.scores import Config, Result, run
from pipelines.report import Config as ReportConfig
from pipelines.report import run as report
from pipelines.reporting.compute import load
from pipelines.reporting.evaluations import find_evaluations
from pipelines.storage.atomic import read_json
from pipelines.storage.workspace import Workspace
from pipelines.verification.runs import FolderTask
from stres_cli.app import app

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

CLASSES = ["Jump", "RunFast", "walk"]
TEST = ["Jump/v_a", "RunFast/v_b", "RunFast/v_c", "walk/v_a"]
TABLE = np.array([[4, 1, 0], [0, 1, 3], [1, 2, 3], [0.5, 0, 1]])


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "testlist01.txt").write_text("".join(f"{video}.avi\n" for video in TEST))
    (folder / "trainlist01.txt").write_text("Jump/v_t.avi 1\nRunFast/v_u.avi 2\nwalk/v_v.avi 3\n")
    return folder


def imported(tmp_path: Path, file: Path, **settings: object) -> Result:
    return run(Config(tmp_path / "work", **{"name": "other", "fused": file, **settings}))


def npz(tmp_path: Path, **arrays: object) -> Path:
    np.savez(tmp_path / "a.npz", **{"scores": TABLE, **arrays})
    return tmp_path / "a.npz"


def test_rows_become_the_test_videos_of_the_lists_in_their_order_whatever_the_spelling(
    tmp_path: Path, lists: Path
) -> None:
    names = ["walk/v_a.avi", "V_C", "run_fast/v_b.mp4", "./Jump/v_a", "v_t.avi", "v_z"]
    rows = np.vstack([TABLE[[3, 2, 1, 0]], TABLE[:2]])[:, [2, 0, 1]]
    file = npz(tmp_path, videos=names, scores=rows, classes=["walk", "jump", "run fast"])
    result = imported(tmp_path, file, splits=lists)
    scores = read_scores(Path(result.folder) / "scores.h5")
    assert (scores.videos, scores.classes, list(scores.streams)) == (TEST, CLASSES, ["fused"])
    np.testing.assert_array_equal(scores.fused, TABLE.astype(np.float32))
    np.testing.assert_array_equal(scores.labels, [0, 1, 1, 2])
    assert result.top1 == {"fused": 0.5}
    assert result.ignored == {"for training": ("Jump/v_t",), "in no list": ("v_z",)}
    assert not FolderTask("scores", Workspace(tmp_path / "work"), Path(result.folder), "full").check()


def test_streams_are_fused_with_the_weight_as_their_numbers_are(tmp_path: Path) -> None:
    names, rgb, flow = ["Jump/a", "walk/b", "RunFast/c"], softmax(TABLE[:3], axis=1), softmax(-TABLE[:3], axis=1)
    np.savez(tmp_path / "two.npz", names=names, rgb=rgb, flow=flow)
    two = {"fused": None, "appearance": tmp_path / "two.npz:rgb", "motion": tmp_path / "two.npz:flow"}
    result = imported(tmp_path, Path(), **two, fusion_weight=0.3)
    scores = read_scores(Path(result.folder) / "scores.h5")
    np.testing.assert_allclose(softmax(scores.appearance, axis=1), rgb, atol=1e-6)
    np.testing.assert_allclose(softmax(scores.fused, axis=1), 0.3 * rgb + 0.7 * flow, atol=1e-6)
    assert result.holds == {"appearance": "probabilities", "motion": "probabilities"}
    inputs = load(Workspace(tmp_path / "work"), find_evaluations(Workspace(tmp_path / "work"), "other", None, ()))
    assert inputs.evaluations[0].fusion == (0.3, "softmax")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([0, 2, 1], CLASSES),
        ([1, 3, 2], CLASSES),
        (["Jump", "walk", "runfast"], CLASSES),
        (["-1", "1.5", "1"], ["-1", "1", "1.5"]),  # but for punctuation the same as others
    ],
)
def test_labels_are_names_or_numbers_of_columns_from_0_or_1(
    tmp_path: Path, labels: list[object], classes: list[str]
) -> None:
    file = npz(tmp_path, videos=["a", "b", "c"], scores=TABLE[:3], classes=classes, labels=labels)
    scores = read_scores(Path(imported(tmp_path, file).folder) / "scores.h5")
    assert scores.videos == [f"{classes[0]}/a", f"{classes[2]}/b", f"{classes[1]}/c"]


def test_a_list_and_a_file_of_classes_name_what_npy_does_not(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", TABLE[:3])
    (tmp_path / "val.txt").write_text("videos/a.mp4 2\nvideos/b.mp4 0\nvideos/c.mp4 1\n")  # as mmaction2's
    (tmp_path / "names.txt").write_text("walk\nJump\nRunFast\n")
    with pytest.raises(UsageError, match="does not name its videos: name them by --list"):
        imported(tmp_path, tmp_path / "a.npy")
    with pytest.raises(UsageError, match="nothing names the classes of its 3 columns"):
        imported(tmp_path, tmp_path / "a.npy", list=tmp_path / "val.txt")
    settings = {"list": tmp_path / "val.txt", "classes": tmp_path / "names.txt"}
    scores = read_scores(Path(imported(tmp_path, tmp_path / "a.npy", **settings).folder) / "scores.h5")
    assert (scores.videos, scores.classes) == (["RunFast/a", "walk/b", "Jump/c"], CLASSES)
    np.testing.assert_array_equal(scores.fused, TABLE[:3, [1, 2, 0]].astype(np.float32))


def test_what_the_lists_contradict_is_refused_and_what_lacks_is_told(tmp_path: Path, lists: Path) -> None:
    file = npz(tmp_path, videos=["v_b", "v_c"], scores=TABLE[:2], labels=[1, 2])
    with pytest.raises(UsageError, match=r"gives v_c the label walk, but .* has it as RunFast/v_c"):
        imported(tmp_path, file, splits=lists)
    with pytest.raises(UsageError, match="two rows for RunFast/v_b"):
        imported(tmp_path, npz(tmp_path, videos=["v_b", "v_b.avi"], scores=TABLE[:2]), splits=lists)
    with pytest.raises(MissingError, match=r"none of 1 video .* is a test video of split 1"):
        imported(tmp_path, npz(tmp_path, videos=["v_t"], scores=TABLE[:1]), splits=lists)
    with pytest.raises(UsageError, match="has no split 4: give one of 1"):
        imported(tmp_path, file, splits=lists, split=4)
    with pytest.raises(UsageError, match="other classes: it lacks walk and has the unknown swim"):
        imported(tmp_path, npz(tmp_path, videos=TEST, classes=["Jump", "RunFast", "swim"]), splits=lists)
    result = imported(tmp_path, npz(tmp_path, videos=["v_b"], scores=[[1, 1, 1]]), splits=lists)
    assert (result.missing, result.constant) == (("Jump/v_a", "RunFast/v_c", "walk/v_a"), ("RunFast/v_b",))
    assert read_json(Path(result.folder) / "results.json")["missing"] == list(result.missing)


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    file = npz(tmp_path, videos=TEST)
    assert not Path(imported(tmp_path, file, dry_run=True).folder).exists()
    imported(tmp_path, file)
    with pytest.raises(UsageError, match="scores were imported under that name, choose another or add --overwrite"):
        imported(tmp_path, file)
    imported(tmp_path, file, overwrite=True)
    (tmp_path / "work" / "runs" / "trained").mkdir(parents=True)
    with pytest.raises(UsageError, match="--name trained: there is a run of that name"):
        imported(tmp_path, file, name="trained")
    with pytest.raises(UsageError, match="nothing to import"):
        Config(tmp_path, "x")
    with pytest.raises(UsageError, match="--fusion-weight is for --appearance and --motion"):
        Config(tmp_path, "x", appearance=file, fusion_weight=0.4)


@pytest.mark.usefixtures("no_pictures")
def test_the_command_tells_what_it_found_and_the_report_takes_it(tmp_path: Path, lists: Path) -> None:
    file, work = npz(tmp_path, videos=[*TEST[:3], "v_z"]), tmp_path / "work"
    words = ["import-scores", "-w", str(work), "--name", "other", "--motion", str(file), "--splits", str(lists)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    for line in ("3 videos of 3 classes, split 1", "top-1 33.3 %", "1 test video without scores: walk/v_a", "v_z"):
        assert line in shown.stdout
    result = report(ReportConfig(work))
    assert (result.name, result.headline, result.unscored) == ("other", "motion", 1)


@pytest.mark.skipif(not (REAL_DATA / "twostream_scores").is_dir(), reason="needs ../shared/data/twostream_scores")
@pytest.mark.parametrize(
    ("name", "lists", "idt", "expected"),
    [
        ("hmdb", "hmdb51", "idt{split}", [54.40, 65.21, 71.48, 57.23, 75.56]),
        ("ucf", "ucf101", "", [87.00, 90.51, 94.54, 84.49, 95.13]),
    ],
)
def test_real_networks_and_idt_have_their_known_accuracies(
    tmp_path: Path, name: str, lists: str, idt: str, expected: list[float]
) -> None:
    """SeqVLAD's two streams, 1 to 1.5, and 0.75 to 0.25 normalized with improved dense trajectories: those from
    the file (UCF101), or from a run (HMDB51)."""
    workspace, scores = Workspace(tmp_path), REAL_DATA / "twostream_scores"
    for split in (1, 2, 3):
        file = scores / f"{name}_split{split}.npz"
        settings = {"split": split, "splits": REAL_DATA / "splits" / lists}
        streams = {"appearance": Path(f"{file}:rgb"), "motion": Path(f"{file}:flow")}
        run(Config(tmp_path, f"net{split}", **streams, fusion_weight=0.4, **settings))
        if idt:
            run(Config(tmp_path, f"idt{split}", fused=Path(f"{file}:idt"), **settings))
    evaluations = find_evaluations(workspace, "net{split}", None, (1, 2, 3))
    other = Path(idt or f"{scores}/{name}_split{{split}}.npz:idt")
    tables = load(workspace, evaluations, other=other, weight=0.25, space="l2").tables
    found = [100 * stream_metrics(tables, stream).top1 for stream in tables[0].streams]
    np.testing.assert_allclose(found, expected, atol=0.005)
