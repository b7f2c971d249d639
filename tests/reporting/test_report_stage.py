"""The stage `report`: which scores it takes, what it writes, and what it says when there is nothing to report."""

import csv
import dataclasses
import html
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from pipelines.datasets.groups import read_groups
from pipelines.errors import MissingError, StorageError, UsageError
from pipelines.evaluation.scores import read_scores
from pipelines.interface.wording import interval, percent
from pipelines.report import Config, Result, run
from pipelines.runtime.progress import Progress
from pipelines.storage.atomic import read_json, write_json
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.hdf5 import ArtifactError
from pipelines.storage.workspace import Workspace

Evaluate = Callable[..., Path]


def rows_of(result: Result, name: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(Path(result.files[name]).read_text("utf-8"))))


@pytest.mark.usefixtures("no_pictures")
def test_every_file_is_written_under_the_name_of_run_and_protocol(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate()
    result = run(Config(workspace.root))
    folder = workspace.reports / "split1-25-full"
    assert {path.name for path in folder.iterdir()} == set(result.files)
    for figure in ("confusion_matrix", "per_class", "motion_effect", "fusion_weight", "calibration"):
        assert {f"{figure}.csv", f"{figure}.png"} <= set(result.files)
    assert result.output == str(folder)


@pytest.mark.usefixtures("no_pictures")
def test_the_numbers_are_those_of_results_json(workspace: Workspace, evaluate: Evaluate) -> None:
    document = read_json(evaluate() / "results.json")
    result = run(Config(workspace.root))
    for stream in ("appearance", "motion", "fused"):
        assert result.interval_method == document["interval_method"]
        numbers = json.loads(json.dumps(dataclasses.asdict(result.streams[stream])))
        assert numbers == document[stream]


@pytest.mark.usefixtures("no_pictures")
def test_of_unbalanced_classes_their_mean_comes_first_on_the_page_too(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(videos=[9, 4, 1])
    result = run(Config(workspace.root))
    assert list(result.accuracies) == ["mean_class_accuracy", "top1"]
    assert result.notices[0].startswith("1 class has a single test video")
    page = Path(result.files["report.html"]).read_text()
    text = (
        "1 to 9 test videos a class (median 4), unbalanced: mean class comes first; always answering the most frequent"
    )
    assert f"{text} class is right in 64.3 %, chance is 33.3 %" in page
    mean = percent(result.streams["fused"].mean_class_accuracy)
    assert f"<strong>{mean}<small> %" in page
    evaluate(videos=[9, 5, 5])
    assert list(run(Config(workspace.root)).accuracies) == ["top1", "mean_class_accuracy"]


@pytest.mark.usefixtures("no_pictures")
def test_the_result_is_json(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate()
    document = json.loads(json.dumps(dataclasses.asdict(run(Config(workspace.root))), allow_nan=False))
    assert document["classes"] == ["bend", "jack", "jump"]


@pytest.mark.usefixtures("no_pictures")
def test_the_newest_evaluation_is_reported_unless_one_is_named(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate("old", protocol="25-full")
    evaluate("old", protocol="10-center", frames=10)
    evaluate("new", protocol="25-full")
    assert run(Config(workspace.root)).name == "new"
    assert run(Config(workspace.root, run="old")).protocol["frames"] == 10
    assert run(Config(workspace.root, run="old", protocol="25-full")).protocol["frames"] == 25
    assert run(Config(workspace.root, protocol="10-center")).name == "old"


@pytest.mark.usefixtures("no_pictures")
def test_the_confusion_matrix_file_names_its_classes_and_is_scikit_learns(
    workspace: Workspace, evaluate: Evaluate
) -> None:
    folder = evaluate(classes=("a,b", 'c"d', "größer"))
    header, *rows = rows_of(run(Config(workspace.root)), "confusion_matrix.csv")
    scores = read_scores(folder / "scores.h5")
    assert header[1:] == [row[0] for row in rows] == ["a,b", 'c"d', "größer"]
    counts = np.array([row[1:] for row in rows], dtype=int)
    np.testing.assert_array_equal(counts, confusion_matrix(scores.labels, scores.fused.argmax(axis=1)))


@pytest.mark.usefixtures("no_pictures")
def test_the_tables_hold_every_class_pair_and_stream(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate()
    result = run(Config(workspace.root))
    header, *rows = rows_of(result, "per_class.csv")
    assert header == ["class", "support", "precision", "recall", "f1", "appearance", "motion", "fused"]
    assert [(row[0], row[1]) for row in rows] == [("bend", "10"), ("jack", "10"), ("jump", "10")]
    assert float(rows[0][3]) == pytest.approx(result.per_class[0].recall, abs=1e-6)
    header, *rows = rows_of(result, "summary.csv")
    assert header[:7] == ["split", "run", "stream", "videos", "top1", "top1_low", "top1_high"]
    assert [row[2] for row in rows] == ["appearance", "motion", "fused"]
    pairs = rows_of(result, "confused_pairs.csv")[1:]
    wrong = sum(map(sum, result.confusion)) - sum(result.confusion[i][i] for i in range(3))
    assert sum(int(row[2]) for row in pairs) == wrong > 0


def test_pictures_are_pngs(workspace: Workspace, evaluate: Evaluate, log_training: Callable[..., Path]) -> None:
    evaluate()
    log_training()
    result = run(Config(workspace.root))
    pictures = [path for name, path in result.files.items() if name.endswith(".png")]
    assert len(pictures) == 6
    for path in pictures:
        assert cv2.imread(path).min() < 100


def test_for_a_publication_figures_are_vectors(
    workspace: Workspace, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate()
    monkeypatch.setattr("pipelines.reporting.files.png", lambda figure, about: b"not drawn")
    monkeypatch.setattr("pipelines.reporting.plots.drawing.Panel.svg", lambda panel: "")
    result = run(Config(workspace.root, publication=True))
    figures = [name.removesuffix(".png") for name in result.files if name.endswith(".png")]
    added = {f"{name}.{kind}" for name in figures for kind in ("svg", "pdf")}
    assert len(added) == 10
    assert {name for name in result.files if name.endswith((".svg", ".pdf"))} == added
    page = Path(result.files["report.html"]).read_text("utf-8")
    for name in figures:
        pdf = Path(result.files[f"{name}.pdf"]).read_bytes()
        assert pdf.startswith(b"%PDF")
        assert b"/CIDFontType2" in pdf
        assert b"/Type3" not in pdf
        drawing = ElementTree.parse(result.files[f"{name}.svg"]).getroot()
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert result.citation in "".join(drawing.itertext())  # its description
        assert all(f'<a href="{name}.{kind}" download>' in page for kind in ("csv", "png", "svg", "pdf"))
    monkeypatch.setattr("pipelines.reporting.plots.confusion_matrix", lambda result: None)
    run(Config(workspace.root))
    assert not any(Path(result.files[name]).exists() for name in added)


@pytest.mark.usefixtures("no_pictures")
def test_what_the_page_lets_one_download_holds_the_numbers_that_it_shows(
    workspace: Workspace, evaluate: Evaluate
) -> None:
    evaluate("other", seed=3)
    evaluate()
    result = run(Config(workspace.root, compare="other"))
    page = Path(result.files["report.html"]).read_text("utf-8")
    links = re.findall('<a href="([^"]*)" download>', page)
    assert set(links) == set(result.files) - {"report.html"}  # each file, and no other
    assert html.unescape(page).count(result.citation) == 11  # below the numbers, and in each section that has some
    for section, name in (("accuracy", "summary"), ("pairs", "confused_pairs")):
        text = re.search(f'<section id="{section}".*?</section>', page, re.DOTALL)[0]
        shown = [
            re.sub("<[^>]*>", "", cell).strip() for cell in re.findall("<td[^>]*>([^<]*|<button.*?</button>)", text)
        ]
        latex = Path(result.files[f"{name}.tex"]).read_text("utf-8")
        assert latex.startswith(f"% {result.citation}\n")
        header, *rows = rows_of(result, f"{name}.csv")
        for row in rows:
            for title, value in zip(header, row, strict=True):
                if re.fullmatch(r"-?\d+\.\d{6}", value) and not title.endswith(("_low", "_high")):
                    number = percent(float(value))
                    assert number in shown, (title, value)
                    assert re.search(rf"& {re.escape(number)}( \(| &| \\)", latex), (title, value)
    summary = Path(result.files["summary.tex"]).read_text()
    assert "30 test videos, split 1 · 25 frames a video as one sequence, whole frames and their mirror" in summary
    fused = result.streams["fused"]
    assert f"{percent(fused.top1)} ({interval(fused.top1_interval)})".replace("–", "--") in summary


@pytest.mark.usefixtures("no_pictures")
def test_near_duplicates_are_looked_for_where_frames_are(
    workspace: Workspace, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate()
    with pytest.raises(MissingError, match="--near-duplicates needs frames"):
        run(Config(workspace.root, near_duplicates=True))
    workspace.frames.mkdir()
    with pytest.raises(MissingError, match="needs to know the videos that split1 was trained on"):
        run(Config(workspace.root, near_duplicates=True))
    workspace.runs.joinpath("split1").mkdir(parents=True)
    for video, seed in {"bend/train": 1, "bend/v0": 1, "jump/v20": 2}.items():
        class_name, _, name = video.partition("/")
        with new_frames_file(workspace.frames_file(class_name, name)) as frames:
            shown = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            frames.append(cv2.imencode(".jpg", shown)[1].ravel())
            frames.finish({"source_sha256": video})
    monkeypatch.setattr("pipelines.report.Run.split", lambda run: SimpleNamespace(train=["bend/train"], set_name=""))
    workspace.splits.mkdir()
    (workspace.splits / "trainlist01.txt").write_text("bend/train.avi 1\n")
    write_json(workspace.splits / "groups.json", {"bend/v1": "scene", "bend/v2": "scene"})
    result = run(Config(workspace.root, near_duplicates=True))
    assert rows_of(result, "near_duplicates.csv")[1:] == [["1", "bend/v0", "bend/train", "true", "0"]]
    groups = read_groups(
        Path(result.files["near_duplicate_groups.csv"]), ["bend/train", *(f"bend/v{n}" for n in range(4))]
    )
    assert groups["bend/train"] == groups["bend/v0"] != groups["bend/v1"]
    assert groups["bend/v1"] == groups["bend/v2"] != groups["bend/v3"]  # as the splits were made
    assert len(rows_of(result, "near_duplicate_groups.csv")) == 1 + 31
    assert result.notices == ["1 test is of a video whose near duplicate was trained on (near_duplicates.csv)"]
    page = Path(result.files["report.html"]).read_text("utf-8")
    assert "in split 1" in page
    (row,) = re.findall(r'<tr><td class="clip">(bend/v0<img .*?)</tr>', page)
    assert row.count('<img src="data:image/webp;base64,') == 2


@pytest.mark.usefixtures("no_pictures")
def test_a_single_stream_is_reported_alone(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(streams=("motion",))
    result = run(Config(workspace.root))
    assert (result.headline, list(result.streams)) == ("motion", ["motion"])
    assert rows_of(result, "per_class.csv")[0][5:] == ["motion"]
    assert ">fused<" not in Path(result.files["report.html"]).read_text("utf-8")


@pytest.mark.usefixtures("no_pictures")
def test_videos_that_were_not_scored_are_told(workspace: Workspace, evaluate: Evaluate) -> None:
    folder = evaluate()
    document = read_json(folder / "results.json")
    write_json(folder / "results.json", document | {"missing": ["bend/x"], "failed": ["jack/y", "jack/z"]})
    result = run(Config(workspace.root))
    assert result.unscored == 3
    assert "3 test videos were not scored" in Path(result.files["report.html"]).read_text("utf-8")


@pytest.mark.usefixtures("no_pictures")
def test_the_output_folder_can_be_chosen(workspace: Workspace, evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate()
    run(Config(workspace.root, output=tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "report.html").is_file()
    assert not workspace.reports.exists()


@pytest.mark.usefixtures("no_pictures")
def test_progress_counts_the_files(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate()
    seen: list[Progress] = []
    number = len(run(Config(workspace.root), seen.append).files)
    assert [report.done for report in seen] == list(range(number + 1))
    assert {(report.total, report.unit) for report in seen} == {(number, "files")}


# ------------------------------------------------------------------ several splits


@pytest.mark.usefixtures("no_pictures")
def test_splits_are_averaged_and_their_counts_summed(workspace: Workspace, evaluate: Evaluate) -> None:
    for split in (1, 2, 3):
        evaluate(f"split{split}", split, videos=6 * split)
    result = run(Config(workspace.root, splits=(1, 2, 3)))
    assert "of the splits" in result.interval_method["top1"]
    assert result.output.endswith("split1+2+3-25-full")
    assert result.videos == sum(map(sum, result.confusion)) == 108
    top1 = [split.streams["fused"].top1 for split in result.splits]
    assert result.streams["fused"].top1 == pytest.approx(np.mean(top1))
    assert result.pooled["fused"].top1 == pytest.approx(np.average(top1, weights=[18, 36, 54]))
    assert result.pooled["fused"].top1 == pytest.approx(np.trace(result.confusion) / 108)
    assert result.pooled["fused"].top1 != pytest.approx(result.streams["fused"].top1)
    rows = rows_of(result, "summary.csv")[1:]
    assert [row[0] for row in rows] == [*"111222333", "mean", "mean", "mean", "pooled", "pooled", "pooled"]


@pytest.mark.usefixtures("no_pictures")
def test_runs_of_other_names_are_found_by_a_pattern(workspace: Workspace, evaluate: Evaluate) -> None:
    for split in (1, 2):
        evaluate(f"wide-{split}", split)
    assert run(Config(workspace.root, run="wide-{split}", splits=(1, 2))).name == "wide-1+2"


@pytest.mark.usefixtures("no_pictures")
def test_the_newest_protocol_that_all_splits_share_is_taken(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate("split1", 1, "shared")
    evaluate("split2", 2, "shared")
    evaluate("split2", 2, "newer")
    assert run(Config(workspace.root, splits=(1, 2))).protocol_name == "shared"


def test_a_split_without_scores_is_named(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate("split1", 1)
    with pytest.raises(MissingError, match=r"run 'split2' has not been evaluated .*only split1.*`stres evaluate`"):
        run(Config(workspace.root, splits=(1, 2)))


def test_splits_without_a_common_protocol_are_named(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate("split1", 1, "a")
    evaluate("split2", 2, "b")
    with pytest.raises(MissingError, match=r"split1: a; split2: b.*`stres evaluate`"):
        run(Config(workspace.root, splits=(1, 2)))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"split": 5}, "split 2, but run 'split2' is of split 5"),
        (
            {"classes": ("x", "y", "z")},
            r"differ in their classes.*: 'split1' alone knows bend, .* 'split2' alone knows x, y, z; train ",
        ),
        ({"frames": 10}, "differ in their protocols"),
        ({"streams": ("motion",)}, "differ in their streams"),
    ],
)
def test_splits_that_do_not_belong_together_are_refused(
    workspace: Workspace, evaluate: Evaluate, second: dict[str, object], message: str
) -> None:
    evaluate("split1", 1)
    evaluate(**({"run": "split2", "split": 2} | second))
    with pytest.raises(UsageError, match=message):
        run(Config(workspace.root, splits=(1, 2)))


# ------------------------------------------------------------------ what goes wrong


def test_without_a_workspace_the_message_tells_how_to_make_one(workspace: Workspace) -> None:
    with pytest.raises(MissingError, match="there is no workspace"):
        run(Config(workspace.root))


def test_without_scores_the_message_names_evaluate(workspace: Workspace) -> None:
    workspace.root.mkdir(parents=True, exist_ok=True)
    with pytest.raises(MissingError, match="run `stres evaluate` first"):
        run(Config(workspace.root))


def test_an_unknown_protocol_is_echoed_with_the_known_ones(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate()
    with pytest.raises(MissingError, match=r"'99-full', only under 25-full"):
        run(Config(workspace.root, protocol="99-full"))


def test_an_evaluation_without_results_is_not_finished(workspace: Workspace, evaluate: Evaluate) -> None:
    (evaluate() / "results.json").unlink()
    with pytest.raises(MissingError, match="`stres evaluate`"):
        run(Config(workspace.root))


def test_results_that_contradict_the_scores_are_refused(workspace: Workspace, evaluate: Evaluate) -> None:
    folder = evaluate()
    write_json(folder / "results.json", read_json(folder / "results.json") | {"videos": 7})
    with pytest.raises(ArtifactError, match=r"scores of 30 videos.* tells of 7"):
        run(Config(workspace.root))


def test_results_without_a_protocol_are_refused(workspace: Workspace, evaluate: Evaluate) -> None:
    write_json(evaluate() / "results.json", {"split": 1})
    with pytest.raises(ArtifactError, match="lacks a usable field 'protocol'"):
        run(Config(workspace.root))


def test_a_report_folder_that_cannot_be_made_is_an_error_of_storage(
    workspace: Workspace, evaluate: Evaluate, tmp_path: Path
) -> None:
    evaluate()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        run(Config(workspace.root, output=tmp_path / "file" / "report"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": "../elsewhere"}, "--run '../elsewhere' is not a name"),
        ({"protocol": ""}, "--protocol '' is not a name"),
        ({"run": "mine", "splits": (1, 2)}, r"--run 'mine' names one run.*\{split\}"),
        ({"splits": (1, 1)}, "--splits 1,1 names one of them twice"),
        ({"compare": "mine", "splits": (1, 2)}, r"--compare 'mine' names one run.*\{split\}"),
        ({"compare": "mine/../late"}, "--compare 'mine/../late' is not a name"),
        ({"with_weight": 1.5}, "--with-weight 1.5: give a number from 0 to 1"),
        ({"with_space": "odds"}, "--with-space 'odds' is not known: give one of auto, logits, softmax, l2"),
        ({"thumbnails": -1}, "--thumbnails -1"),
    ],
)
def test_contradictory_settings_are_refused(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Config(tmp_path, **settings)


def test_importing_the_stage_loads_no_heavy_library() -> None:
    code = "import sys, pipelines.report; print(sorted({'numpy', 'h5py', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]"
