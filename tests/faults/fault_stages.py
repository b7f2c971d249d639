"""What the faults strike: five commands on real videos, and what an undisturbed run of each leaves.

Every file with a final name is opened and read to its end, so that half a file shows.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import h5py
import hdf5plugin  # noqa: F401  (registers the Zstandard filter)
import numpy as np
import torch

from pipelines.video.synthetic import moving_ball, write_video

CLASSES = ("red_rising", "blue_falling")

Contents = dict[str, Any]
"""By path below the workspace: a digest, or what of a file does not depend on the clock."""


@dataclass(frozen=True)
class Stage:
    """One command: its `options` beside the workspace; `folder`, below the workspace, where it writes; whether it takes
    the videos, or those of one class; the line it prints when it is at work, if it writes nothing for long."""

    name: str
    folder: str
    options: str
    takes_videos: bool = False
    of_class: str = ""
    begins: str = ""

    def arguments(self, workspace: Path, videos: Path) -> list[str]:
        given = [str(videos / self.of_class)] if self.takes_videos else []
        return [self.name, *given, "-w", str(workspace), *self.options.split()]


EXTRACT_FRAMES = Stage("extract-frames", "frames", "--workers 2", takes_videos=True)
EXTRACT_FLOW = Stage(
    "extract-flow",
    "flow",
    "--workers 2 --method tvl1 --bound 4 --method-option warps=1 --method-option outer_iterations=1 "
    "--method-option inner_iterations=5",  # or the commands would compute for most of the time
    takes_videos=True,
)
TRAIN = Stage(
    "train",
    "runs",
    "--recipe small --width 4 --size 32 --device cpu --checkpoint-every 0 --iterations 6 --lr 1e-4 "
    "--batch-size appearance=4,motion=4,joint1=2,joint2=2 --frames joint1=2,joint2=5 --stride joint1=1-2,joint2=1-1 "
    "--steps appearance,motion,joint1,joint2",
)
EVALUATE = Stage("evaluate", "scores", "--crops 25 --views full,10 --device cpu", begins="evaluate: ")
PREDICT = Stage(
    "predict",
    "predictions",
    "--timeline --window 20f --crops 5 --device cpu",
    takes_videos=True,
    of_class=CLASSES[0],  # all kinds of clips; it computes for much longer than it starts
)
STAGES = (EXTRACT_FRAMES, EXTRACT_FLOW, TRAIN, EVALUATE, PREDICT)


def write_clips(folder: Path) -> None:
    """Class folders of synthetic clips, one of each of `_WAYS`."""
    for label, name in enumerate(CLASSES):
        for number, suffix in enumerate(_WAYS):
            write_clip(folder / name / f"{name}_{number}{suffix}", name, (label, number))


def write_clip(path: Path, class_name: str, seed: Sequence[int]) -> Path:
    """A clip of 96 frames, made as the suffix says."""
    clip = np.tile(moving_ball(class_name, np.random.default_rng(seed)), (4, 1, 1, 1))
    _WAYS[path.suffix](path, clip)
    return path


def _lossless(path: Path, clip: np.ndarray) -> None:
    write_video(path, clip, codec="ffv1", pixels="bgr0")


def _at_a_variable_rate(path: Path, clip: np.ndarray) -> None:
    steps = np.where(np.arange(len(clip)) % 10 < 5, 1 / 25, 1 / 5)
    write_video(path, _wide(clip), codec="libx264", times=(np.cumsum(steps) - steps[0]).round(3).tolist())


def _behind_a_still(path: Path, clip: np.ndarray) -> None:
    """Two streams, the first of which is a single picture."""
    wide = _wide(clip)
    with av.open(str(path), "w") as container:
        still = container.add_stream("mjpeg", rate=25, width=64, height=48, pix_fmt="yuvj420p")
        film = container.add_stream("mpeg4", rate=25, width=wide.shape[2], height=wide.shape[1], pix_fmt="yuv420p")
        film.bit_rate = 1_000_000
        for stream, pictures in ((still, 255 - wide[:1, :48, :64]), (film, wide)):
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())


def _wide(clip: np.ndarray) -> np.ndarray:
    """240 pixels wide instead of 64, which TV-L1's kernels lay out otherwise."""
    return np.tile(clip, (1, 1, 4, 1))[:, :, :240]


