"""Stage: tests a run on the test videos of its split and saves every video's scores.

Reads `runs/<name>/`, `frames/` and `flow/`; leaves `scores/<run>/<protocol>/scores.h5` and `results.json`.
"""

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.datasets.catalogue import unreadable
from pipelines.distributed import ranks
from pipelines.errors import MissingError, UsageError
from pipelines.evaluation.videos import TestVideos, find_test_videos, not_scored
from pipelines.progress import OnProgress, Progress, ignore_progress
from pipelines.training.runs import Run, find_run, load_network, recipe_of
from pipelines.workspace import Failure, Workspace, record_outcomes, write_json

if TYPE_CHECKING:
    import torch

    from pipelines.datasets.augmentation import ViewName
    from pipelines.datasets.catalogue import Video
    from pipelines.datasets.clips import Frames
    from pipelines.datasets.loading import BadSample, TestSample
    from pipelines.evaluation.scores import Scores
    from pipelines.evaluation.scoring import Scorer

VIEWS: tuple["ViewName", ...] = ("full", "center", "3", "5", "10")
TEMPORALS = ("sequence", "windows")
PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Protocol:
    """How a video is tested (PAPER.md, "Testing").

    step      which of the run's networks: a training step, or `late` for the two base streams side by side
    frames    centres spaced evenly over the video
    views     "full": whole frames, fully convolutional; "center", "3", "5": crops; "10": 5 and their mirrors
    mirror    every view also mirrored
    temporal  "sequence": all frames as one sequence; "windows": windows of the T frames of training
    recalibrate_bn  number of training videos that batch norm's statistics are taken from anew; 0: those of training
    """

    step: str
    frames: int
    views: "ViewName"
    mirror: bool
    temporal: str
    recalibrate_bn: int = 0

    @property
    def name(self) -> str:
        """The folder under `scores/<run>/`: every part of the protocol, so that no two share one."""
        mirror = "mirror" if self.mirror else "plain"
        statistics = f"-bn{self.recalibrate_bn}" if self.recalibrate_bn else ""
        return f"{self.step}-{self.frames}frames-{self.views}-{mirror}-{self.temporal}{statistics}"

    def windows(self, trained_on: int, shortest: int, run: str) -> list[list[int]]:
        """Which of the video's frames go through the network together; it was trained on `trained_on` at once.

        Raises `UsageError` where they are fewer than the `shortest` that the network can take.
        """
        from pipelines.datasets.sampling import windows

        cuts = windows(self.frames, trained_on if self.temporal == "windows" else self.frames)
        if len(cuts[0]) < shortest:
            raise UsageError(
                f"--crops {self.frames}: {self.step} of run {run} pools over {shortest} frames, give at least as many"
            )
        return cuts

    def document(self) -> dict[str, Any]:
        """All of it but the step; `recalibrate_bn` only where it was done."""
        parts = asdict(self)
        del parts["step"]
        if not self.recalibrate_bn:
            del parts["recalibrate_bn"]
        return parts


@dataclass(frozen=True)
class Config:
    """What to test and how. `run` None: the newest; `step` None: the run's last; `mirror` None: as `views` is used.

    force   accept flow that was made otherwise than the run's training flow
    """

    workspace: Path
    run: str | None = None
    step: str | None = None
    crops: int = 25
    views: "ViewName" = "full"
    mirror: bool | None = None
    temporal: str = "sequence"
    recalibrate_bn: int = 0
    device: str = "auto"
    precision: str = "fp32"
    workers: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if self.crops < 1:
            raise UsageError(f"--crops {self.crops}: it must be 1 or more (25 is the paper's)")
        if self.recalibrate_bn < 0:
            raise UsageError(f"--recalibrate-bn {self.recalibrate_bn}: give a number of training videos, 0 for none")
        _one_of("--views", self.views, VIEWS)
        _one_of("--temporal", self.temporal, TEMPORALS)
        _one_of("--precision", self.precision, PRECISIONS)
        if self.views == "10" and self.mirror is False:
            raise UsageError("--views 10 is five crops and their mirrors: without mirrors it is --views 5")

    def protocol(self, step: str) -> Protocol:
        """The protocol of this configuration: whole frames and ten crops come with mirrors unless told otherwise."""
        mirror = self.mirror if self.mirror is not None else self.views in ("full", "10")
        return Protocol(step, self.crops, self.views, mirror, self.temporal, self.recalibrate_bn)


def _one_of(flag: str, value: str, accepted: Iterable[str]) -> None:
    if value not in accepted:
        raise UsageError(f"{flag} {value!r} is not known: give one of {', '.join(accepted)}")


