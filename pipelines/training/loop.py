"""One training step from its first update to its last, through interruptions, on one device or many.

Letters: B videos, T frames, C classes.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F

from pipelines.datasets.preparation import Prepare
from pipelines.datasets.sampler import batches_per_epoch
from pipelines.datasets.samples import Batch
from pipelines.errors import Interrupted, MissingError
from pipelines.models import StreamLogits, STResNet
from pipelines.models.dropout import VideoDropout
from pipelines.options import Precision
from pipelines.runtime.progress import OnProgress, Progress
from pipelines.runtime.signals import StopRequest
from pipelines.training.compilation import compiled
from pipelines.training.data_parallel import Part, Sharing, parts_of, taking_no_part, without_exchange
from pipelines.training.metrics_log import MetricsLog
from pipelines.training.optimiser import learning_rate, make_optimiser, set_learning_rate, total_iterations
from pipelines.training.recipes import STEPS, Step
from pipelines.wording import percent

UPDATES_A_LOG_LINE = 10
LINES_SHOWN = 5
"""Log lines that the loss and accuracy shown are the mean of: those of one line are of few videos."""
_LOWEST_SCALE = 1e-4  # of fp16's loss; it begins at 65536, and every skipped update halves it


class Diverged(MissingError):
    """The loss or a weight is no longer a finite number."""


@dataclass
class StepState:
    """How far a step has come. `sums` are since the last log line, on the device; they and `bad` are this rank's.

    recent  the sums of the last `LINES_SHOWN` lines, with the number of their `updates`; of rank 0
    last    what they come to (`means`), with the number of `updates` and `videos`
    """

    iteration: int = 0
    seconds: float = 0.0
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    recent: list[dict[str, float]] = field(default_factory=list)

    def shown(self) -> dict[str, float | int | str]:
        """The means over the recent updates, as progress shows them: of two streams the accuracy of both fused."""
        accuracies = [value for name, value in self.last.items() if name.endswith("_accuracy")]
        if not accuracies:
            return {}
        return {
            "loss": self.last["loss"],
            "training accuracy": f"{percent(accuracies[-1])} %",
            "of the last": f"{self.last['updates']:.0f} updates",
        }


class StepTrainer:
    """Trains `model` by one recipe step; everything it needs to continue is in `state_dict()`.

    `seed`: of dropout, whose draws depend on it, the step, the update and the micro-batch, and on nothing else.
    `sharing`: which part of every batch this process computes, where several train together.
    """

    def __init__(
        self,
        model: STResNet,
        step: Step,
        videos: int,
        device: torch.device,
        precision: Precision = "fp32",
        *,
        seed: int = 0,
        sharing: Sharing | None = None,
        compile_network: bool = False,
    ) -> None:
        self.model = model.to(device)
        self.step = step
        self.videos = videos
        self.total = total_iterations(step, videos)
        self.device = device
        self.precision = precision
        self.seed = seed
        self.sharing = sharing or Sharing(step, videos)
        self.moments = self.sharing.prepare(model)
        self.shared_model = self.sharing.wrap(model)
        self.network = compiled(self.shared_model) if compile_network else self.shared_model
        self.dropouts = [module for module in model.modules() if isinstance(module, VideoDropout)]
        self.prepare = Prepare().to(device)
        self.optimiser = make_optimiser(self.model, step, may_skip=precision == "fp16")
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.state = StepState()
        # The first update whose loss was not finite; on the device, so that looking for one does not wait for it.
        self.diverged = torch.full((), math.inf, dtype=torch.float64, device=device)

    def run(
        self,
        batches: Callable[[int], Iterator[Batch]],
        log: MetricsLog | None,
        stop: StopRequest,
        save: Callable[[], None],
        save_seconds: float,
        on_progress: OnProgress,
    ) -> None:
        """Goes on until the last update.

        `batches(k)` gives this rank's share of the batches from number k on. `save` is called every `save_seconds` and
        when `stop` was requested, in which case `Interrupted` is raised afterwards; on all ranks after the same update.
        Raises `Diverged` before numbers that are not finite are logged or saved.
        """
        self.model.train()
        started = saved = time.monotonic()
        already = self.state.seconds
        for batch in batches(self.state.iteration):
            self.update(batch)
            now = time.monotonic()
            self.state.seconds = already + now - started
            if self.state.iteration % UPDATES_A_LOG_LINE == 0 or self.state.iteration == self.total:
                self._require_finite(weights=True)
                self._log(log)
            elif self.device.type == "cpu":  # a GPU would have to be waited for
                self._require_finite()
            on_progress(
                Progress(f"train {self.step.name}", self.state.iteration, self.total, "updates", self.state.shown())
            )
            if self.state.iteration == self.total:
                break
            signal_number, due = self.sharing.largest([stop.signal_number or 0, now - saved >= save_seconds])
            if signal_number or due:
                self._require_finite(weights=True)
                save()
                saved = time.monotonic()
            if signal_number:
                raise Interrupted(int(signal_number))

    def update(self, batch: Batch) -> None:
        """One update from one batch, in micro-batches; damaged samples are noted and left out.

        A micro-batch is cut by places, so that a damaged sample moves no other one into another. One of which a single
        video is left is left out too, since batch norm has no statistics of one.
        """
        self.state.bad.update(batch.bad)
        set_learning_rate(self.optimiser, learning_rate(self.step, self.state.iteration, self.total))
        places = int(self.sharing.sum([batch.places])[0])
        mine = _cut(batch, self.sharing.parts(places))
        videos = self._videos_of_parts(places, mine)
        count = sum(videos)
        if count:
            used = [content for content in mine if videos[content.part.number]]
            with self.moments.of_batch([n / count for n in videos]):
                self._accumulate_all(used, count)
            self.scaler.step(self.optimiser)
            self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self.state.iteration += 1

    def _videos_of_parts(self, places: int, mine: "list[_Content]") -> list[int]:
        """How many videos each micro-batch of the whole batch contributes."""
        planned = [part.size for part in parts_of(places, self.step.micro_batch)]
        found = [0] * len(planned)
        for content in mine:
            found[content.part.number] = len(content.batch)
        videos = [int(number) for number in self.sharing.sum(found)]
        return [0 if n == 1 < size else n for n, size in zip(videos, planned, strict=True)]

    def _accumulate_all(self, mine: "list[_Content]", count: int) -> None:
        """Adds the gradients of this rank's micro-batches of a batch of `count` videos; the last ones bring those of
        all ranks together, for which a rank that has none goes through an empty pass."""
        for content in mine[:-1]:
            with without_exchange(self.shared_model):
                self._accumulate(content, count)
        if mine:
            self._accumulate(mine[-1], count)
        else:
            self._keep_up()

    def _accumulate(self, content: "_Content", count: int) -> None:
        """Adds the gradients of one micro-batch, or this rank's part of one."""
        if not len(content.batch):
            self._keep_up()
            self.moments.collect(content.part.number)
            return
        batch = content.batch.to(self.device)
        self._seed_dropout(content)
        inputs = self.prepare(batch.rgb, batch.flow)
        with self._autocast():
            logits = self.network(*inputs)
        loss = video_loss(logits, batch.labels, self.step.label_smoothing)
        # The average over ranks of gradients is to be the sum over all videos divided by their number.
        self.scaler.scale(loss / (count / self.sharing.size)).backward()
        self.moments.collect(content.part.number)
        self._sum("loss", loss.detach())
        update = torch.full_like(self.diverged, self.state.iteration + 1)
        self.diverged = torch.where(torch.isfinite(loss.detach()), self.diverged, torch.minimum(self.diverged, update))
        self._sum("videos", batch.labels.new_full((), len(batch)))
        for name, correct in correct_videos(logits, batch.labels).items():
            self._sum(f"{name}_accuracy", correct)

    def _keep_up(self) -> None:
        """A pass that gives nothing, so that whatever ranks do together in one is done on all of them."""
        frames, channels = self.step.frames, self.model.flow_channels
        rgb = torch.zeros(1, frames, 3, 32, 32, dtype=torch.uint8, device=self.device)
        flow = torch.zeros(1, frames, channels, 32, 32, dtype=torch.uint8, device=self.device)
        inputs = self.prepare(
            rgb if self.model.appearance is not None else None, flow if self.model.motion is not None else None
        )
        with taking_no_part(self.model), self._autocast():
            logits = self.shared_model(*inputs)
        loss = video_loss(logits, torch.zeros(1, dtype=torch.int64, device=self.device))
        self.scaler.scale(0 * loss).backward()

    def _seed_dropout(self, content: "_Content") -> None:
        seed = (self.seed, STEPS.index(self.step.name), self.state.iteration, content.part.number)
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]))
        for dropout in self.dropouts:
            dropout.share = (content.places, content.part.size)

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def _sum(self, name: str, value: torch.Tensor) -> None:
        self.state.sums[name] = self.state.sums.get(name, 0) + value.double()

    def _require_finite(self, *, weights: bool = False) -> None:
        """Raises `Diverged`, on all ranks alike, where a loss was not finite; with `weights` also where one of the
        network's tensors is not, or no scale makes fp16's gradients so."""
        tensor = self._broken_tensor() if weights else ""
        stuck = weights and self.scaler.is_enabled() and self.scaler.get_scale() < _LOWEST_SCALE
        first, broken, scaled = self.sharing.largest([-float(self.diverged), bool(tensor), stuck])
        number = self.state.iteration
        if first > -math.inf:
            number = int(-first)
            what = f"the loss of update {number} of {self.total} is not a finite number"
        elif broken:
            what = f"after update {number} of {self.total} {tensor or 'a tensor'} holds NaN or infinity"
        elif scaled:
            what = f"until update {number} of {self.total} the gradients were not finite in fp16, however scaled"
        else:
            return
        rate = learning_rate(self.step, number - 1, self.total)
        raise Diverged(f"{self.step.name} diverged: {what}, at a learning rate of {rate:.3g}")

    def _broken_tensor(self) -> str:
        """The name of the first tensor of the network that is not finite; empty where there is none."""
        floats = {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}
        largest = torch.stack(torch._foreach_norm(list(floats.values()), math.inf))  # of NaN it is NaN
        if bool(torch.isfinite(largest).all()):
            return ""
        return list(floats)[int((~torch.isfinite(largest)).nonzero()[0])]

    def _log(self, log: MetricsLog | None) -> None:
        self.bring_together()
        sums = {name: float(value) for name, value in self.state.sums.items()}
        updates = (self.state.iteration - 1) % UPDATES_A_LOG_LINE + 1
        self.state.recent = [*self.state.recent[1 - LINES_SHOWN :], {"updates": updates, **sums}]
        self.state.last = self._means(self.state.recent)
        self.state.sums = {}
        passes = self.step.passes(self.videos)
        order = self.state.iteration / batches_per_epoch(self.videos, passes, self.step.batch_size)
        epoch = order * passes / self.step.factor
        rate = learning_rate(self.step, self.state.iteration - 1, self.total)
        means = self._means(self.state.recent[-1:])
        line = {**means, "lr": rate, "epoch": round(epoch, 4), "seconds": round(self.state.seconds, 3)}
        if log is not None:
            log.write(self.state.iteration, line)

    def _means(self, lines: list[dict[str, float]]) -> dict[str, float]:
        """Of the updates of those log lines: `loss`, the mean of the cross-entropies of all videos, streams and time
        steps; `summed_loss`, what is optimised, which adds them up over streams and time steps; and the accuracies."""
        names = dict.fromkeys(name for line in lines for name in line)
        total = {name: sum(line.get(name, 0.0) for line in lines) for name in names}
        videos, updates = total.pop("videos", 0.0), total.pop("updates")
        means = {name: value / max(1.0, videos) for name, value in total.items()}
        summed = means.pop("loss", None)
        losses = {} if summed is None else {"loss": summed / self.step.terms, "summed_loss": summed}
        return {**losses, **means, "videos": videos, "updates": updates}

    def bring_together(self) -> None:
        """Gives rank 0 the sums of all ranks, and every rank all that is known of bad videos."""
        if self.sharing.size == 1:
            return
        own = [{name: float(value) for name, value in self.state.sums.items()}, self.state.bad]
        gathered = self.sharing.gather(own)
        names = list(dict.fromkeys(name for sums, _ in gathered for name in sums))
        totals = {name: sum(sums.get(name, 0.0) for sums, _ in gathered) for name in names}
        self.state.bad = {id_: reason for _, bad in gathered for id_, reason in bad.items()}
        self.state.sums = {}
        if self.sharing.ranks.is_first:
            device = self.device
            self.state.sums = {n: torch.tensor(v, dtype=torch.float64, device=device) for n, v in totals.items()}

    def state_dict(self) -> dict[str, object]:
        """Everything that continuing needs: weights, optimiser, scaler, position. All ranks call it; 0's counts."""
        self.bring_together()
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "iteration": self.state.iteration,
            "seconds": self.state.seconds,
            "sums": self.state.sums,
            "bad": self.state.bad,
            "last": self.state.last,
            "recent": self.state.recent,
        }

    def load_state_dict(self, content: dict) -> None:
        """Puts `state_dict()` back, bit for bit; all ranks call it with rank 0's."""
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        first = self.sharing.ranks.is_first
        sums = {name: value.to(self.device) for name, value in content["sums"].items()} if first else {}
        recent = content.get("recent", [])  # checkpoints of 0.1.0 have none
        self.state = StepState(content["iteration"], content["seconds"], sums, content["bad"], content["last"], recent)
        if "updates" not in self.state.last:
            self.state.last = {}


