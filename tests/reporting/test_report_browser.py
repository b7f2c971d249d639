"""The page in a real browser: it builds without errors, asks for nothing, and can be used by mouse, keyboard, thumb."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines.interface.wording import percent
from pipelines.report import Config, run
from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.workspace import Workspace
from tests.reporting.chromium import PROGRAM, Browser

Evaluate = Callable[..., Path]
pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no chromium on this machine"),
    pytest.mark.usefixtures("no_pictures"),
]

HOSTILE = (
    "</script><script>document.documentElement.dataset.hacked='yes'</script>",
    "\"onload=\"document.documentElement.dataset.hacked='yes'",
    "<img src=x onerror=\"document.documentElement.dataset.hacked='yes'\">",
    "日本語 &amp; $x_{1}$ \\u2028",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(autouse=True)
def no_error(browser: Browser) -> Iterator[None]:
    browser.errors.clear()
    yield
    assert browser.errors == []


@pytest.fixture(scope="module")
def page(
    evaluator: Callable[[Workspace], Evaluate],
    training_logger: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Nine classes, with a training log."""
    workspace = Workspace(tmp_path_factory.mktemp("nine"))
    evaluator(workspace)(classes=[f"class{index}" for index in range(9)], videos=6)
    training_logger(workspace)
    return Path(run(Config(workspace.root)).files["report.html"])


def write_clip(workspace: Workspace, class_name: str, video: str) -> None:
    """A red clip that moves to the right."""
    with new_frames_file(workspace.frames_file(class_name, video)) as frames:
        for _ in range(3):
            frames.append(cv2.imencode(".jpg", np.full((240, 320, 3), (0, 0, 255), np.uint8))[1])
        frames.finish({"source_frames": 3})
    with new_flow_file(workspace.flow_file(class_name, video)) as flow:
        flow.append(np.stack([np.full((2, 240, 320), 255, np.uint8), np.full((2, 240, 320), 128, np.uint8)], axis=1))
        flow.finish({"method": "farneback", "method_parameters": "{}", "bound": 20.0, "step": 1, "flow_input": "video"})


