"""The HTML page and the pictures: self-contained, safe with any class name, drawn for few and for many classes."""

import base64
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.report import Config, Result, run
from pipelines.reporting import plots
from pipelines.workspace import Workspace

Evaluate = Callable[..., Path]

HOSTILE = ("<script>alert(1)</script>", "$x_{1}$ & 100 %", "日本語 { }", "a" * 80)


@pytest.fixture
def hostile(workspace: Workspace, evaluate: Evaluate) -> Result:
    evaluate(classes=HOSTILE)
    return run(Config(workspace.root))


def page_of(result: Result) -> str:
    return Path(result.files["report.html"]).read_text("utf-8")


def test_a_class_name_cannot_become_markup(hostile: Result) -> None:
    page = page_of(hostile)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "a" * 80 in page


def test_the_page_needs_nothing_from_outside(hostile: Result) -> None:
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page_of(hostile))
    assert len(sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in page_of(hostile)


def test_the_page_embeds_the_very_pictures_that_were_written(hostile: Result) -> None:
    for name in ("confusion_matrix.png", "per_class.png"):
        assert base64.b64encode(Path(hostile.files[name]).read_bytes()).decode() in page_of(hostile)


def test_the_page_tells_protocol_and_provenance(hostile: Result) -> None:
    page = page_of(hostile)
    for text in ("<dd>sequence</dd>", "<dd>yes</dd>", "<dd>joint2</dd>", "stres/scores/1", "95 % interval"):
        assert text in page


def test_a_dark_scheme_has_its_own_colours_and_pictures(hostile: Result) -> None:
    assert page_of(hostile).count('media="(prefers-color-scheme: dark)"') == 2
    picture = cv2.imdecode(np.frombuffer(plots.per_class(hostile, plots.DARK), np.uint8), cv2.IMREAD_COLOR)
    # Mostly surface and never white, inside the axes either.
    assert np.median(picture) < 40
    assert (picture == 255).all(axis=-1).mean() < 0.01


def decode(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("number", [1, 9, 101])
def test_the_matrix_leaves_a_cell_and_a_label_room_at_any_number_of_classes(
    workspace: Workspace, evaluate: Evaluate, number: int
) -> None:
    evaluate(classes=[f"ClassNumber{index}" for index in range(number)], videos=2)
    picture = decode(plots.confusion_matrix(_measured(workspace)))
    assert min(picture.shape[:2]) / number > 20  # 5 pt at 200 dpi are 14 px
    assert max(picture.shape[:2]) <= plots.MOST_PIXELS


def test_a_diagonal_is_dark_and_an_empty_cell_is_white(workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(classes=("a", "b"))
    result = _measured(workspace, confusion=((10, 0), (0, 10)))
    picture = decode(plots.confusion_matrix(result))
    darkest = plots.LIGHT.ramp[-1].removeprefix("#")
    blue_green_red = np.array([int(darkest[i : i + 2], 16) for i in (4, 2, 0)])
    assert 0.05 < (abs(picture.astype(int) - blue_green_red).max(axis=-1) <= 2).mean() < 0.6
    assert (picture == 255).all(axis=-1).mean() > 0.3


def _measured(workspace: Workspace, **changes: object) -> Result:
    """The newest evaluation's result, without writing files."""
    from pipelines.report import _measure
    from pipelines.reporting.evaluations import find_evaluations

    return dataclasses.replace(_measure(find_evaluations(workspace, None, None, ()), Config(workspace.root)), **changes)
