"""Flow as a run was trained with it, of those pairs of frames that are asked for.

Letters: H W pixels, M fields.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from pipelines.errors import MissingError, UsageError, VideoError
from pipelines.optical_flow.methods import METHODS, FlowMethod, make_method, options_of
from pipelines.optical_flow.store import method_input
from pipelines.storage.flow_settings import DEFAULT_BOUND, DEFAULT_STEP, FlowSettings
from pipelines.storage.jpeg import as_stored
from pipelines.storage.quantise import quantise, require_finite
from pipelines.storage.typed_json import first_difference
from pipelines.training.runs import Run


@dataclass(frozen=True)
class TrainedFlow:
    """How the flow of a run was made, and the method that makes more of it (None where the network takes no flow)."""

    method: FlowMethod | None
    settings: FlowSettings
    device: torch.device


def trained_flow(
    run: Run, settings: FlowSettings | None, options: Mapping[str, str], needed: bool, device: torch.device
) -> TrainedFlow:
    """`settings`: `flow` of the run's configuration; `options`: parameters of the method that only say where its
    weights lie. `needed`: whether the network takes flow.

    Raises `MissingError` where the run's flow cannot be computed here, `UsageError` where `options` would change it.
    """
    method = _make_method(run, settings, options, str(device)) if needed else None
    return TrainedFlow(
        method=method,
        settings=settings or FlowSettings.of("none", {}, DEFAULT_BOUND, DEFAULT_STEP, "video"),
        device=device if method is not None and method.uses_device else torch.device("cpu"),
    )


def _make_method(run: Run, settings: FlowSettings | None, options: Mapping[str, str], device: str) -> FlowMethod:
    if settings is None or settings.method not in METHODS:
        what = (
            f"with flow of method {settings.method!r}" if settings else "without flow that its configuration describes"
        )
        raise MissingError(
            f"run {run.name} was trained {what}, which stres cannot compute (it has {', '.join(METHODS)}): train a run "
            "on flow of `stres extract-flow`"
        )
    method = make_method(settings.method, options_of(settings.parameters) | dict(options), device)
    difference = first_difference(settings.parameters, method.parameters, "method_parameters")
    if difference:
        raise UsageError(
            f"the flow would differ from that of run {run.name}: {difference}; --method-option is for weights=FILE only"
        )
    return method


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
        """The fields from these frames on: uint8 [M, 2, H, W]. Raises `VideoError` where a GPU is too small."""
        wanted = [int(index) for index in indices]
        missing = sorted(set(wanted) - self.kept.keys())
        assert self.flow.method is not None
        size = self.flow.method.batch_size
        for start in range(0, len(missing), size):
            self._compute(missing[start : start + size], self.flow.method)
        return np.stack([self.kept[index] for index in wanted])

    def forget(self, before: int) -> None:
        """Drops the fields of frames before that one."""
        for index in [index for index in self.kept if index < before]:
            del self.kept[index]

    def _compute(self, indices: list[int], method: FlowMethod) -> None:
        before, after = (
            self._batch([index + offset for index in indices], method) for offset in (0, self.flow.settings.step)
        )
        try:
            flow = method.flow(before, after)
            require_finite(torch.isfinite(flow).all())
            fields = quantise(flow, self.flow.settings.bound).cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise VideoError("not enough memory on the GPU for this video's flow: use --device cpu") from error
        self.kept.update(zip(indices, fields, strict=True))
        self.computed += len(indices)

    def _batch(self, indices: list[int], method: FlowMethod) -> torch.Tensor:
        pictures = (self.frames[index] for index in indices)
        stored = map(as_stored, pictures) if self.flow.settings.flow_input == "jpeg" else pictures
        return torch.from_numpy(np.stack([method_input(picture, method) for picture in stored])).to(self.flow.device)
