"""What a report sets beside a run: another run, another program's scores, published results, the clips themselves."""

import csv
import html
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score

from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.scores import read_scores
from pipelines.report import Config, Result, run
from pipelines.reporting import thumbnails
from pipelines.storage.workspace import Workspace
from stres_cli.console import PlainConsole
from stres_cli.report_view import render

Evaluate = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("no_pictures")


def rows_of(result: Result, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(result.files[name]).read_text("utf-8"))))


# ------------------------------------------------------------------ another run


def test_two_runs_are_compared_by_mcnemars_test(workspace: Workspace, evaluate: Evaluate) -> None:
    paths = [evaluate(name, seed=seed) / "scores.h5" for seed, name in enumerate(("other", "mine"))]
    result = run(Config(workspace.root, run="mine", compare="other"))
    theirs, ours = (read_scores(path) for path in paths)
    hits = [scores.fused.argmax(axis=1) == scores.labels for scores in (ours, theirs)]
    only = [int((hits[0] & ~hits[1]).sum()), int((hits[1] & ~hits[0]).sum())]
    one = result.comparison.streams[-1]
    assert (one.first, one.only_first, one.only_second) == ("fused", *only)
    assert one.p_value == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    row = rows_of(result, "comparison.csv")[-1]
    assert (row["first_stream"], row["only_first"]) == ("fused", str(only[0]))
    assert "Compared with other (25-full)" in Path(result.files["report.html"]).read_text("utf-8")


def test_videos_that_were_others_in_the_compared_test_are_named(workspace: Workspace, evaluate: Evaluate) -> None:
    sources = [f"sha{number}" for number in range(30)]
    evaluate("mine", sources=sources)
    evaluate("same", sources=[*sources[:-1], "sha29+pictures"])  # of imported flow stres 0.1 said nothing
    evaluate("other", sources=[*sources[:-2], "another", "yet another"])
    evaluate("unknown")
    config = Config(workspace.root, run="mine")
    for name in ("same", "unknown"):
        assert run(replace(config, compare=name)).comparison.other_sources == ()
    result = run(replace(config, compare="other"))
    assert result.comparison.other_sources == ("jump/v28", "jump/v29")
    told = "2 videos were others in the other test (the sources' SHA-256 differ), and what differs may be theirs: "
    console = PlainConsole(width=80, file=io.StringIO())
    render(result, console)
    for text in (console.file.getvalue(), html.unescape(Path(result.files["report.html"]).read_text("utf-8"))):
        assert f"{told}jump/v28, jump/v29" in text


def test_the_compared_evaluation_is_found_by_protocol_step_or_alone(workspace: Workspace, evaluate: Evaluate) -> None:
    for protocol in ("late-25-full", "late-10-full", "joint1-10-full", "joint1-25-full"):
        evaluate("mine", protocol=protocol)

    def compared(what: str) -> str:
        return run(Config(workspace.root, run="mine", compare=what)).comparison.second_protocol

    evaluate("other", protocol="joint1-25-full")
    evaluate("other", protocol="newest")
    assert compared("mine/late") == "late-25-full"  # as that which is reported
    assert compared("mine/late-10-full") == "late-10-full"
    assert compared("other") == "joint1-25-full"
    assert compared("other/newest") == "newest"


def test_splits_are_compared_together(workspace: Workspace, evaluate: Evaluate) -> None:
    for split in (1, 2):
        evaluate(f"split{split}", split, "joint1-a")
        evaluate(f"split{split}", split, "late-a", seed=1)
    config = Config(workspace.root, protocol="joint1-a", splits=(1, 2), compare="split{split}/late")
    assert run(config).comparison.videos == 60


