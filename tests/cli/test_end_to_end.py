"""From video files to a report by the commands alone, with nothing but the workspace between them."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from pipelines import demo

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
SMALL = {  # added to the README's commands, so that they take seconds
    "extract-flow": "--method farneback --bound 4",
    "train": "--recipe small --width 4 --size 64 --iterations 2 --batch-size 2 --device cpu",
    "evaluate": "--crops 3 --device cpu",
    "predict": "--crops 3 --device cpu",
}


def test_the_commands_of_the_readme_lead_from_videos_to_a_report(stres, two_classes, tmp_path, monkeypatch):
    """All but `make demo` and the activation of its environment; the Makefile's and the demo's own tests follow."""
    work = tmp_path / "stres-work"
    monkeypatch.chdir(tmp_path)
    shutil.copy(next(two_classes.glob("*/*.avi")), "clip.mp4")
    assert COMMANDS[:2] == ["make demo", ". .venv/bin/activate"]
    assert not re.findall(r"`(?:stres|make|pip)\b[^`]*`", README), "a command outside of the blocks is not tested"

    def call(line):
        command, *words = line.split()
        assert command == "stres"
        done = stres(*words, *SMALL.get(" ".join(words[:1]), "").split())
        assert done.exit_code == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done

    shown = {" ".join(line.split()[1:2]): call(line) for line in COMMANDS[2:]}
    trained, evaluated, reported = (shown[name] for name in ("train", "evaluate", "report"))

    assert list(shown) == ["", "extract-frames", "extract-flow", "train", "evaluate", "report", "predict"]
    assert "next: stres extract-frames VIDEOS" in shown[""].stdout
    for name, following in itertools.pairwise(list(shown)[1:]):
        assert f"next: stres {following}" in shown[name].stdout
    assert "extract-frames: 8/8 videos" in call(COMMANDS[3]).stderr
    assert len(list(work.glob("frames/*/*.h5"))) == len(list(work.glob("flow/*/*.h5"))) == 8
    assert [step in trained.stdout for step in ("appearance", "motion", "joint1")] == [True] * 3
    assert "train joint1: 2/2 updates" in trained.stderr
    (results,) = work.glob("scores/split1/*/results.json")
    fused = json.loads(results.read_text(encoding="utf-8"))["fused"]
    assert f"{100 * fused['top1']:.1f} %" in evaluated.stdout
    assert f"{100 * fused['top1']:.1f}" in reported.stdout
    assert "Confusion matrix" in reported.stdout
    (folder,) = (work / "reports").iterdir()
    assert {"report.html", "confusion_matrix.png", "confusion_matrix.csv"} <= {path.name for path in folder.iterdir()}


@pytest.fixture
def small_demo(monkeypatch):
    monkeypatch.setattr(demo, "TRAIN_CLIPS", 2)
    monkeypatch.setattr(demo, "TEST_CLIPS", 1)
    monkeypatch.setattr(demo, "NETWORK", {"recipe": "small", "depth": 26, "width": 2, "size": (32, 32)})
    few = {"iterations": 2, "batch_size": 4}
    monkeypatch.setattr(demo, "OVERRIDES", dict.fromkeys(("appearance", "motion", "joint1"), few))


def test_the_demo_goes_through_every_stage(stres, small_demo, tmp_path):
    shown = stres("demo", "-w", tmp_path, "--device", "cpu")
    other = stres("demo", "-w", tmp_path, "--seed", 1)

    assert shown.exit_code == 0, shown.stderr
    assert "9 held-out clips, 9 classes" in shown.stdout
    for row in ("appearance alone", "motion alone", "late fusion", "spatiotemporal residual network"):
        (line,) = (line for line in shown.stdout.splitlines() if row in line)
        assert line.count("%") == 2
    (last,) = (line.removeprefix("report: ") for line in shown.stdout.splitlines() if line.startswith("report: "))
    path, then = last.split("; next")
    assert "stres extract-frames VIDEOS" in then
    assert path.startswith(str(tmp_path / "demo" / "reports"))
    assert "<html" in Path(path).read_text(encoding="utf-8")
    for phase in ("make clips", "extract-frames", "extract-flow", "train joint1", "evaluate", "report"):
        assert f"{phase}: " in shown.stderr

    assert other.exit_code == 2
    assert f"{tmp_path / 'demo'} holds the demo of seed 0" in other.stderr
