"""Folders of videos as people lay them out, and as nobody should: each a function of its generator."""

import random
from pathlib import Path

from tests.fuzz import checks, mutations

_CLASSES = ("jump", "playing guitar", "0", "a.b", "run, fast", "é", "[x]", " blank ", "part_0")
_FILES = ("a.avi", "b c.mp4", "x.y.mkv", "notes.txt", ".hidden.avi", "still.jpg", "UPPER.AVI", "Thumbs.db", "no suffix")
_METADATA = {
    "metadata.csv": b'file_name,label\na.avi,jump\n"b c.mp4","run, fast"\n',
    "metadata.jsonl": b'{"file_name": "a.avi", "label": "jump"}\n{"file_name": "train/a.avi", "label": "run"}\n',
    "annotations/train.csv": b"label,youtube_id,time_start,time_end,split\njump,a,1,11,train\n",
    "classInd.txt": b"1 jump\n2 run\n",
}


def write(folder: Path, rng: random.Random) -> None:
    """Up to three levels of splits, classes and parts, now and then with videos beside them, damaged metadata, a
    workspace or a link to nowhere."""
    folder.mkdir(parents=True)
    tops = rng.sample(checks.SPLIT_FOLDERS, rng.choice((1, 2, 3))) if rng.random() < 0.6 else [""]
    for top in tops:
        for name in rng.sample(_CLASSES, rng.choice((0, 1, 2, 4))):
            below = rng.choice(("", "", "", "part_1", "deep/deeper"))
            _write_files(folder / top / name / below, rng)
        if rng.random() < 0.2:
            _write_files(folder / top, rng)
    if rng.random() < 0.3:
        name, content = rng.choice(list(_METADATA.items()))
        path = folder / rng.choice(("", tops[0])) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutations.damaged(content, rng, [content]) if rng.random() < 0.7 else content)
    if rng.random() < 0.1:
        _write_files(folder / "work" / "frames" / "jump", rng)
        (folder / "work" / "failures.csv").write_text("stage,class,video,path,reason,time\n")
    if rng.random() < 0.1:
        (folder / "broken.avi").symlink_to("nowhere")


def _write_files(folder: Path, rng: random.Random) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in rng.sample(_FILES, rng.choice((0, 1, 2, 5))):
        (folder / name).write_bytes(rng.choice((b"", b"x")))
