"""How far a training step has come, and what it has measured on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import nn

from pipelines.datasets.sampler import batches_per_epoch
from pipelines.interface.wording import percent, plural
from pipelines.training.distillation import MATCHING_LOSSES
from pipelines.training.metrics_log import held_out_accuracy
from pipelines.training.optimiser import learning_rate
from pipelines.training.recipes import Step

UPDATES_PER_LOG_LINE = 10
LINES_SHOWN = 5
"""Log lines whose mean is shown as progress: those of a single line are of few videos."""


@dataclass
class StepState:
    """Updates done, seconds taken, and sums of what was measured."""

    iteration: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Taken for them, interruptions left out."""
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    """Since the last log line, of this process; on the device."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """The ids of videos that could not be read, with the reason; of this process."""
    last: dict[str, float] = field(default_factory=dict)
    """The means over `recent`, with the number of `updates` and `videos`; of rank 0."""
    recent: list[dict[str, float]] = field(default_factory=list)
    """The sums of the last `LINES_SHOWN` log lines, with the number of their `updates`; of rank 0."""

    validation: dict[str, float] = field(default_factory=dict)
    """What was last measured on videos held out; not kept, since the next log lines tell it again."""
    best: dict[str, Any] = field(default_factory=dict)
    """Of the best measured so far: the number of its `iterations`, what was measured (`metrics`), and the `model`'s
    tensors on the CPU; of rank 0."""

    def add(self, name: str, value: torch.Tensor) -> None:
        """Adds to the sum of that name."""
        self.sums[name] = self.sums.get(name, 0) + value.double()

    def end_line(self, step: Step, videos: int, total: int) -> dict[str, float]:
        """What the log line tells of the updates since the last one; the next line's sums begin at zero.

        Args:
            videos: Number of training videos.
            total: Updates of the whole step.
        """
        sums = {name: float(value) for name, value in self.sums.items()}
        updates = (self.iteration - 1) % UPDATES_PER_LOG_LINE + 1
        self.sums = {}
        self.recent = [*self.recent[1 - LINES_SHOWN :], {"updates": updates, **sums}]
        self.last = _means(self.recent, step.terms)
        passes = step.passes(videos)
        epoch = self.iteration / batches_per_epoch(videos, passes, step.batch_size) * passes / step.factor
        return {
            **_means(self.recent[-1:], step.terms),
            "lr": learning_rate(step, self.iteration - 1, total),
            "epoch": round(epoch, 4),
            "seconds": round(self.seconds, 3),
        }

    def keep_if_best(self, model: nn.Module) -> None:
        """Keeps a copy of the weights that were measured where they are the best so far: of the highest mean accuracy
        of the classes, and of equals of the lowest loss."""

        def order(metrics: Mapping[str, float]) -> tuple[float, float]:
            return metrics.get("validation_mean_class_accuracy", 0.0), -metrics["validation_loss"]

        if not self.best or order(self.validation) > order(self.best["metrics"]):
            copy = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            self.best = {"iterations": self.iteration, "metrics": self.validation, "model": copy}

    def shown(self) -> dict[str, float | int | str]:
        """The means over the recent updates, as progress shows them: of two streams the accuracy of both fused."""
        accuracies = [value for name, value in self.last.items() if name.endswith("_accuracy")]
        if not accuracies:
            return {}
        held_out = held_out_accuracy(self.validation)
        return {
            "loss": self.last["loss"],
            "training accuracy": f"{percent(accuracies[-1])} %",
            "of the last": plural(round(self.last["updates"]), "update"),
            **({} if held_out is None else {"held-out accuracy": f"{percent(held_out)} %"}),
            **({"best": f"{percent(held_out_accuracy(self.best['metrics']))} %"} if self.best else {}),
        }

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "iteration": self.iteration,
            "seconds": self.seconds,
            "sums": self.sums,
            "bad": self.unreadable,
            "last": self.last,
            "recent": self.recent,
            "best": self.best,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], device: torch.device, *, with_sums: bool) -> Self:
        """What `to_dict` gave, or stres 0.1 wrote.

        Args:
            device: For the sums.
            with_sums: Whether this process takes the sums, which are those of all processes, and the best weights.
        """
        sums = {name: value.to(device) for name, value in content["sums"].items()} if with_sums else {}
        recent = content.get("recent", [])  # stres 0.1 wrote none
        last = content["last"] if "updates" in content["last"] else {}
        best = content.get("best", {}) if with_sums else {}
        return cls(content["iteration"], content["seconds"], sums, content["bad"], last, recent, best=best)


def _means(lines: Sequence[Mapping[str, float]], terms: int) -> dict[str, float]:
    """Over the updates of those log lines: `loss`, the mean of the cross-entropies of all videos, streams and time
    steps; `summed_loss`, what is optimised, which adds up the `terms` of a video; the accuracies; and
    what a student's matching lacks, of which videos without a class have a part too."""
    names = dict.fromkeys(name for line in lines for name in line)
    total = {name: sum(line.get(name, 0.0) for line in lines) for name in names}
    videos, updates = total.pop("videos", 0.0), total.pop("updates")
    matched = videos + total.pop("videos_without_class", 0.0)
    counts = {name: matched if name in MATCHING_LOSSES else videos for name in total}
    means = {name: value / max(1.0, counts[name]) for name, value in total.items()}
    summed = means.pop("loss", None)
    losses = {} if summed is None else {"loss": summed / terms, "summed_loss": summed}
    return {**losses, **means, "videos": videos, "updates": updates}