_WAYS: dict[str, Callable[[Path, np.ndarray], None]] = {
    ".mkv": _lossless,
    ".avi": write_video,
    ".mp4": _at_a_variable_rate,
    ".mov": _behind_a_still,
}
CLIPS_A_CLASS = len(_WAYS)


# ------------------------------------------------------------------ undisturbed


class References:
    """For each stage the workspace before and after an undisturbed run. `run(arguments)` runs a command to its end."""

    def __init__(self, root: Path, videos: Path, run: Callable[[list[str]], None]) -> None:
        self.root, self.videos, self._run = root, videos, run
        (root / "empty").mkdir(parents=True)

    def before(self, stage: Stage) -> Path:
        number = STAGES.index(stage)
        return self.after(STAGES[number - 1]) if number else self.root / "empty"

    def after(self, stage: Stage) -> Path:
        """Made where it is not there yet."""
        made = self.root / stage.name
        if not made.exists():
            shutil.copytree(self.before(stage), made)
            self._run(stage.arguments(made, self.videos))
        return made

    def workspace(self, stage: Stage, target: Path) -> Path:
        """A copy of the workspace before `stage`."""
        shutil.copytree(self.before(stage), target, dirs_exist_ok=True)
        return target


# ------------------------------------------------------------------ what a workspace holds


def contents(workspace: Path) -> Contents:
    """What every file with a final name holds. Raises whatever a file raises that is not whole.

    Byte by byte but for times: of `weights.pt` everything but `seconds` (and the archive around it), of `metrics.jsonl`
    the lines without `seconds`, of `dataset.json` what it says without times of modification, of `split.json` what it
    says without the folder its lists came from. TensorBoard's event files are logs, with times in every record.
    """
    found: Contents = {}
    for path in sorted(workspace.rglob("*")):
        name = str(path.relative_to(workspace))
        if path.is_file() and not is_temporary(path) and "tensorboard" not in path.parts:
            read = _READERS.get(path.name, _READERS.get(path.suffix, _digest))
            found[name] = read(path)
    return found


def is_temporary(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def temporary_files(workspace: Path) -> list[str]:
    return [str(path.relative_to(workspace)) for path in workspace.rglob(".*")]


def checkpoint_iterations(workspace: Path) -> dict[str, int]:
    """Updates in the checkpoint of each step that has one, in order of the steps' names."""
    found = {}
    for path in sorted(workspace.glob("runs/*/*/checkpoint.pt")):
        found[path.parent.name] = torch.load(path, weights_only=True)["iteration"]
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _artifact(path: Path) -> str:
    with h5py.File(path) as file:  # checksums are checked by reading
        file.visititems(lambda name, item: item[()] if isinstance(item, h5py.Dataset) else None)
    return _digest(path)


def _split(path: Path) -> Any:
    return {name: value for name, value in json.loads(path.read_bytes()).items() if name != "source"}


def _json(path: Path) -> str:
    json.loads(path.read_bytes())
    return _digest(path)


def _dataset(path: Path) -> Any:
    document = json.loads(path.read_bytes())
    for video in document["videos"]:
        for kind in ("frames_artifact", "flow_artifact"):
            video.get(kind, {}).pop("mtime_ns", None)
    return document


def _metrics(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def _checkpoint(path: Path) -> Any:
    content = torch.load(path, weights_only=True)
    content.pop("seconds")
    return _plain(content)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest(), str(value.dtype), tuple(value.shape)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


_READERS: dict[str, Callable[[Path], Any]] = {
    ".h5": _artifact,
    ".json": _json,
    ".pt": _checkpoint,
    "dataset.json": _dataset,
    "split.json": _split,
    "metrics.jsonl": _metrics,
}
