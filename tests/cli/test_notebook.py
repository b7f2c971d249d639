"""docs/notebook.md does what it says, on a small workspace in the place of the demo's."""

import re
import shutil
from pathlib import Path

import cv2
import h5py

from pipelines import evaluate

PAGE = Path(__file__).parents[2] / "docs/notebook.md"


def test_the_page_runs_from_top_to_bottom(trained_on_videos, tmp_path, monkeypatch, capsys):
    work = tmp_path / "stres-work/demo"
    shutil.copytree(trained_on_videos.workspace.root, work)
    (work / "videos").symlink_to(trained_on_videos.videos)
    evaluate.run(evaluate.Config(work, crops=5, device="cpu"))
    monkeypatch.chdir(tmp_path)

    page: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), page)

    lines = [[line for line in block.splitlines() if line and "import" not in line] for block in blocks]
    assert len(lines) == 5
    assert max(map(len, lines)) == 5
    assert page["picture"].shape == (32, 40, 3)
    assert cv2.imread("flow.png").shape == page["picture"].shape
    assert page["rows"].keys() == {f"{name}{number}" for name in ("jump", "wave") for number in range(3)}
    with h5py.File(f"{page['run'].scores[0].folder}/scores.h5") as file:
        right = sum(file["fused"][:].argmax(axis=1) == file["labels"][:])
    assert page["matrix"].trace() == right
    assert page["matrix"].sum() == 2
    assert f"{right / 2:.1%} right, " in capsys.readouterr().out
