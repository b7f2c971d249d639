"""An exported file against the run it was made from, on a real video or on noise.

Letters: V views, B videos, T frames.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.datasets.preparation import as_stored
from pipelines.datasets.sampling import spread_evenly
from pipelines.deployment.formats import RunFile
from pipelines.deployment.model import Deployed, random_inputs
from pipelines.errors import MissingError, VideoError
from pipelines.evaluation.protocols import Protocol, default_temporal
from pipelines.evaluation.scoring import Scorer, with_fused
from pipelines.prediction.predictor import DecodedVideo, Predictor, probabilities
from pipelines.training.runs import Run, load_network, recipe_of

TOLERANCE = 1e-4
"""Largest difference allowed of any logit or probability, or of what the largest one is, if that is more than 1: what
float32 rounding explains."""
_FRAMES = 25


@dataclass(frozen=True)
class ExportCheck:
    """How far an exported file is from the run."""

    video: str | None
    """What they were compared on; None: noise."""
    class_name: str
    """What both see in it."""
    probability: float
    largest_difference: float
    shapes: list[tuple[int, int]]
    """(B, T) of each comparison."""


def clip_inputs(
    run: Run, video: Path, *, step: str | None = None, frames: int = _FRAMES, mirrored: bool = False
) -> dict[str, Tensor]:
    """Reads a video as an exported file takes it.

    Args:
        run: The run that the file was exported from.
        video: A video file.
        step: Which of the run's networks; None: the last.
        frames: How many frames, spaced evenly; a student always gets one clip as in its training.
        mirrored: Whether the mirror image comes, too, as a second video.

    Returns:
        What the network takes of both: `rgb` [1, T, 3, h, w] and `flow` [1, T, 2L, h, w], as stored, of the center of
        the picture; with `mirrored` [2, ...].

    Raises:
        VideoError: The video cannot be read.
    """
    chosen = run.choose(step)
    temporal = default_temporal(chosen)
    if temporal == "clips":
        frames = recipe_of(run.config(), chosen).frames
    return _inputs(run, video, Protocol(chosen, frames, "center", mirrored, temporal))


def _inputs(run: Run, video: Path, protocol: Protocol) -> dict[str, Tensor]:
    predictor = Predictor(run, protocol, torch.device("cpu"))
    clip = DecodedVideo(predictor, video, lambda done, total: None)
    views = dict(zip(("rgb", "flow"), as_stored(*predictor.views(clip.pixels)), strict=True))
    return {name: view.contiguous() for name, view in views.items() if view is not None}


def check(run_file: RunFile, model: Deployed, run: Run, step: str, video: Path | None) -> ExportCheck:
    """Compares an exported file with the run: two videos together and alone, with many frames and few.

    Args:
        step: Which of the run's networks.
        video: The file is compared on this video and its mirror image; None: on two videos of noise.

    Raises:
        MissingError: A difference is above `TOLERANCE`, or the video cannot be read.
    """
    frames = max(_FRAMES, model.fewest_frames)
    scorer = Scorer(load_network(run, step), torch.device("cpu"))
    try:
        if video:
            inputs = _inputs(run, video, Protocol(step, frames, "center", mirror=True, temporal="sequence"))
        else:
            noise = random_inputs(model, run.config().size, 2, frames)
            inputs = dict(zip(model.inputs, noise, strict=True))
    except VideoError as error:
        raise MissingError(f"--check {video}: {error}: name another video") from error
    assert list(inputs) == list(model.inputs)
    shapes = [(2, frames), (1, frames), (1, model.fewest_frames)]
    weight = model.fusion_weight
    largest = max(_difference(run_file, scorer, inputs, weight, *shape) for shape in shapes)
    if not largest <= TOLERANCE:  # NaN is not either
        raise MissingError(
            f"the exported file differs from the run by {largest:.2g} on {video or 'noise'}, more than {TOLERANCE:g}: "
            "it is not written; try the other --format, and report it"
        )
    logits = _reference(scorer, inputs, weight, 0, list(range(frames)))
    headline = list(logits.values())[-1]
    best = int(np.argmax(headline))
    probability = list(probabilities(logits).values())[-1][best]
    return ExportCheck(str(video) if video else None, run.config().classes[best], probability, largest, shapes)


def _difference(
    run_file: RunFile, scorer: Scorer, inputs: dict[str, Tensor], weight: float, videos: int, frames: int
) -> float:
    """The largest of any output, as `TOLERANCE` means it, for the first `videos` videos and so many of their frames."""
    total = next(iter(inputs.values())).shape[1]
    chosen = spread_evenly(0, total - 1, frames).tolist()
    found = run_file([value[:videos, chosen].contiguous() for value in inputs.values()])
    worst = 0.0
    for view in range(videos):
        logits = _reference(scorer, inputs, weight, view, chosen)
        headline = list(probabilities(logits).values())[-1]
        expected = {str(name): logits[name] for name in scorer.network.streams} | {"probabilities": np.array(headline)}
        for name, values in expected.items():
            difference = np.abs(found[name][view].double().numpy() - values)
            scale = max(1.0, float(np.abs(values).max()))
            worst = float(np.maximum(worst, difference.max() / scale))  # keeps NaN
    return worst


def _reference(
    scorer: Scorer, inputs: dict[str, Tensor], weight: float, view: int, frames: list[int]
) -> dict[str, np.ndarray]:
    """The run's own logits as `evaluate` has them, float64 [C] each."""
    rgb, flow = (inputs[name][view : view + 1] if name in inputs else None for name in ("rgb", "flow"))
    logits = scorer.mean(rgb, flow, [frames])
    return with_fused({name: values.numpy() for name, values in logits.items()}, weight)
