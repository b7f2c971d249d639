"""The report in a terminal: nothing is wider than the terminal, nothing in a name is taken for markup."""

import dataclasses
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipelines.analysis.published import Method, Published
from pipelines.evaluation import metrics
from pipelines.evaluation.scores import read_scores
from pipelines.report import Config, Result, run
from pipelines.storage.workspace import Workspace
from stres_cli.confusion_view import abbreviations, render_confusion
from stres_cli.console import PlainConsole
from stres_cli.report_view import _accuracies, _classes, render

Evaluate = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def report(workspace: Workspace, evaluate: Evaluate) -> Result:
    evaluate(classes=("[red]bend", "jack\x1b[31m", "wave both hands"))
    return run(Config(workspace.root))


def shown(result: Result, width: int = 80, what: object = render) -> str:
    console = PlainConsole(width=width, file=io.StringIO(), highlight=False)
    what(result, console)
    return console.file.getvalue()


def test_it_shows_numbers_classes_pairs_matrix_and_files(report: Result) -> None:
    text = shown(report)
    for part in ("95 % intervals", "Classes", "Most confused pairs", "Confusion matrix", "report.html"):
        assert part in text
    assert f"{100 * report.streams['fused'].top1:.1f}" in text
    assert report.output in text


def test_what_a_figure_of_the_classes_is_and_what_it_is_called_stands_in_one_place(
    workspace: Workspace, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = metrics.CLASS_FIGURES | {"precision": metrics.ClassFigure("median rank", "rank", is_share=False)}
    monkeypatch.setattr(metrics, "CLASS_FIGURES", figures)
    evaluate()
    result = run(Config(workspace.root))
    text = shown(result, 120)
    named = "% but for median rank: median rank, recall and F1 of fused"
    assert f"in {named}" in text
    assert "prec" not in text
    place, value = next((i, row.precision) for i, row in enumerate(result.per_class) if 0 < (row.precision or 0) < 1)
    rank = f"{round(value, 3):g}"
    table = text[text.index(named) + len(named) :]
    assert table.index("rank") < table.index(rank)
    page = Path(result.files["report.html"]).read_text("utf-8")
    assert named in page
    assert f">{rank}</td>" in page
    assert f'"{rank}"' in page[page.index('"median rank":[') :].split("]")[0]
    assert rank in Path(result.files["per_class.csv"]).read_text("utf-8").splitlines()[1 + place].split(",")
    assert r"support & precision & recall (\%)" in Path(result.files["per_class.tex"]).read_text("utf-8")


def test_names_are_plain_text_without_control_characters(report: Result) -> None:
    text = shown(report)
    assert "[red]bend" in text
    assert "jack�[31m" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("number", [1, 9, 30, 101])
def test_every_line_but_paths_fits(workspace: Workspace, evaluate: Evaluate, width: int, number: int) -> None:
    evaluate(classes=[f"ALongNameForClassNumber{index}" for index in range(number)])
    result = dataclasses.replace(run(Config(workspace.root)), output="out")
    lines = shown(result, width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert any("mean class" in line for line in lines)


def test_the_matrix_shows_each_count_in_its_row(report: Result) -> None:
    lines = shown(report, what=render_confusion).splitlines()
    rows = [line.split()[-3:] for line in lines if line[3:].startswith(("[red]bend", "jack", "wave"))]
    assert rows == [[str(count) if count else "·" for count in row] for row in report.confusion]


def test_many_classes_are_reduced_to_the_worst_and_the_best(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(classes=[f"name{index:03}" for index in range(40)])
    text = shown(run(Config(workspace.root)))
    assert "Worst 10 classes" in text
    assert "Best 10 classes" in text
    assert "Confusion matrix" not in text


def test_a_terminal_too_narrow_for_the_matrix_is_sent_to_the_picture(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(classes=[f"name{index:03}" for index in range(30)])
    result = run(Config(workspace.root))
    assert "see confusion_matrix.png" in " ".join(shown(result, 40, render_confusion).split())


def test_splits_are_shown_with_their_mean(workspace: Workspace, evaluate: Evaluate) -> None:
    for split in (1, 2):
        evaluate(f"split{split}", split)
    text = shown(run(Config(workspace.root, splits=(1, 2))))
    assert "mean of 2 splits" in text
    assert text.count("appearance  mean") == 1


def test_a_faultless_run_has_no_confused_pairs(report: Result) -> None:
    assert "no video was misclassified" in shown(dataclasses.replace(report, confused=()))


@pytest.mark.parametrize(
    ("names", "codes"),
    [
        (["bend", "jack", "jump"], ["be", "ja", "ju"]),
        (["HighJump", "HulaHoop", "HandStand"], ["HJ", "HH", "HS"]),
        (["aa", "aa b", "a"], ["01", "02", "03"]),
        (["走る", "跳ぶ"], ["01", "02"]),
    ],
)
def test_abbreviations_are_two_letters_or_all_numbers(names: list[str], codes: list[str]) -> None:
    assert abbreviations(names) == codes


def test_what_stands_beside_a_run_is_shown(workspace: Workspace, evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate("other", seed=1)
    scores = read_scores(evaluate("mine") / "scores.h5")
    np.savez(tmp_path / "idt.npz", videos=np.array([*scores.videos, "bend/more"]), scores=np.ones((31, 3)))
    result = run(Config(workspace.root, run="mine", compare="other", with_file=tmp_path / "idt.npz"))
    text = " ".join(shown(result, 90).split())
    one = result.comparison.streams[-1]
    assert "Compared with other (25-full) stream only this only other difference p (McNemar)" in text
    assert f"fused + idt against fused {one.only_first} {one.only_second} {100 * one.difference:+.1f}" in text
    assert "averaged: logits, before softmax 1 of its videos are not in this test, such as bend/more" in text
    assert f"ECE) appearance {100 * result.calibration['appearance'].ece:.1f} %" in text
    assert text.count("which is not a test result") == 2
    assert f"{sum(effect.helped for effect in result.motion_effects)} videos right only with motion" in text


def test_published_results_are_shown_with_ours(report: Result) -> None:
    published = Published("UCF101", (Method("ST-ResNet", 0.934),))
    text = shown(dataclasses.replace(report, published=published))
    assert "Published results on UCF101" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["ST-ResNet", "93.4"] in lines
    assert ["this", "report,", "fused", f"{100 * report.streams['fused'].top1:.1f}"] in lines


@pytest.mark.parametrize("width", range(30, 121, 10))
def test_no_number_of_a_table_is_shortened_in_a_narrow_terminal(report: Result, width: int) -> None:
    def tables(result: Result, console: PlainConsole) -> None:
        for table in (_accuracies(result), _classes(result, result.per_class, console.width)):
            console.print(table)

    def numbers(width: int) -> Counter[str]:
        return Counter(re.findall(r"\S*\d\S*", shown(report, width, tables)))

    headings = Counter(["top-1", "top-5"])
    wanted = numbers(300)
    if width < 100:  # precision, recall and F1 are left to the files
        wanted -= Counter(
            f"{100 * v:.1f}" for row in report.per_class for v in (row.precision, row.recall, row.f1) if v
        )
    assert not wanted - headings - Counter(["F1"]) - numbers(width)
