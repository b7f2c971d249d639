"""A trained network that looks at videos: decoding, flow, views and scores of one span of a video after the other.

Letters: C classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from pipelines.datasets.artifact_reader import DecodedClip
from pipelines.datasets.augmentation import REFERENCE
from pipelines.datasets.clips import Clips
from pipelines.datasets.samples import views_of
from pipelines.datasets.sampling import flow_indices, spaced_centers
from pipelines.errors import VideoError
from pipelines.evaluation.protocols import Protocol
from pipelines.evaluation.scoring import Output, Scorer, mean_logits, shortest_window, with_fused
from pipelines.optical_flow.store import require_pairs
from pipelines.prediction.inputs import FlowOnDemand, FramePlan, trained_flow
from pipelines.runtime.devices import memory_errors
from pipelines.training.runs import Run, load_network, recipe_of
from pipelines.video.decoding import VideoReader, damage
from pipelines.video.isolation import Decoder, IsolatedReader
from pipelines.video.timing import Timing

Logits = dict[str, np.ndarray]
"""Of each stream, and `fused` if there are both: float64 [C]."""
Reader = IsolatedReader | VideoReader


class Predictor:
    """The network `protocol.step` of a run, tested by that protocol on spans of videos.

    Args:
        run: A trained run.
        protocol: How to test it.
        device: Where network and flow are computed.
        precision: `fp32` or `bf16`.
        options: Parameters of the flow's method that say where its weights are.
        allow_truncated: Take truncated videos as far as they decode.
        open_video: Called as `Decoder.open`, which decodes in a process of its own and is the default.

    Raises:
        MissingError: Weights, or what computes the flow, are missing.
        UsageError: The network cannot be tested by this protocol.
    """

    def __init__(
        self,
        run: Run,
        protocol: Protocol,
        device: torch.device,
        *,
        precision: str = "fp32",
        options: Mapping[str, str] | None = None,
        allow_truncated: bool = False,
        open_video: Callable[..., Reader] | None = None,
    ) -> None:
        config = run.config()
        self.run, self.protocol, self.allow_truncated = run, protocol, allow_truncated
        self.open_video = open_video or Decoder().open
        self.classes: list[str] = list(config.classes)
        self.size: tuple[int, int] = config.size
        self.recipe = recipe_of(config, protocol.step)
        self.scorer = Scorer(load_network(run, protocol.step), device, precision)
        self.streams = frozenset(self.scorer.network.streams)
        self.stack = self.scorer.network.flow_channels // 2
        self.flow = trained_flow(run, config.flow, options or {}, "motion" in self.streams, device)
        self.short_side = config.flow.short_side if config.flow else config.frames_short_side
        self.cuts = protocol.windows(self.recipe.frames, shortest_window(self.scorer.network), run.name)

    @contextmanager
    def open(self, path: Path) -> Iterator[Reader]:
        """Opens the video at the size of the run's frames and flow.

        A video that gets this short side by the default rule of the extracting stages is left to the rule, which does
        not cut a column off pictures of odd width.
        """
        reader: Reader = self.open_video(path, allow_truncated=self.allow_truncated)
        short_side = self.short_side
        if short_side is not None and min(reader.width, reader.height) != short_side:
            reader.close()
            reader = self.open_video(path, short_side, allow_truncated=self.allow_truncated)
        with reader:
            yield reader

    @property
    def least_frames(self) -> int:
        """That any look at a video takes, of which there is flow."""
        return self.flow.settings.step + 1

    def plan(self, start: int, length: int) -> FramePlan:
        """What to look at of the `length` frames from `start` on. Raises `VideoError` if they are too few for flow."""
        clip, step = self.protocol.clip(self.recipe), self.flow.settings.step
        return self.plan_of(spaced_centers(length, self.protocol.frames, self.stack, step, clip), length, start)

    def plan_of(self, centers: Sequence[int] | np.ndarray, length: int, start: int = 0) -> FramePlan:
        """What to look at for these of the `length` frames from `start` on, where they are counted from. Raises
        `VideoError` if those are too few for flow."""
        step = self.flow.settings.step
        if "motion" in self.streams:
            require_pairs(length, step)
        stacks = np.stack([flow_indices(int(center), max(length - step, 1), self.stack) for center in centers])
        return FramePlan(start + np.array(centers, np.int64), start + stacks, step, self.streams)

    def logits(self, pixels: DecodedClip) -> Logits:
        """The mean logits of what one span shows."""
        return self.with_fused(self.mean(pixels, mean_logits))

    def with_fused(self, logits: Logits) -> Logits:
        """The logits of the streams, and where there are both `fused`, as the protocol weights them."""
        return with_fused(logits, float(self.protocol.fusion_weight))

    def mean(
        self, pixels: DecodedClip, output: Output, cuts: Sequence[Sequence[int]] | None = None
    ) -> dict[str, np.ndarray]:
        """The mean of `output` over what goes through the network for one span, of each stream: float64. `cuts`: which
        of its frames go together, if not those of the protocol."""
        with memory_errors("use --precision bf16 or fewer --crops"):
            means = self.scorer.mean(*self.views(pixels), self.cuts if cuts is None else cuts, output)
        return {name: values.numpy() for name, values in means.items()}

    def views(self, pixels: DecodedClip) -> tuple[Clips | None, Clips | None]:
        """What goes into the network: V views of T frames and of T stacks."""
        protocol, reference = self.protocol, REFERENCE[self.recipe.augmentation]
        return views_of(pixels, self.size, views=protocol.views, mirror=protocol.mirror, reference=reference)


def frames_of_training(run: Run, step: str) -> int:
    """How many frames went through the network `step` of the run together in training."""
    trained = {str(name): made.step.frames for name, made in run.config().steps.items()}
    return trained.get(step, 1)


def crops_of_a_window(run: Run, step: str) -> int:
    """How many frames of a window are looked at where `--crops` does not say."""
    return max(5, frames_of_training(run, step))


def probabilities(logits: Logits) -> dict[str, list[float]]:
    """Softmax of each stream's logits."""
    return {name: torch.from_numpy(values).softmax(0).tolist() for name, values in logits.items()}


