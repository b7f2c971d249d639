"""Where a result cannot be written is said before the work, not after hours of it."""

import os
import shutil
import subprocess
import sys

import pytest

TINY = "--recipe small --width 1 --size 32 --iterations 1 --batch-size 2 --steps appearance,motion,joint1 --device cpu"


@pytest.mark.parametrize(
    ("command", "blocked", "begins"),
    [
        ("evaluate --crops 3", "work/scores", "evaluate: 1/"),
        (f"train --name new {TINY}", "work/runs/new/joint1", "train appearance"),
        ("report --near-duplicates --output {folder}/taken/report", "taken", "compare: "),
        ("predict {folder}/clips --timeline --output {folder}/out", "out/wave", "predict: "),
        ("export {folder}/taken/net.pt2", "taken", "export: 1/"),
        ("show-flow {folder}/clips/jump/jump0.mkv --all --output {folder}/taken/a.mp4", "taken", "compute flow"),
        ("extract-frames {folder}/clips --overwrite --workers 1", "work/frames/wave", "extract-frames: 1/"),
        ("export-flow {folder}/pictures --layout denseflow --workers 1", "pictures/wave", "export-flow: "),
        ("extract-features {folder}/clips --output {folder}/taken/features", "taken", "extract-features: 1/"),
        ("verify --fix --workers 1", "work/set-aside", "verify: 1/"),
    ],
    ids=lambda value: value.split()[0],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(stres, old, command, blocked, begins):
    """What stands in its place is a file, which stops the superuser too."""
    place = old / blocked
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("a file")

    done = stres(*command.format(folder=old).split(), "-w", old / "work")

    assert done.exit_code == 3, done.stderr
    assert "error: cannot write" in done.stderr
    assert begins not in done.stderr
    assert place.read_text() == "a file"
    assert not list(old.rglob(".*.tmp-*"))


def test_a_folder_in_the_place_of_a_file_is_refused_before_the_work(stres, old):
    (old / "net.pt2").mkdir()

    done = stres("export", old / "net.pt2", "--overwrite", "-w", old / "work")

    assert done.exit_code == 3, done.stderr
    assert f"error: cannot write {old}/net.pt2: that is a folder" in done.stderr
    assert "export: 0/" not in done.stderr


def test_a_workspace_that_may_only_be_read_is_refused_before_anything_is_scored(old):
    """With real permissions, in a process that is not the superuser's."""
    command = [sys.executable, "-m", "stres_cli", "evaluate", "--crops", "3", "-w", old / "work"]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("the superuser may write everywhere, and no setpriv is there to change that")
        command = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override", *command]
    subprocess.run(["chmod", "-R", "a-w", old / "work"], check=True, timeout=300)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    finally:
        subprocess.run(["chmod", "-R", "u+w", old / "work"], check=True, timeout=300)

    assert done.returncode == 3
    assert "permission denied: choose another --workspace or change its permissions" in done.stderr
    assert "evaluate: 1/" not in done.stderr