@dataclass(frozen=True)
class Result:
    """Where the scores lie and what they come to.

    results         the content of `results.json`
    missing_videos  ids of the test videos that have no frames or no flow
    failed          how many others could not be read (rows of `failures.csv`)
    """

    run: str
    folder: Path
    results: dict[str, Any]
    missing_videos: list[str]
    failed: int
    seconds: float


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Scores every test video of the run's split once; under torchrun the ranks share them, and rank 0 writes.

    Raises `MissingError` where run, frames or flow are missing, `UsageError` where the workspace's flow contradicts
    what the run was trained with, or the network cannot be tested as asked.
    """
    started = time.monotonic()
    workspace = Workspace(config.workspace)
    task = ranks().first_tells(lambda: _choose(workspace, config))
    scorer = _make_scorer(config, task)
    cuts = task.protocol.windows(task.recipe["frames"], scorer.shortest, task.run.name)
    test = ranks().first_tells(lambda: find_test_videos(workspace, task.run, task.settings, config.force))
    if not ranks().is_first:
        on_progress = ignore_progress
    test.tell(on_progress)
    if task.protocol.recalibrate_bn:
        _recalibrate(config, scorer, task, test.training, cuts, on_progress)
    logits, failures = _score_all(config, scorer, task, cuts, test, on_progress)
    return ranks().first_tells(lambda: _leave(workspace, config, task, test, logits, failures, started))


def _leave(
    workspace: Workspace,
    config: Config,
    task: "_Task",
    test: TestVideos,
    logits: "dict[int, dict[str, torch.Tensor]]",
    failures: list[Failure],
    started: float,
) -> Result:
    """Records what could not be scored and writes what could."""
    scored = [("evaluate", test.videos[i].class_name, test.videos[i].video) for i in logits]
    record_outcomes(workspace, failed=failures, succeeded=scored)
    if not logits:
        raise MissingError(
            f"no test video of run {task.run.name} could be scored: {test.why_none(failures)}; run "
            f"`stres extract-frames` and `stres extract-flow` on them in {workspace.root}"
        )
    folder = workspace.scores / task.run.name / task.protocol.name
    scores = _gather(logits, test, task.settings["classes"])
    unscored = {"missing": test.missing, "failed": [f"{failure.class_name}/{failure.video}" for failure in failures]}
    results = _write(folder, scores, task, config.precision, unscored)
    return Result(task.run.name, folder, results, test.missing, len(failures), time.monotonic() - started)


# ------------------------------------------------------------------ the network under test


@dataclass(frozen=True)
class _Task:
    """A run, one of its networks (`protocol.step`), and how that is tested.

    settings  the content of the run's `config.json`
    """

    run: Run
    settings: dict[str, Any]
    protocol: Protocol

    @property
    def recipe(self) -> dict[str, Any]:
        """How the network was trained; of late fusion, the motion stream."""
        return recipe_of(self.settings, self.protocol.step)


def _choose(workspace: Workspace, config: Config) -> _Task:
    run = find_run(workspace, config.run)
    return _Task(run, run.config(), config.protocol(run.choose(config.step)))


def _make_scorer(config: Config, task: _Task) -> "Scorer":
    from pipelines.devices import resolve_device
    from pipelines.evaluation.scoring import Scorer

    device = resolve_device(config.device)
    if config.precision != "fp32" and device.type != "cuda":
        raise UsageError(f"--precision {config.precision} needs a GPU; on the CPU use fp32")
    return Scorer(load_network(task.run, task.protocol.step), device, config.precision)


# ------------------------------------------------------------------ scoring


def _recalibrate(
    config: Config,
    scorer: "Scorer",
    task: _Task,
    training: "Sequence[Video]",
    cuts: list[list[int]],
    on_progress: OnProgress,
) -> None:
    """Takes batch norm's statistics from training videos, spaced evenly over their list, seen as in the test."""
    from pipelines.datasets.loading import TestSample
    from pipelines.datasets.sampling import spread_evenly
    from pipelines.devices import memory_errors
    from pipelines.evaluation.recalibration import recalibrate_batch_norm

    count = min(task.protocol.recalibrate_bn, len(training))
    chosen = [training[i] for i in spread_evenly(0, len(training) - 1, count)] if count else []

    def clips() -> "Iterator[tuple[Frames | None, Frames | None]]":
        for done, sample in enumerate(_samples(config, scorer, task, chosen, [0] * count), 1):
            if isinstance(sample, TestSample):  # one that is damaged is the training's to report
                for cut in cuts:
                    rgb, flow = (None if x is None else x.frames(cut) for x in (sample.rgb, sample.flow))
                    yield rgb, flow
            on_progress(Progress("recalibrate", done, count))

    try:
        with memory_errors("use fewer --crops, or --device cpu"):
            recalibrate_batch_norm(scorer.network, clips(), scorer.device)
    except ValueError:
        raise MissingError(
            f"--recalibrate-bn {task.protocol.recalibrate_bn}: none of {count} training videos of run {task.run.name} "
            "could be read: extract their frames and flow, or leave the option out"
        ) from None