@dataclass(frozen=True)
class _Content:
    """This rank's part of a micro-batch: the readable videos, and their places in the micro-batch."""

    part: Part
    batch: Batch
    places: list[int]


def _cut(batch: Batch, parts: list[Part]) -> list[_Content]:
    """A batch that holds the places of all `parts` end to end, cut into them."""
    contents, start = [], 0
    for part in parts:
        stop = start + part.stop - part.start
        readable = [place for place in range(start, stop) if place not in batch.missing]
        places = [place - start + part.start - part.first for place in readable]
        contents.append(_Content(part, batch.part_of_places(start, stop), places))
        start = stop
    return contents


def video_loss(logits: StreamLogits, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Sum over videos of both streams' cross-entropies summed over the T' time steps: a scalar.

    `logits`: each [B, T', C] or None; `labels`: int64 [B], repeated for each time step. Divide by the number of videos
    of the whole batch for the average.
    """
    total = labels.new_zeros((), dtype=torch.float32)
    for stream in logits:
        if stream is not None:
            steps = stream.shape[1]
            total = total + F.cross_entropy(
                stream.flatten(0, 1).float(),
                labels.repeat_interleave(steps),
                label_smoothing=label_smoothing,
                reduction="sum",
            )
    return total


def correct_videos(logits: StreamLogits, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """How many videos each stream, and their sum, put into the right class by logits averaged over time.

    Scalars on the device of the logits, so that counting does not wait for it.
    """
    means = {name: stream.detach().float().mean(1) for name, stream in logits._asdict().items() if stream is not None}
    if len(means) == 2:
        means["fused"] = means["appearance"] + means["motion"]
    return {name: (mean.argmax(1) == labels).sum() for name, mean in means.items()}
