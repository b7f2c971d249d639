"""What a prediction looks at: which frames and fields of a video, and flow made as the run's was.

Letters: H W pixels, T centers, L flow fields of a stack, M fields.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.datasets.artifact_reader import DecodedClip
from pipelines.errors import MissingError, UsageError
from pipelines.optical_flow.batch import method_input
from pipelines.optical_flow.methods import METHODS, FlowMethod, make_method, options_of
from pipelines.optical_flow.store import fields_of_pairs
from pipelines.storage.flow_settings import DEFAULT_BOUND, DEFAULT_STEP, FlowSettings
from pipelines.storage.jpeg import as_stored
from pipelines.storage.typed_json import first_difference
from pipelines.training.runs import Run


@dataclass(frozen=True)
class TrainedFlow:
    """How the flow of a run was made, and the method that makes more of it."""

    method: FlowMethod | None
    """None if the network takes no flow."""
    settings: FlowSettings
    device: torch.device


def trained_flow(
    run: Run, settings: FlowSettings | None, options: Mapping[str, str], needed: bool, device: torch.device
) -> TrainedFlow:
    """Makes the flow method that a run was trained with.

    Args:
        run: The run, to name in messages.
        settings: `flow` of the run's configuration.
        options: Parameters of the method that only say where its weights are.
        needed: Whether the network takes flow.
        device: Where to compute, if the method can.

    Raises:
        MissingError: The run's flow cannot be computed here.
        UsageError: `options` would change the flow.
    """
    if not needed:
        unused = settings or FlowSettings.of("none", {}, DEFAULT_BOUND, DEFAULT_STEP, "video")
        return TrainedFlow(None, unused, torch.device("cpu"))
    if settings is None or settings.method not in METHODS:
        what = (
            f"with flow of method {settings.method!r}" if settings else "without flow that its configuration describes"
        )
        raise MissingError(
            f"run {run.name} was trained {what}, which stres cannot compute (it has {', '.join(METHODS)}): train a run "
            "on flow of `stres extract-flow`"
        )
    method = make_method(settings.method, options_of(settings.parameters) | dict(options), str(device))
    difference = first_difference(settings.parameters, method.parameters, "method_parameters")
    if difference:
        raise UsageError(
            f"the flow would differ from that of run {run.name}: {difference}; --method-option is for weights=FILE only"
        )
    return TrainedFlow(method, settings, device if method.uses_device else torch.device("cpu"))


class FlowOnDemand:
    """The quantised fields of one video, each computed when it is first asked for, and kept until forgotten.

    `frames` holds the RGB frames by index and may change between calls; `computed` counts the fields made.
    """

    def __init__(self, flow: TrainedFlow, frames: Mapping[int, np.ndarray]) -> None:
        self.flow = flow
        self.frames = frames
        self.computed = 0
        self.kept: dict[int, np.ndarray] = {}

    def fields(self, indices: Iterable[int]) -> np.ndarray:
        """The fields that start at these frames: levels [M, 2, H, W]. Raises `VideoError` if a GPU is too small."""
        wanted = [int(index) for index in indices]
        missing = sorted(set(wanted) - self.kept.keys())
        method, settings = self.flow.method, self.flow.settings
        assert method is not None

        def frames(indices: list[int]) -> list[np.ndarray]:
            pictures = (self.frames[index] for index in indices)
            stored = map(as_stored, pictures) if settings.flow_input == "jpeg" else pictures
            return [method_input(picture, method) for picture in stored]

        for start in range(0, len(missing), method.batch_size):
            part = missing[start : start + method.batch_size]
            before, after = frames(part), frames([index + settings.step for index in part])
            fields = fields_of_pairs(before, after, method, settings, self.flow.device)
            self.kept.update(zip(part, fields, strict=True))
            self.computed += len(part)
        return np.stack([self.kept[index] for index in wanted])

    def forget(self, before: int) -> None:
        """Drops the fields that start before that frame."""
        for index in [index for index in self.kept if index < before]:
            del self.kept[index]


@dataclass(frozen=True)
class FramePlan:
    """Which frames and fields a span of a video, tested as a clip of its own, needs; all indices are the video's."""

    centers: np.ndarray
    """RGB frames: int64 [T]."""
    stacks: np.ndarray
    """Flow fields: int64 [T, L]."""
    step: int
    streams: frozenset[str]

    def frames(self) -> set[int]:
        """The frames that have to be decoded to pixels."""
        needed: set[int] = set()
        if "appearance" in self.streams:
            needed.update(self.centers.tolist())
        if "motion" in self.streams:
            needed.update(self.stacks.ravel().tolist(), (self.stacks.ravel() + self.step).tolist())
        return needed

    def pixels(self, frames: Mapping[int, np.ndarray], flow: FlowOnDemand) -> DecodedClip:
        """What an `ArtifactReader` reads of stored artifacts, made from decoded frames.

        Frames go through the JPEG that they would be stored as, so a prediction equals the evaluation.
        """
        pictures = fields = None
        distinct, frame_index = np.unique(self.centers, return_inverse=True)
        if "appearance" in self.streams:
            pictures = np.stack([as_stored(frames[int(index)]) for index in distinct])
        numbers, stack_index = np.unique(self.stacks, return_inverse=True)
        if "motion" in self.streams:
            fields = flow.fields(numbers)
        return DecodedClip(pictures, frame_index, fields, stack_index.reshape(self.stacks.shape))