def _samples(
    config: Config,
    scorer: "Scorer",
    task: _Task,
    videos: "Sequence[Video]",
    labels: Sequence[int],
    numbers: Iterable[int] | None = None,
) -> "Iterator[TestSample | BadSample]":
    """The pixels of each video in their order, or of those of the given numbers in that order."""
    from pipelines.datasets.augmentation import REFERENCE
    from pipelines.datasets.loading import TestSamples, make_loader
    from pipelines.devices import loader_workers

    samples = TestSamples(
        videos,
        labels,
        size=task.settings["size"],
        crops=task.protocol.frames,
        views=task.protocol.views,
        mirror=task.protocol.mirror,
        reference=REFERENCE[task.recipe["crops"]],
        streams=tuple(scorer.network.streams),
        stack=scorer.network.flow_channels // 2,
    )
    workers = loader_workers(config.workers, scorer.device)
    return iter(make_loader(samples, range(len(samples)) if numbers is None else numbers, workers, scorer.device))


def _score_all(
    config: Config,
    scorer: "Scorer",
    task: _Task,
    cuts: list[list[int]],
    test: TestVideos,
    on_progress: OnProgress,
) -> "tuple[dict[int, dict[str, torch.Tensor]], list[Failure]]":
    """The logits of every readable video by its place in `test.videos`, and all failures; on rank 0, of all ranks."""
    from pipelines.datasets.loading import BadSample
    from pipelines.devices import memory_errors

    def work(numbers: Iterator[int]) -> "Generator[tuple[int, dict[str, torch.Tensor] | str]]":
        """Of each video its logits, or why there are none."""
        for sample in _samples(config, scorer, task, test.videos, test.labels, numbers):
            if isinstance(sample, BadSample):
                yield sample.index, sample.reason
                continue
            with memory_errors("use --precision bf16, fewer --crops, or --device cpu"):
                scores = scorer.score(sample.rgb, sample.flow, cuts)
            yield sample.index, scores

    logits: dict[int, dict[str, torch.Tensor]] = {}
    failures = list(test.damaged)
    with contextlib.closing(ranks().pool(len(test.videos), work)) as outcomes:
        for done, (_, (index, outcome)) in enumerate(outcomes, 1):
            message = ""
            if isinstance(outcome, str):
                failures.append(unreadable("evaluate", test.videos[index], outcome))
                message = not_scored(failures[-1])
            else:
                logits[index] = outcome
            counts = {"failed": len(failures)} if failures else {}
            on_progress(Progress("evaluate", done, len(test.videos), metrics=counts, message=message))
    return logits, failures


def _gather(logits: "dict[int, dict[str, torch.Tensor]]", test: TestVideos, classes: list[str]) -> "Scores":
    """One table of all videos."""
    import numpy as np
    import torch

    from pipelines.evaluation.scores import Scores
    from pipelines.evaluation.scoring import with_fused

    order = sorted(logits)
    streams = with_fused({name: torch.stack([logits[i][name] for i in order]).numpy() for name in logits[order[0]]})
    return Scores(
        videos=[test.videos[i].id for i in order],
        labels=np.array([test.labels[i] for i in order], dtype=np.int64),
        classes=classes,
        **{name: value.astype(np.float32) for name, value in streams.items()},
    )


def _write(
    folder: Path, scores: "Scores", task: _Task, precision: str, unscored: dict[str, list[str]]
) -> dict[str, Any]:
    """Writes `scores.h5` and `results.json`; returns the latter's content."""
    from pipelines.evaluation.metrics import results_document
    from pipelines.evaluation.scores import write_scores

    run, split, protocol = task.run.name, task.settings["split"], task.protocol.document()
    step = {"step": task.protocol.step}
    results = results_document(protocol, split, run, scores) | step | unscored
    provenance = {
        "run": run,
        "split": split,
        "precision": precision,
        "weights_sha256": task.run.weights_sha256(task.protocol.step),
    }
    write_scores(folder / "scores.h5", scores, provenance | protocol | step)
    write_json(folder / "results.json", results)
    return results
