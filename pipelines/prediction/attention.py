"""What a network looks at: class activation maps of the windows of a video, to store and to draw.

Letters: W windows, S time steps of a window, C classes, h w cells of a map, H W pixels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from pipelines.datasets.artifact_reader import DecodedClip
from pipelines.datasets.clips import Clips
from pipelines.evaluation.scoring import Scorer
from pipelines.models import STResNet
from pipelines.prediction.inputs import FramePlan
from pipelines.prediction.predictor import Logits, Predictor
from pipelines.runtime.devices import memory_errors
from pipelines.storage.atomic import atomic_file, storage_errors

AXES = ("window", "stream", "step", "class", "row", "column")  # of the stored array
_CELL = 32  # pixels of the network's input from one cell's middle to the next; the first cell's is the first pixel
_HEAT, _MOST = (np.array((255, 170, 30)), np.array((225, 20, 20))), 0.7
"""Colours of little and of much, and the share of the latter where there is most."""


@dataclass(frozen=True)
class Attention:
    """Where the best class of one window was seen."""

    maps: dict[str, np.ndarray]
    """Of each stream the map of the class, less the mean of all classes' maps, which changes no probability: float [S,
    h, w]."""
    frames: list[float]
    """The middle of the frames that each step pools over: [S]."""
    middles: tuple[np.ndarray, np.ndarray]
    """Where the middles of the cells are, as shares of the picture's height and width: float [h], [w]."""


def class_maps(scorer: Scorer, cuts: Sequence[Sequence[int]], rgb: Clips | None, flow: Clips | None) -> Logits:
    """The class activation maps of what goes through a network for one video: float64 [S, C, h, w] of each stream,
    averaged over the whole picture and its mirror image, turned back. Their mean over steps and cells is the logits.

    Args:
        scorer: The network.
        cuts: Which of the frames go through it together.
        rgb: The whole picture, and maybe its mirror image, of T frames; None for a network without appearance.
        flow: The same of T stacks.
    """
    views = len(rgb if rgb is not None else flow or ())
    total: dict[str, np.ndarray] = {}
    for view in range(views):
        shown, moving = (None if x is None else x[view : view + 1] for x in (rgb, flow))
        parts = [
            scorer.mean(shown, moving, [cut], lambda stream, maps: stream.class_activation_maps(maps).float())
            for cut in cuts
        ]
        for name in parts[0]:
            maps = np.concatenate([part[name].numpy() for part in parts])
            total[name] = total.get(name, 0) + (maps[..., ::-1] if 2 * view >= views > 1 else maps) / views
    return total


def attention_to(
    class_index: int,
    maps: Logits,
    network: STResNet,
    cuts: Sequence[Sequence[int]],
    centers: np.ndarray,
    shown: Clips,
) -> Attention:
    """Where and when one class was seen.

    Args:
        maps: Of `class_maps`.
        cuts: Which of the frames went through it together.
        centers: These frames: [T].
        shown: What it was given, of either stream.
    """
    pool = next(iter(network.streams.values())).temporal_pool
    size, stride = (1, 1) if pool is None else (pool.size, pool.stride)
    frames = [
        float(np.mean(centers[cut[first : first + size]]))
        for cut in map(list, cuts)
        for first in range(0, len(cut) - size + 1, stride)
    ]
    cells, sides = next(iter(maps.values())).shape[-2:], shown.shape[-2:]
    rows, columns = (_CELL * np.arange(count) / side for count, side in zip(cells, sides, strict=True))
    if len(shown) > 1:  # the mirror image's cells begin at the other side
        columns = columns + (1 - 1 / sides[1] - columns[-1]) / 2
    seen = {name: of[:, class_index] - of.mean(1) for name, of in maps.items()}
    return Attention(seen, frames, (rows, columns))


class AttentionWriter:
    """Looks at windows, and stores their maps as they come. Made by `attention_file`."""

    def __init__(self, predictor: Predictor, path: Path, file: IO[bytes]) -> None:
        self.predictor, self.path, self.file = predictor, path, file
        self.shape: tuple[int, ...] = (0,)

    def restart(self) -> None:
        """Forgets what was stored: the video is gone through once more. Raises `StorageError`."""
        self.shape = (0,)
        with storage_errors(self.path):
            self.file.seek(0)
            self.file.truncate()

    def look(self, plan: FramePlan, pixels: DecodedClip) -> tuple[Logits, Attention]:
        """Stores one window's maps; returns its logits, and its attention. Raises `StorageError`."""
        rgb, flow = self.predictor.views(pixels)
        scorer, cuts = self.predictor.scorer, self.predictor.cuts
        with memory_errors("use --precision bf16 or fewer --crops"):
            maps = class_maps(scorer, cuts, rgb, flow)
        logits = self.predictor.with_fused({name: of.mean((0, 2, 3)) for name, of in maps.items()})
        best = int(np.argmax(list(logits.values())[-1]))
        stored = np.stack(list(maps.values())).astype("<f4")  # every view of a video has one size
        self.shape = (self.shape[0] + 1, *stored.shape)
        if self.shape[0] == 1:
            self.write_header()
        with storage_errors(self.path):
            self.file.write(stored.tobytes())
        shown = rgb if rgb is not None else flow
        assert shown is not None
        return logits, attention_to(best, maps, scorer.network, cuts, plan.centers, shown)

    def write_header(self) -> None:
        """Writes how many windows there are. Raises `StorageError`."""
        header = {"descr": "<f4", "fortran_order": False, "shape": self.shape}
        with storage_errors(self.path):
            self.file.seek(0)
            np.lib.format.write_array_header_1_0(self.file, header)  # of one length, however many windows


@contextmanager
def attention_file(predictor: Predictor, path: Path) -> Iterator[AttentionWriter]:
    """Stores maps at `path`: float32 [W, streams, S, C, h, w], each the classifier's weights times the features of a
    cell, plus its bias; the file is there when the block ends without an exception. Raises `StorageError`."""
    with atomic_file(path) as temporary:
        with storage_errors(path):
            file = temporary.open("wb")
        with file:
            writer = AttentionWriter(predictor, path, file)
            yield writer
            writer.write_header()


# ------------------------------------------------------------------ drawing


def strongest(attentions: Sequence[Attention]) -> dict[str, float]:
    """The largest value of each stream's maps, which is drawn at full strength."""
    return {name: max(float(one.maps[name].max()) for one in attentions) for name in attentions[0].maps}


def draw_attention(picture: np.ndarray, attention: Attention, stream: str, frame: int, scale: float) -> np.ndarray:
    """A picture with what speaks for the class, at the step nearest to the frame.

    Args:
        picture: RGB uint8 [H, W, 3].
        attention: Of the frame's window.
        frame: Its index in the video.
        scale: The value at full strength.

    Returns:
        RGB uint8 [H, W, 3].
    """
    step = int(np.argmin(np.abs(np.array(attention.frames) - frame)))
    height, width = picture.shape[:2]
    places = [
        np.interp((np.arange(side) + 0.5) / side, middles, np.arange(len(middles))).astype(np.float32)
        for side, middles in zip((height, width), attention.middles, strict=True)
    ]
    columns, rows = np.meshgrid(places[1], places[0])
    spread = cv2.remap(attention.maps[stream][step].astype(np.float32), columns, rows, cv2.INTER_LINEAR)
    strength = np.clip(spread / max(scale, 1e-9), 0, 1)[..., None]
    colour = (1 - strength) * _HEAT[0] + strength * _HEAT[1]
    return np.rint(picture + _MOST * strength * (colour - picture)).astype(np.uint8)
