"""The HTML page and the pictures: self-contained, safe with any class name, drawn for few and for many classes."""

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from pipelines.drawing.figures import MOST_PIXELS, png
from pipelines.evaluation.scores import read_scores
from pipelines.report import Config, Result, run
from pipelines.reporting import html, plots
from pipelines.reporting.compute import compute, load
from pipelines.reporting.evaluations import find_evaluations
from pipelines.reporting.html import as_script
from pipelines.reporting.plots.drawing import RAMP
from pipelines.reporting.training_log import read_configurations, read_curves
from pipelines.storage.workspace import Workspace

Evaluate = Callable[..., Path]

HOSTILE = ("<script>alert(1)</script>", "$x_{1}$ & 100 %", "日本語 { }", "a" * 80)


@pytest.fixture
def hostile(workspace: Workspace, evaluate: Evaluate, no_pictures: None) -> Result:
    evaluate("\"><script>alert('run')<", classes=HOSTILE)
    return run(Config(workspace.root))


def page_of(result: Result) -> str:
    return Path(result.files["report.html"]).read_text("utf-8")


def data_of(result: Result) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page_of(result), re.DOTALL)
    return json.loads(text)


def test_a_name_cannot_become_markup(hostile: Result) -> None:
    page = page_of(hostile)
    assert page.count("<script") == 2  # the data and the page's own
    assert "<title>&#34;&gt;&lt;script&gt;alert(&#39;run&#39;)&lt;" in page
    assert data_of(hostile)["classes"] == list(HOSTILE)


def test_data_that_ends_a_script_stays_data() -> None:
    hostile = "</script><!--<script>&\u2028\udc80"
    text = as_script({"name": hostile})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": hostile}