def test_names_of_data_stay_text(browser: Browser, workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(classes=HOSTILE)
    browser.open(Path(run(Config(workspace.root)).files["report.html"]), "#class=0")
    assert browser.run("document.documentElement.dataset.hacked || ''") == ""
    assert HOSTILE[0] in browser.texts("#clips h2")[0]
    assert set(HOSTILE) <= set(browser.texts("#classes-host td.name"))
    cells = "[...document.querySelectorAll('td.name')]"
    assert browser.run(f"{cells}.filter((cell) => cell.scrollWidth > cell.clientWidth).length") == 0  # on its neighbour


def test_every_figure_is_drawn(browser: Browser, page: Path) -> None:
    browser.open(page)
    for section, drawn in (("fusion", 1), ("calibration", 3), ("training", 4)):
        assert browser.run(f"document.querySelectorAll('#{section} svg').length") == drawn
        assert min(len(text.split()) for text in browser.texts(f"#{section} svg")) > 8  # numbers at the axes
    assert len(browser.texts("#classes-host tbody tr")) == 9
    assert browser.run("document.querySelector('canvas.cells').width") > 200


def test_a_link_opens_a_cell_with_its_clips(browser: Browser, page: Path) -> None:
    rows = [row.split(",") for row in (page.parent / "videos.csv").read_text("utf-8").splitlines()[1:]]
    true, guess = next((row[2], row[7]) for row in rows if row[2] != row[7])
    expected = {row[1] for row in rows if (row[2], row[7]) == (true, guess)}
    browser.open(page, f"#cell={true[-1]},{guess[-1]}")
    assert browser.texts("#clips h2")[0].startswith(f"{true}, taken for {guess} (fused)")
    assert (
        set(browser.run("[...document.querySelectorAll('#clips .card')].map((card) => card.dataset.clip)")) == expected
    )
    assert len(browser.texts("#clips .card:first-child li")) == 3 * 5
    assert browser.texts(".pictures, .play") == []  # there are no frames


def test_clips_won_and_lost_and_suspect_labels_open_as_lists(
    browser: Browser, workspace: Workspace, evaluate: Evaluate
) -> None:
    evaluate("other", seed=3)
    evaluate()
    result = run(Config(workspace.root, compare="other"))
    assert result.comparison
    lists = {"won": 0, "lost": 0} | {"suspects": len(result.label_issues)}
    for one in result.comparison.changed:
        lists["won" if one.won else "lost"] += 1
    assert min(lists.values()) > 0
    for link, number in lists.items():
        browser.open(Path(result.files["report.html"]), f"#{link}=")
        assert browser.texts("#clips h2 .muted") == [f"{number} clip" + "s" * (number > 1)]
        assert len(browser.texts("#clips .card")) == min(number, 12)
        assert all("other run: " in text for text in browser.texts("#clips .verdict")) or link == "suspects"
    browser.run("document.querySelector('#comparison [data-link=\"#won=\"]').click()")
    browser.wait_for("document.querySelector('#clips h2').textContent.startsWith('Right in this run only')")


def test_a_class_has_a_page_with_its_numbers_and_what_it_is_confused_with(browser: Browser, page: Path) -> None:
    with (page.parent / "per_class.csv").open(encoding="utf-8") as file:
        row = list(csv.DictReader(file))[3]
    with (page.parent / "confusion_matrix.csv").open(encoding="utf-8") as file:
        counts = np.array([line[1:] for line in list(csv.reader(file))[1:]], int)
    browser.open(page, "#class=3")
    numbers, taken, wrongly = browser.texts("#clips .facts p")
    for title in ("precision", "recall", "f1", "fused", "appearance", "motion"):
        assert f"{title} {percent(float(row[title]))} %".lower() in numbers.lower()
    for line, of in ((taken, counts[3]), (wrongly, counts[:, 3])):
        expected = {f"class{other} ({number})" for other, number in enumerate(of) if number and other != 3}
        assert set(re.findall(r"class\d \(\d+\)", line)) == expected
        assert expected
    browser.run("document.querySelector('#clips .facts button').click()")
    browser.wait_for("location.hash.startsWith('#cell=3,')")


def test_classes_and_clips_are_found_by_name(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.fill("#find input", "SS4/V2", "input")
    browser.run("document.querySelector('#find').requestSubmit()")
    browser.wait_for("!document.getElementById('clips').hidden")
    assert browser.run("location.hash") == "#find=SS4%2FV2"
    ids = browser.run("[...document.querySelectorAll('#clips .card')].map((card) => card.dataset.clip)")
    assert ids
    assert all(clip.startswith("class4/v2") for clip in ids)
    browser.open(page, "#find=class4")
    assert browser.texts("#clips p button") == ["class4"]
    browser.open(page, "#find=<nothing>")
    assert browser.texts("#clips p") == ["No clip."]


@pytest.mark.parametrize(
    "link",
    [
        "#won=",
        "#suspects=1",
        "#cell=1",
        "#cell=1,99",
        "#cell=a,b",
        "#cell=1,2,nothing",
        "#other=1",
        "#cell=%,%",
        "#find=",
        "#find=%",
    ],
)
def test_a_link_to_nothing_opens_nothing(browser: Browser, page: Path, link: str) -> None:
    browser.open(page, link)
    assert browser.run("document.getElementById('clips').hidden")


def test_a_click_on_a_cell_lists_its_clips(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('canvas.cells').scrollIntoView({block: 'center'})")
    box = browser.run("JSON.parse(JSON.stringify(document.querySelector('canvas.cells').getBoundingClientRect()))")
    cell = box["width"] / 9
    browser.click(box["left"] + 2.5 * cell, box["top"] + 2.5 * cell)
    browser.wait_for("location.hash === '#cell=2,2' && !document.getElementById('clips').hidden")
    assert "class2, recognised" in browser.texts("#clips h2")[0]


def test_the_keyboard_does_what_the_mouse_does(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('.matrix .body').focus()")
    browser.press("ArrowDown", "ArrowDown", "ArrowRight")
    assert browser.texts("#matrix-below")[0].startswith("class2 taken for class1")
    browser.press("n")
    assert "taken for" in browser.texts("#matrix-below")[0]
    assert ": 0 of" not in browser.texts("#matrix-below")[0]
    browser.press("Enter")
    browser.wait_for("!document.getElementById('clips').hidden")
    browser.press("Escape")
    assert browser.run("document.getElementById('clips').hidden")
    assert browser.run("document.activeElement.className") == "body"


def test_streams_and_orders_can_be_chosen(browser: Browser, page: Path) -> None:
    browser.open(page)
    before = browser.run("document.querySelector('canvas.cells').toDataURL()")
    browser.run("document.querySelector('#matrix-host [data-value=motion]').click()")
    motion = browser.run("document.querySelector('canvas.cells').toDataURL()")
    assert motion != before
    for order in ("accuracy", "cluster"):
        browser.fill("#matrix-order", order, "change")
        assert browser.run("[...matrix.order].sort().join()") == "0,1,2,3,4,5,6,7,8"
    assert browser.run("matrix.order.join()") == browser.run("data.clusters.motion.join()")


def test_the_table_of_classes_is_sorted_and_searched(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('#classes-host th button').click()")
    names = browser.texts("#classes-host td.name")
    assert names == sorted(names)
    browser.fill("#classes-host input", "SS3", "input")
    assert browser.texts("#classes-host td.name") == ["class3"]


def test_every_table_is_sorted_by_its_columns(browser: Browser, page: Path) -> None:
    browser.open(page)
    click = "document.querySelectorAll('#pairs thead button')[{}].click()"
    shares = "[...document.querySelectorAll('#pairs tbody tr')].map((row) => Number(row.cells[3].textContent))"
    for sign in (-1, 1):  # the largest first, then the smallest
        browser.run(click.format(3))
        values = browser.run(shares)
        assert values == sorted(values, key=lambda value: sign * value)
        assert len(set(values)) > 1
    for backwards in (False, True):
        browser.run(click.format(0))
        names = browser.texts("#pairs tbody td:first-child")
        assert names == sorted(names, reverse=backwards)
    buttons = "[...document.querySelectorAll('main table')].map((one) => one.querySelectorAll('th button').length)"
    assert min(browser.run(buttons)) > 0


def test_clips_play_and_stop_at_their_middle(browser: Browser, workspace: Workspace, evaluate: Evaluate) -> None:
    evaluate(classes=("bend", "jump"), videos=2)
    write_clip(workspace, "bend", "v0")
    browser.open(Path(run(Config(workspace.root)).files["report.html"]), "#class=0")
    browser.wait_for("[...document.querySelectorAll('#clips img')].every((one) => one.naturalWidth)")
    (picture,) = browser.run("""[...document.querySelectorAll('#clips img')].map((picture) => {
        const pen = new OffscreenCanvas(picture.naturalWidth, 1).getContext('2d');
        pen.drawImage(picture, 0, 0);
        const colour = (x) => [...pen.getImageData(x, 0, 1, 1).data];
        return [[picture.naturalWidth, picture.naturalHeight], colour(0), colour(picture.naturalWidth - 1)];
    })""")
    assert picture[0] == [288, 108]  # beside each other
    for red, green, blue, _ in picture[1:]:  # motion to the right is red, too
        assert red > 230 > 40 > max(green, blue)
    window, sheet = "document.querySelector('#clips .moving div')", "document.querySelector('#clips .moving img')"
    browser.run(f"{sheet}.closest('.moving').style.setProperty('--pictures', 3)")
    browser.run(f"{sheet}.closest('.moving').style.setProperty('--seconds', '60s')")
    seen = f"{sheet}.getBoundingClientRect().top - {window}.getBoundingClientRect().top"
    height = browser.run(f"{sheet}.getBoundingClientRect().height")
    browser.run(f"{sheet}.getAnimations()[0].currentTime = 40_001")
    assert browser.run(seen) == pytest.approx(-2 / 3 * height, abs=0.6)  # the third of three
    browser.run("document.querySelector('#clips .play').click()")
    assert set(browser.texts(".play")) == {"Play clips"}
    assert browser.run(f"{sheet}.getAnimations().length") == 0
    assert browser.run(seen) == pytest.approx(0, abs=0.6)  # the only one
    assert browser.texts("#clips .none") == ["no picture"]
    assert "1 of 4 clips have pictures" in browser.texts("#mistakes p")[0]
    assert "1 of them plays: 2 seconds" in browser.texts("#mistakes p")[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_scheme_has_its_colours(browser: Browser, page: Path, scheme: str) -> None:
    browser.open(page)
    browser.run("localStorage.clear()")  # what an earlier reader chose
    browser.open(page, scheme=scheme)
    picture = cv2.imdecode(np.frombuffer(browser.picture(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (np.median(picture) < 60) == (scheme == "dark")
    browser.run("document.getElementById('theme').click()")  # from the system's to light
    picture = cv2.imdecode(np.frombuffer(browser.picture(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.median(picture) > 200


@pytest.mark.parametrize("number", [9, 101])
def test_on_a_phone_nothing_but_tables_and_matrix_is_wider_than_the_screen(
    browser: Browser, workspace: Workspace, evaluate: Evaluate, number: int
) -> None:
    scores = evaluate(classes=[f"ALongNameForClassNumber{index}" for index in range(number)], videos=3) / "scores.h5"
    result = run(Config(workspace.root, with_file=Path(f"{scores}:fused")))  # a path is a long word
    browser.open(Path(result.files["report.html"]), "#cell=1,1", width=390, height=800)
    assert browser.run("document.documentElement.scrollWidth") == 390
    cell, label = browser.run("matrix.cell"), browser.run("matrix.label")
    assert cell >= 9
    assert label <= 0.45 * 390


def test_without_scripts_the_numbers_are_there(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.send("Page.reload")
        browser.wait_for("document.readyState === 'complete' && !document.documentElement?.dataset.built")
        assert "draws its matrix and its lists with a script" in browser.texts("noscript")[0]
        assert len(browser.texts("#accuracy tbody tr")) == 3
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_the_page_rounds_as_the_terminal_does(browser: Browser, page: Path) -> None:
    browser.open(page)
    shown = browser.run(
        "(() => { const all = []; for (let n = 1; n <= 160; n += 3) for (let k = 0; k <= n; k += 1)"
        " all.push([percent(k / n), percent(k / n, 0)]); return JSON.stringify(all); })()"
    )
    fractions = [k / n for n in range(1, 161, 3) for k in range(n + 1)]
    assert json.loads(shown) == [[percent(one), percent(one, 0)] for one in fractions]