# ------------------------------------------------------------------ whole videos


def warning_about(reader: Reader) -> str:
    """What a prediction must say about a video that has been read to its end; "" for nothing."""
    problems = [damage(reader.damaged_frames, reader.decoded)] if reader.damaged_frames else []
    if reader.timing.problem:
        problems.append(f"{reader.timing.problem}: times are those of {reader.timing.fps:g} frames a second")
    return "; ".join(problems)


OnFrames = Callable[[int, int], None]
"""Receives how many frames have been decoded, and how many the container announces (0: it does not)."""
_REPORTED = 32  # frames between two reports


class DecodedVideo:
    """The pixels of a whole video that a prediction looks at, and what is known of the video after decoding it.

    Only frames that are looked at are kept. Which these are follows from the number of frames: mostly the container
    announces it correctly, otherwise the video is decoded once more.

    Args:
        on_frames: Receives the number of decoded frames.
        at_end: Receives the reader after the last frame.

    Raises:
        VideoError: The video cannot be decoded or is too short.
    """

    def __init__(
        self,
        predictor: Predictor,
        path: Path,
        on_frames: OnFrames,
        at_end: Callable[[Reader], None] = lambda reader: None,
    ) -> None:
        def decode(length: int) -> tuple[dict[int, np.ndarray], Timing, str]:
            """The frames that are needed if there are `length`, by index, and what is known in the end."""
            try:
                needed = predictor.plan(0, length).frames() if length > 0 else set()
            except VideoError:  # too short, if that is its length; what it really is is not known yet
                needed = set()

            def wanted(index: int) -> bool:
                if index % _REPORTED == 0:
                    on_frames(index, length)
                return index in needed

            with predictor.open(path) as reader:
                frames = dict(reader.pick(wanted))
                at_end(reader)
                return frames, reader.timing, warning_about(reader)

        with predictor.open(path) as reader:
            announced = reader.announced_frames
        frames, self.timing, self.warning = decode(announced)
        if len(self.timing.times) != announced:
            frames, self.timing, self.warning = decode(len(self.timing.times))
        flow = FlowOnDemand(predictor.flow, frames)
        self.pixels = predictor.plan(0, len(self.timing.times)).pixels(frames, flow)
        self.pairs = flow.computed
