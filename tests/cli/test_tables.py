"""Every table of every command, at every width of a terminal: all numbers are there, whole."""

import io
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.evaluation.estimation import EvaluationEstimate
from pipelines.predict import Config as PredictConfig
from pipelines.prediction.results import ClassProbability, Prediction, Result, TimelineFiles
from pipelines.train import Config
from pipelines.training.estimation import Estimate, StepEstimate
from pipelines.training.recipes import STEPS
from pipelines.verification.faults import Fault
from stres_cli import estimate_view, prediction_view, verify_view
from stres_cli.commands import evaluate, train
from stres_cli.console import PlainConsole
from stres_cli.tables import Table

WIDTHS = range(30, 121, 5)  # all of them take half a minute


def ui(console):
    return SimpleNamespace(out=console, finish=lambda *arguments, **options: None)


def predictions(console):
    names = ("playing a game of cards", "walk", "x")
    probabilities = {name: [1.0, 0.25, 0.125] for name in ("appearance", "motion", "fused")}
    top = [ClassProbability(name, share) for name, share in zip(names, probabilities["fused"], strict=True)]
    segments = [SimpleNamespace(start=3599.5, end=7261.0, class_name=names[0], probability=1.0)]
    timeline = TimelineFiles(segments, 7, "2 s", "1 s", 50, 25, {})
    one = Prediction("a.avi", None, 250, 25.0, top, probabilities, {}, 0)
    prediction_view._print_timeline(console, SimpleNamespace(timeline=timeline))
    console.print(prediction_view._table(one))


def evaluation(console):
    accuracy = {"top1": 1.0, "top5": 1.0, "mean_class_accuracy": 0.9876, "top1_interval": (0.8064, 1.0)}
    streams = dict.fromkeys(("appearance", "motion", "fused"), accuracy)
    about = {"step": "joint1", "classes": 101, "balance": {"unbalanced": False}}
    results = [{"protocol": {"frames": 25, "views": v}, **about, **streams} for v in "ab"]
    evaluations = [SimpleNamespace(results=one) for one in results]
    shown = SimpleNamespace(run="a-run-with-a-long-name", results=results[0], evaluations=evaluations)
    evaluate._show_table(SimpleNamespace(out=SimpleNamespace(say=console.print, print=console.print)), shown)


def dry_runs(console):
    step = StepEstimate("appearance", 9537, 123456, 100, 128, 0.123, 7, 12.5, 0.0943, 0.188, 1.5)
    estimate_view.show_training(ui(console), "a-run-with-a-long-name", Estimate.of([step], ["motion"]))
    estimate_view.show_evaluation(ui(console), "a-run", EvaluationEstimate(3783, 200, 0.123, 7, 1.25, 0.0123))


def recipe(console):
    train._show_recipe(ui(console), Config("nowhere", steps=STEPS))


def faults(console):
    found = [Fault("damaged", f"a/{letter}", "x.h5", "it is so") for letter in "abc"]
    result = SimpleNamespace(faults=found, counts={"damaged": 123456, "missing": 7})
    console.print(verify_view._table(result))


def rendered(view, width):
    console = PlainConsole(width=width, file=io.StringIO(), highlight=False, _environ={})
    view(console)
    return console.file.getvalue()


@pytest.mark.parametrize("view", [predictions, evaluation, dry_runs, recipe, faults])
def test_no_number_is_shortened_in_a_terminal_of_any_width(view):
    numbers = re.findall(r"[^\s│]*\d[^\s│]*", rendered(view, 300))
    assert len(numbers) > 1
    for width in WIDTHS:
        text = rendered(view, width)
        missing = Counter(numbers) - Counter(re.findall(r"[^\s│]*\d[^\s│]*", text))
        assert not missing, f"at {width} columns:\n{text}"
        assert max(len(line) for line in text.splitlines() if not line.startswith("about ")) <= width


def table(console):
    one = Table("class", box=None)
    one.add_column("top-1\nfused", justify="right")
    one.add_column("")
    one.add_row("a long name of a class", "100.0 %", "━" * 20)
    console.print(one)


def test_bars_go_first_then_names_are_shortened_and_at_last_each_value_has_its_line():
    bar, name = "━" * 20, "a long name of a class"
    assert f"{name} 100.0 % {bar}" in re.sub(" +", " ", rendered(table, 80))
    assert f"{name} 100.0 %" in re.sub(" +", " ", rendered(table, 40))
    assert bar not in rendered(table, 40)
    assert ["name", "of", "a"] in [line.split() for line in rendered(table, 20).splitlines()]
    assert "100.0 %" in rendered(table, 20)
    assert rendered(table, 14).splitlines()[-2:] == ["  top-1 fused", "    100.0 %"]


def test_a_table_that_begins_with_a_number_labels_it_where_each_value_has_its_line():
    def estimate(console):
        estimate_view.show_evaluation(ui(console), "a-run", EvaluationEstimate(3783, 0, 0.123, 7, 1.25, 0.0123))

    assert "  videos 3783" in rendered(estimate, 30).splitlines()


def test_where_nothing_could_be_predicted_no_next_command_is_named():
    config = PredictConfig(["half.mkv"], workspace=Path("w"))

    def shown(predictions):
        result = Result("r", "joint1", {}, ["a"], predictions, [], 1.0, 1.0, 1.0)
        return rendered(lambda console: prediction_view.show(ui(console), result, config), 200)

    one = Prediction("half.mkv", None, 25, 1.0, [ClassProbability("a", 1.0)], {"fused": [1.0]}, {}, 0)
    assert "; next: stres predict half.mkv --timeline" in shown([one])
    assert "0 videos" in shown([])
    assert "next" not in shown([])