@pytest.mark.parametrize(
    ("compare", "error", "message"),
    [
        ("mine", UsageError, "--compare mine is the very evaluation that is reported.*--compare mine/late"),
        ("mine/joint7", MissingError, "not been evaluated under a step or protocol 'joint7', only under 25-full"),
        ("nobody", MissingError, "run 'nobody' has not been evaluated"),
        ("other", UsageError, "tested on other videos: only the first has bend/v8, bend/v9, jack/v16 and"),
        (
            "split2",
            UsageError,
            "--compare asks for split 1, but run 'split2' is of split 2: name a run of",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(
    workspace: Workspace, evaluate: Evaluate, compare: str, error: type[Exception], message: str
) -> None:
    evaluate("split2", split=2)
    evaluate("other", videos=8)
    evaluate("mine")
    with pytest.raises(error, match=message):
        run(Config(workspace.root, run="mine", compare=compare))


# ------------------------------------------------------------------ another program


def write_csv(path: Path, videos: list[str], scores: np.ndarray) -> Path:
    rows = [",".join([video, *map(repr, row)]) for video, row in zip(videos, scores.tolist(), strict=True)]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_scores_of_another_program_are_fused_in(workspace: Workspace, evaluate: Evaluate, tmp_path: Path) -> None:
    scores = read_scores(evaluate() / "scores.h5")
    theirs = np.random.default_rng(5).normal(size=(30, 3)) + 1.5 * np.eye(3)[scores.labels]
    path = write_csv(tmp_path / "idt.csv", scores.videos, theirs)
    result = run(Config(workspace.root, with_file=path, with_weight=0.25))
    assert list(result.streams) == ["appearance", "motion", "fused", "idt", "fused + idt"]
    assert result.headline == "fused + idt"
    expected = accuracy_score(scores.labels, (0.25 * theirs + 0.75 * scores.fused).argmax(axis=1))
    assert result.streams["fused + idt"].top1 == pytest.approx(expected)
    assert result.fusion[1].used_top1 == pytest.approx(expected)
    assert result.output.endswith("split1+idt-0.25-25-full")
    assert "fused with idt, whose weight is 0.25" in result.citation
    assert "motion_effect.csv" in result.files
    clips = replace(result, protocol=result.protocol | {"temporal": "clips"}).citation
    assert "up to 25 frames a video as clips of frames as close together as in training" in clips
    assert "averaged: logits, before softmax" in Path(result.files["report.html"]).read_text("utf-8")


def test_each_split_has_its_own_file_where_the_name_says_so(
    workspace: Workspace, evaluate: Evaluate, tmp_path: Path
) -> None:
    for split in (1, 2):
        scores = read_scores(evaluate(f"split{split}", split) / "scores.h5")
        write_csv(tmp_path / f"idt{split}.csv", scores.videos, np.eye(3)[scores.labels])
    result = run(Config(workspace.root, splits=(1, 2), with_file=tmp_path / "idt{split}.csv"))
    assert result.streams["idt"].top1 == 1
    assert len(result.external.files) == 2


@pytest.mark.usefixtures("no_pictures")
def test_another_run_is_fused_in_by_its_name(workspace: Workspace, evaluate: Evaluate) -> None:
    theirs = read_scores(evaluate("other", seed=1, streams=["motion"]) / "scores.h5")
    ours = read_scores(evaluate("mine") / "scores.h5")
    result = run(Config(workspace.root, run="mine", with_file=Path("other"), with_weight=0.3, with_space="l2"))
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (theirs.motion, ours.fused))
    assert theirs.videos == ours.videos
    assert result.headline == "fused + other"
    expected = accuracy_score(ours.labels, (0.3 * first + 0.7 * second).argmax(axis=1))
    assert result.streams["fused + other"].top1 == pytest.approx(expected)
    assert result.external.notes()[0].endswith("weight 0.3; averaged: L2-normalised scores")
    with pytest.raises(UsageError, match="--with mine is the very evaluation that is reported"):
        run(Config(workspace.root, run="mine", with_file=Path("mine")))
    for name in ("scores.txt", str(workspace.root / "idt")):
        with pytest.raises(MissingError, match=f"--with {name}: there is neither a file of that name nor a run in "):
            run(Config(workspace.root, run="mine", with_file=Path(name)))


def test_files_of_one_name_have_a_folder_each(workspace: Workspace, evaluate: Evaluate, tmp_path: Path) -> None:
    scores = read_scores(evaluate() / "scores.h5")
    folders = []
    for name in ("one", 'an "other" & more', "one"):
        path = tmp_path / name / "idt.csv"
        path.parent.mkdir(exist_ok=True)
        write_csv(path, scores.videos, np.eye(3)[scores.labels])
        folders.append(Path(run(Config(workspace.root, with_file=path)).output).name)
    assert folders == ["split1+idt-25-full", "split1+idt-25-full-2", "split1+idt-25-full"]


def test_a_test_video_that_the_file_lacks_is_named(workspace: Workspace, evaluate: Evaluate, tmp_path: Path) -> None:
    scores = read_scores(evaluate() / "scores.h5")
    path = write_csv(tmp_path / "idt.csv", scores.videos[1:], np.eye(3)[scores.labels[1:]])
    with pytest.raises(MissingError, match=r"idt\.csv lacks 1 of the 30 test videos, bend/v0"):
        run(Config(workspace.root, with_file=path))


# ------------------------------------------------------------------ published results


def test_ucf101_stands_beside_its_published_results(workspace: Workspace, evaluate: Evaluate) -> None:
    known = "ApplyEyeMakeup BabyCrawling BalanceBeam CliffDiving FieldHockeyPenalty HandstandPushups JugglingBalls"
    names = [*f"{known} PommelHorse TaiChi YoYo".split(), *(f"Class{index}" for index in range(91))]
    evaluate(classes=names, videos=1)
    result = run(Config(workspace.root))
    rows = rows_of(result, "published.csv")
    assert {row["dataset"] for row in rows} == {"UCF101"}
    assert [row["method"] for row in rows][-1] == "split1, fused"
    page = Path(result.files["report.html"]).read_text("utf-8")
    assert "ST-ResNet + IDT" in page
    assert "of split 1 alone" in page


def test_files_of_an_earlier_report_that_no_longer_hold_are_removed(
    workspace: Workspace, evaluate: Evaluate, log_training: Callable[..., Path], tmp_path: Path
) -> None:
    evaluate()
    log = log_training() / "metrics.jsonl"
    assert (Path(run(Config(workspace.root)).output) / "training.csv").exists()
    log.unlink()
    output = Path(run(Config(workspace.root)).output)
    assert not (output / "training.csv").exists()
    others = [output / name for name in ("summary.pdf", "comparison.png", "mistakes.tex")]
    for path in others:
        path.touch()
    run(Config(workspace.root))
    assert all(path.exists() for path in others)  # a report has no such files


# ------------------------------------------------------------------ pictures of clips


def test_pictures_go_to_confident_mistakes_first_and_then_to_every_cell(
    workspace: Workspace, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = read_scores(evaluate(videos=40) / "scores.h5")
    guesses = scores.fused.argmax(axis=1)
    probability = np.exp(scores.fused) / np.exp(scores.fused).sum(axis=1, keepdims=True)
    wrong = np.flatnonzero(guesses != scores.labels)
    monkeypatch.setattr(thumbnails, "LISTED", 5)
    chosen = thumbnails.clips_to_show([scores], 60)
    surest = sorted(wrong.tolist(), key=lambda index: -probability[index].max())
    chosen = thumbnails.clips_to_show([scores], 60)
    soon = chosen[: 5 + 6]  # those that are listed, and one of each of the six cells off the diagonal
    assert set(surest[:5]) <= set(soon)
    assert {(scores.labels[index], guesses[index]) for index in soon if index in surest} == {
        (true, guess) for true in range(3) for guess in range(3) if true != guess
    }
    assert len(chosen) == len(set(chosen)) == 60
    assert any(guesses[index] == scores.labels[index] for index in chosen)


def test_the_pictures_stay_within_their_budget(
    workspace: Workspace, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = read_scores(evaluate() / "scores.h5")
    workspace.frames.mkdir()
    monkeypatch.setattr(thumbnails, "_thumbnail", lambda *_: thumbnails.Thumbnail("x" * 60, "x" * 40))
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 1050)
    assert len(thumbnails.thumbnails(workspace, [scores], 30, lambda done, total: None)) == 10
    assert len(thumbnails.thumbnails(workspace, [scores], 4, lambda done, total: None)) == 4


def test_damaged_clips_cost_their_own_picture_only(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate()
    path = workspace.frames_file("bend", "v0")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no HDF5")
    assert Path(run(Config(workspace.root)).files["report.html"]).exists()