def test_only_the_pages_own_script_may_run(hostile: Result) -> None:
    page = page_of(hostile)
    (allowed,) = re.findall(r"script-src 'sha256-([^']+)'", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() == allowed
    assert "default-src 'none'" in page


def test_the_page_needs_nothing_from_outside(hostile: Result) -> None:
    assert_needs_nothing_from_outside(page_of(hostile))


def assert_needs_nothing_from_outside(page: str) -> None:
    assert re.findall(r'(?:src|srcset)="', page) == []
    assert all(re.fullmatch(r"\w+\.(csv|tex|png|svg|pdf)", link) for link in re.findall(r'href="([^"]*)', page))
    assert "url(" not in page
    assert "@import" not in page
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_the_page_tells_protocol_configuration_and_provenance(
    workspace: Workspace, evaluate: Evaluate, log_training: Callable[..., Path], no_pictures: None
) -> None:
    evaluate()
    log_training()
    page = page_of(run(Config(workspace.root)))
    for text in ("<dd>sequence</dd>", "<dd>yes</dd>", "<dd>joint2</dd>", "stres/scores/1", "95 % interval"):
        assert text in page
    assert "<dt>steps.motion.lr</dt><dd>0.05</dd>" in page


def test_every_clip_is_there_with_its_best_classes(hostile: Result, workspace: Workspace) -> None:
    (path,) = workspace.scores.glob("*/*/scores.h5")
    scores, data = read_scores(path), data_of(hostile)
    clips = data["clips"]
    assert clips["ids"] == scores.videos
    assert clips["labels"] == scores.labels.tolist()
    best = np.array(clips["streams"]["motion"]["best"]).reshape(-1, clips["best"])
    np.testing.assert_array_equal(best[:, 0], scores.motion.argmax(axis=1))
    np.testing.assert_array_equal(best, np.argsort(-scores.motion, axis=1)[:, :5])
    units = np.array(clips["streams"]["motion"]["probability"]).reshape(-1, clips["best"])
    expected = np.exp(scores.motion) / np.exp(scores.motion).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(units[:, 0] / clips["unit"], expected.max(axis=1), atol=1e-4)


def test_training_curves_are_taken_from_the_log_as_far_as_it_is_whole(
    workspace: Workspace, evaluate: Evaluate, log_training: Callable[..., Path], no_pictures: None
) -> None:
    evaluate()
    log_training(updates=4000)
    result = run(Config(workspace.root))
    assert "Dashed" not in page_of(result)
    curves = read_curves(workspace, read_configurations(workspace, ["split1"]))
    panels = plots.training(result, curves).panels
    assert [panel.title for panel in panels] == [
        f"split1, {step}: {what}" for step in ("appearance", "joint1") for what in ("loss", "training accuracy")
    ]
    axes = Figure().subplots()
    panels[2].draw(axes)
    (line,) = axes.lines
    assert len(line.get_ydata()) == 200  # each the mean of two of 400 lines
    assert line.get_ydata()[0] == pytest.approx((2 / 10 + 2 / 20) / 2)
    assert Path(result.files["training.csv"]).read_text("utf-8").count("\n") == 801


def test_the_curves_of_the_base_streams_come_from_the_run_that_trained_them(
    workspace: Workspace, evaluate: Evaluate, log_training: Callable[..., Path], no_pictures: None
) -> None:
    evaluate("variant")
    log_training(run="variant", base="streams")
    log_training(run="streams")
    result = run(Config(workspace.root))
    assert re.findall("<figcaption>(.*), appearance: loss", page_of(result)) == ["streams", "variant"]
    assert "configuration of run streams" in page_of(result)


def test_the_page_of_a_large_data_set_stays_small(workspace: Workspace, evaluate: Evaluate, no_pictures: None) -> None:
    evaluate(classes=[f"ClassNumber{index}" for index in range(101)], videos=37)
    assert Path(run(Config(workspace.root)).files["report.html"]).stat().st_size < 1_000_000


def test_the_curves_of_the_page_say_what_they_show_and_stand_alone(
    workspace: Workspace, evaluate: Evaluate, log_training: Callable[..., Path], tmp_path: Path
) -> None:
    scores = read_scores(evaluate(classes=HOSTILE) / "scores.h5")
    other = tmp_path / 'a"<b>$x$\x1b.npz'
    np.savez(other, videos=np.array(scores.videos), scores=scores.motion)
    log = log_training(updates=40_000) / "metrics.jsonl"
    log.write_text('{"step": "joint1", "iteration": 5, "loss": 1, "validation_loss": 2}\n' + log.read_text("utf-8"))
    page = page_of(run(Config(workspace.root, with_file=other)))
    assert "Dashed with dots: of the videos held out of training." in page
    assert_needs_nothing_from_outside(page)
    drawings = re.findall("<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2 + 3 + 4
    assert re.search("underconfident by [0-9.]+ points", page)
    for drawing in drawings:
        element = ElementTree.fromstring(drawing)  # as strict as XML
        assert element.get("role") == "img"
        assert element.get("aria-label")
        assert len(list(element.iter("{http://www.w3.org/2000/svg}text"))) > 8
        assert not re.search(r"\bid=|href|url\(|<style|#[0-9a-f]{6}", drawing)
        assert len(drawing) < 30_000


def test_every_part_of_the_page_is_packaged() -> None:
    folder = Path(html.__file__).parent / html.FOLDER
    assert {path.name for path in folder.iterdir()} == {html.TEMPLATE, html.STYLE, *html.SCRIPTS}


# ------------------------------------------------------------------ pictures


def decode(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("number", [1, 9, 101])
def test_the_matrix_leaves_a_cell_and_a_label_room_at_any_number_of_classes(
    workspace: Workspace, evaluate: Evaluate, number: int
) -> None:
    evaluate(classes=[f"ClassNumber{index}" for index in range(number)], videos=2)
    picture = decode(png(plots.confusion_matrix(_measured(workspace))))
    assert min(picture.shape[:2]) / number > 20  # 5 pt at 200 dpi are 14 px
    assert max(picture.shape[:2]) <= MOST_PIXELS


def test_a_diagonal_is_dark_and_an_empty_cell_is_white(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(classes=("a", "b"))
    result = _measured(workspace, confusion=((10, 0), (0, 10)))
    picture = decode(png(plots.confusion_matrix(result)))
    darkest = RAMP[-1].removeprefix("#")
    blue_green_red = np.array([int(darkest[i : i + 2], 16) for i in (4, 2, 0)])
    assert 0.05 < (abs(picture.astype(int) - blue_green_red).max(axis=-1) <= 2).mean() < 0.6
    assert (picture == 255).all(axis=-1).mean() > 0.3


def test_pictures_can_be_drawn_of_any_name(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(classes=(*HOSTILE, "W" * 40))
    result = _measured(workspace)
    for draw in (plots.per_class, plots.motion_effect, plots.confusion_matrix):
        picture = decode(png(draw(result)))
        assert picture.min() < 100
        assert min(picture[:, [0, -1]].min(), picture[-1].min()) == 255  # nothing is cut off at an edge


def _measured(workspace: Workspace, **changes: object) -> Result:
    """The newest evaluation's result, without writing files."""
    inputs = load(workspace, find_evaluations(workspace, None, None, ()))
    return dataclasses.replace(compute(inputs, "run", workspace.reports), **changes)
