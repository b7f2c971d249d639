"""A whole workspace to damage: every kind of file that stres writes, made by the commands themselves."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines import evaluate, train
from pipelines.runtime.progress import Progress
from pipelines.storage.workspace import Workspace

# The file in the workspace, what reads it, how it is damaged ("json" or bytes), and its share of the inputs.
TARGETS = (
    ("frames/jump/jump0.h5", "artifact", "bytes", 30),
    ("flow/jump/jump0.h5", "artifact", "bytes", 30),
    ("dataset.json", "evaluate", "json", 3),
    ("runs/split1/config.json", "evaluate", "json", 6),
    ("runs/split1/config.json", "predict", "json", 6),
    ("runs/split1/config.json", "report", "json", 1),
    ("runs/split1/split.json", "evaluate", "json", 3),
    ("runs/split1/joint2/weights.pt", "evaluate", "bytes", 4),
    ("runs/split1/metrics.jsonl", "report", "bytes", 1),
    ("runs/begun/config.json", "train", "json", 4),
    ("runs/begun/appearance/checkpoint.pt", "train", "bytes", 5),
    ("splits/splits.json", "train", "json", 1),
    ("splits/trainlist01.txt", "train", "bytes", 1),
    ("splits/trainlist01.txt", "split lists", "bytes", 6),
    ("splits/testlist01.txt", "split lists", "bytes", 6),
    ("splits/classInd.txt", "split lists", "bytes", 6),
    ("scores/split1/{protocol}/scores.h5", "report", "bytes", 1),
    ("scores/split1/{protocol}/results.json", "report", "json", 1),
    ("others.pt", "weights", "bytes", 10),
    ("others.csv", "report --with", "bytes", 1),
    ("others.npz", "report --with", "bytes", 1),
    ("videos.txt", "list file", "bytes", 6),
    ("videos.csv", "list file", "bytes", 5),
    ("kinetics.csv", "list file", "bytes", 3),
    ("metadata.jsonl", "list file", "bytes", 3),
    ("numbers.txt", "list file", "bytes", 3),
    ("class_names.txt", "class names", "bytes", 5),
    ("failures.csv", "failures.csv", "bytes", 6),
)
_LISTS = {
    "videos.txt": "a.avi jump\nb c.mkv wave\n# note\nd.mp4 two words\n",
    "videos.csv": 'id;path;frames;label;split\n1;"a;b.avi";12;"playing, guitar";train\n2;c/d.mp4;9;run fast;val\n',
    "kinetics.csv": 'label,youtube_id,time_start,time_end,split\n"air, drumming",a-_1,1,11,train\nrun,xyz,12,22,val\n',
    "metadata.jsonl": '{"file_name": "a.mp4", "label": "jump"}\n{"file_name": "b/c.mp4", "label": "run, \\"fast\\""}\n',
    "numbers.txt": "clip.mkv 12 0\nother.mkv 9 1\n",
    "class_names.txt": "0 jump\n1 wave hand\n",
}
"""As people have them; `class_names.txt` names the labels of `numbers.txt`."""


@dataclass(frozen=True)
class Whole:
    """An undamaged workspace; `protocol` is that of its scores."""

    root: Path
    protocol: str

    def targets(self) -> Iterator[tuple[str, str, str, int]]:
        """`TARGETS` with the protocol's name filled in."""
        for file, kind, how, share in TARGETS:
            yield file.format(protocol=self.protocol), kind, how, share

    def copy(self, folder: Path, damaged: str, content: bytes) -> Path:
        """A copy of which one file holds `content`; the others are links to the same files, which nothing rewrites in
        place. Returns that file."""
        shutil.copytree(self.root, folder, copy_function=_link)
        path = folder / damaged
        path.unlink()
        path.write_bytes(content)
        return path


def _link(source: str, target: str) -> None:
    if Path(source).suffix in (".jsonl",):  # is appended to
        shutil.copy2(source, target)
    else:
        Path(target).hardlink_to(source)


def write_whole(root: Path, trained: Workspace, clip: Path) -> Whole:
    """Copies a workspace of two classes with a finished run, and adds scores, a run that was interrupted, a video, and
    files of others."""
    workspace = Workspace(shutil.copytree(trained.root, root))
    result = evaluate.run(evaluate.Config(workspace.root, crops=5, device="cpu"))
    _begin_a_run(workspace)
    for name, text in _LISTS.items():
        (workspace.root / name).write_text(text)
    workspace.failures_file.write_text(
        "stage,class,video,path,reason,time\nextract-frames,a,b,/a/b.avi,the file is empty,2026-01-01T00:00:00+00:00\n"
    )
    _write_others(workspace.root)
    shutil.copy(clip, workspace.root / "clip.mkv")
    return Whole(workspace.root, result.folder.name)


def _begin_a_run(workspace: Workspace) -> None:
    def interrupt(progress: Progress) -> None:
        if list(workspace.runs.glob("begun/*/checkpoint.pt")):
            raise KeyboardInterrupt

    settings = {"recipe": "small", "width": 4, "size": (32, 32), "device": "cpu", "checkpoint_every": 0.0}
    overrides = {"appearance": {"iterations": 3, "batch_size": 4, "lr": 1e-4}}
    config = train.Config(workspace.root, name="begun", steps=("appearance",), overrides=overrides, **settings)
    try:
        train.run(config, interrupt)
    except KeyboardInterrupt:
        return
    raise AssertionError("nothing was left to continue")


def _write_others(root: Path) -> None:
    import numpy as np
    import torch

    videos, values = ["jump/jump2", "wave/wave2"], np.array([[0.2, 0.8], [0.6, 0.4]])
    (root / "others.csv").write_text("video,jump,wave\njump/jump2,0.2,0.8\nwave/wave2,0.6,0.4\n")
    torch.save({"conv1.weight": torch.ones(4, 3, 7, 7), "fc.bias": torch.zeros(5)}, root / "others.pt")
    np.savez(root / "others.npz", videos=videos, logits=values, classes=["jump", "wave"])
