"""`stres train --weights run:NAME`: a run fine-tuned on the videos of another workspace, or on more of them."""

import json
import re
import shutil
from pathlib import Path

from pipelines.storage.workspace import Workspace
from pipelines.training.runs import Run
from tests.helpers.workspaces import write_workspace

TINY = "--recipe small --width 2 --size 32 --iterations 1 --batch-size 2 --device cpu --steps motion"


def test_a_run_is_fine_tuned_by_its_name_and_by_its_folder(stres, tmp_path):
    work = write_workspace(tmp_path / "work").root
    other = write_workspace(tmp_path / "other").root

    def train(line, workspace):
        return stres("train", *TINY.split(), *line.split(), "-w", workspace)

    assert train("--name old", work).exit_code == 0
    by_name = train("--name new --weights run:old --json", work)
    by_folder = train(f"--weights run:{work}/runs/old/motion", other)
    again = train(f"--weights run:{work}/runs/old/motion", other)
    as_file = train(f"--name file --weights {work}/runs/old/motion/weights.pt", other)
    wider = train("--name wide --weights run:old --width 3", work)

    assert by_name.exit_code == by_folder.exit_code == again.exit_code == 0, by_folder.stderr
    assert "motion starts from motion of run old, classifiers included" in by_name.stderr
    assert json.loads(by_name.stdout)["run"] == "new"
    assert f"motion starts from motion of run {work / 'runs' / 'old'}" in by_folder.stderr
    assert "already done" in again.stdout
    assert as_file.exit_code == 3
    assert f"give --weights run:{work / 'runs' / 'old' / 'motion'} instead" in as_file.stderr
    assert wider.exit_code == 2
    assert "--width 3 does not fit the weights of run old, which are of 2: leave it out" in wider.stderr


def test_the_commands_for_more_classes_do_what_the_page_says(stres, trained_on_videos, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    commands = re.search(r"^## More classes, more clips\n.*?```sh\n(.*?)```", page, re.DOTALL | re.MULTILINE)[1]
    commands = commands.replace("--bound 20", "--method-option winsize=9 --bound 4")  # as of the flow that is there
    commands = commands.replace("clip.mp4", "videos/new/new0.mkv")
    workspace = Workspace(Path(shutil.copytree(trained_on_videos.workspace.root, tmp_path / "stres-work")))
    videos = Path(shutil.copytree(trained_on_videos.videos, tmp_path / "videos"))
    (videos / "new").mkdir()
    for number, clip in enumerate(sorted(videos.glob("*/*.mkv"))[:3]):
        shutil.copy(clip, videos / "new" / f"new{number}.mkv")
    monkeypatch.chdir(tmp_path)

    shown = {}
    for command in commands.splitlines():
        words = command.split()[1:]
        shown[words[0]] = stres(*words)
        assert shown[words[0]].exit_code == 0, shown[words[0]].stderr

    assert "3 videos done, 6 already done" in shown["extract-frames"].stdout
    assert "settings of run split1" in shown["train"].stderr
    assert "with new classifiers: the 3 classes here are not the 2 there" in shown["train"].stderr
    assert "warning: run split1 was trained on " in shown["train"].stderr
    old, new = (Run(workspace.runs / name) for name in ("split1", "more"))
    assert new.finished() == old.finished()
    assert [of.step for of in new.config().steps.values()] == [of.step for of in old.config().steps.values()]
    assert "new" in shown["predict"].stdout
