"""Stage: tests a run on the test videos of its split and saves every video's scores.

Reads `runs/<name>/`, `frames/` and `flow/`; leaves `scores/<run>/<protocol>/scores.h5` and `results.json`.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import MissingError, UsageError
from pipelines.progress import OnProgress, Progress, ignore_progress
from pipelines.training.runs import LATE_FUSION, Run, find_run, load_network
from pipelines.workspace import Failure, Workspace, read_json, record_outcomes, write_json

if TYPE_CHECKING:
    import torch

    from pipelines.datasets.augmentation import ViewName
    from pipelines.datasets.catalogue import Catalogue, Video
    from pipelines.datasets.loading import BadSample, StreamName, TestSample
    from pipelines.evaluation.scores import Scores

VIEWS: tuple["ViewName", ...] = ("full", "center", "3", "5", "10")
TEMPORALS = ("sequence", "windows")


@dataclass(frozen=True)
class Protocol:
    """How a video is tested (PAPER.md, "Testing").

    step      which of the run's networks: a training step, or `late` for the two base streams side by side
    frames    centres spaced evenly over the video
    views     "full": whole frames, fully convolutional; "center", "3", "5": crops; "10": 5 and their mirrors
    mirror    every view also mirrored
    temporal  "sequence": all frames as one sequence; "windows": windows of the T frames of training
    """

    step: str
    frames: int
    views: "ViewName"
    mirror: bool
    temporal: str

    @property
    def name(self) -> str:
        """The folder under `scores/<run>/`: every part of the protocol, so that no two share one."""
        mirror = "mirror" if self.mirror else "plain"
        return f"{self.step}-{self.frames}frames-{self.views}-{mirror}-{self.temporal}"


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
    device: str = "auto"
    precision: str = "fp32"
    workers: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if self.crops < 1:
            raise UsageError(f"--crops {self.crops}: it must be 1 or more (25 is the paper's)")
        for flag, value, accepted in (("--views", self.views, VIEWS), ("--temporal", self.temporal, TEMPORALS)):
            if value not in accepted:
                raise UsageError(f"{flag} {value!r} is not known: give one of {', '.join(accepted)}")
        if self.views == "10" and self.mirror is False:
            raise UsageError("--views 10 is five crops and their mirrors: without mirrors it is --views 5")

    def protocol(self, step: str) -> Protocol:
        """The protocol of this configuration: whole frames and ten crops come with mirrors unless told otherwise."""
        mirror = self.mirror if self.mirror is not None else self.views in ("full", "10")
        return Protocol(step, self.crops, self.views, mirror, self.temporal)


@dataclass(frozen=True)
class Result:
    """Where the scores lie and what they come to. `results` is the content of `results.json`."""

    run: str
    folder: Path
    results: dict[str, Any]
    missing_videos: list[str]
    failed: int
    seconds: float


def run(config: Config, on_progress: OnProgress = ignore_progress) -> Result:
    """Scores every test video of the run's split once.

    Raises `MissingError` where run, frames or flow are missing, `UsageError` where the workspace's flow contradicts
    what the run was trained with.
    """
    from pipelines.devices import resolve_device
    from pipelines.evaluation.metrics import results_document
    from pipelines.evaluation.scores import write_scores

    started = time.monotonic()
    workspace = Workspace(config.workspace)
    this = find_run(workspace, config.run)
    protocol = config.protocol(this.choose(config.step))
    device = resolve_device(config.device)
    settings = this.config()
    videos, missing = _test_videos(config, workspace, this, settings, on_progress)
    scores, failures = _score_all(config, this, protocol, settings, videos, device, on_progress)
    good = [("evaluate", video.class_name, video.video) for video in videos]
    record_outcomes(workspace, failed=failures, succeeded=good)
    folder = workspace.scores / this.name / protocol.name
    described = {name: value for name, value in asdict(protocol).items() if name != "step"}
    results = results_document(described, settings["split"], this.name, scores)
    results |= {"step": protocol.step, "missing": missing, "failed": [failure.video for failure in failures]}
    write_scores(folder / "scores.h5", scores, {"run": this.name, "split": settings["split"], **asdict(protocol)})
    write_json(folder / "results.json", results)
    return Result(this.name, folder, results, missing, len(failures), time.monotonic() - started)


def _test_videos(
    config: Config, workspace: Workspace, run: Run, settings: dict[str, Any], on_progress: OnProgress
) -> "tuple[list[Video], list[str]]":
    """The run's test videos that have frames and flow, and the ids of those that have not."""
    from pipelines.datasets.catalogue import flow_provenance, load_catalogue
    from pipelines.datasets.split_lists import Split
    from pipelines.datasets.splits import resolve
    from pipelines.training.configuration import first_difference

    catalogue: Catalogue = load_catalogue(workspace)
    difference = first_difference(settings["flow"], flow_provenance(catalogue))
    if difference and not config.force:
        raise UsageError(
            f"run {run.name} was trained with other flow than {workspace.root} holds: {difference}; extract the flow "
            "as it was, or accept the difference with --force"
        )
    split = resolve(Split(**read_json(run.split_file)), catalogue)
    missing, wanted = split.missing_test, len(split.missing_test) + len(split.test)
    if not split.test:
        raise MissingError(
            f"none of the {wanted} test videos of run {run.name} has frames and flow in {workspace.root}: run "
            "`stres extract-frames` and `stres extract-flow` on them first"
        )
    if missing:
        text = f"{len(missing)} of {wanted} test videos have no frames or no flow, for example {missing[0]}"
        on_progress(Progress("evaluate", 0, wanted, message=text))
    return split.test, missing


def _score_all(
    config: Config,
    run: Run,
    protocol: Protocol,
    settings: dict[str, Any],
    videos: "list[Video]",
    device: "torch.device",
    on_progress: OnProgress,
) -> "tuple[Scores, list[Failure]]":
    """Scores of every readable video, in the order of the split, and the failures of the others."""
    from pipelines.datasets.loading import BadSample
    from pipelines.datasets.sampling import windows
    from pipelines.evaluation.scoring import Scorer

    network = load_network(run, protocol.step)
    streams: tuple[StreamName, ...] = tuple(network.streams)
    scorer = Scorer(network, device, config.precision)
    length = _training_frames(settings, protocol) if protocol.temporal == "windows" else protocol.frames
    cuts = windows(protocol.frames, length)
    rows: dict[int, dict[str, torch.Tensor]] = {}
    failures: list[Failure] = []
    for done, sample in enumerate(_samples(config, protocol, settings, videos, streams, device), 1):
        if isinstance(sample, BadSample):
            video = videos[sample.index]
            failures.append(Failure("evaluate", video.class_name, video.video, str(video.frames_file), sample.reason))
        else:
            rows[sample.index] = scorer.score(sample.rgb, sample.flow, cuts)
        message = f"not scored: {sample.id}: {sample.reason}" if isinstance(sample, BadSample) else ""
        counts = {"failed": len(failures)} if failures else {}
        on_progress(Progress("evaluate", done, len(videos), metrics=counts, message=message))
    if not rows:
        raise MissingError(f"none of the {len(videos)} test videos could be read, for example: {failures[0].reason}")
    return _gather(rows, videos, settings["classes"]), failures


def _samples(
    config: Config,
    protocol: Protocol,
    settings: dict[str, Any],
    videos: "list[Video]",
    streams: "tuple[StreamName, ...]",
    device: "torch.device",
) -> "Iterator[TestSample | BadSample]":
    from pipelines.datasets.augmentation import REFERENCE
    from pipelines.datasets.loading import TestSamples, make_loader
    from pipelines.devices import loader_workers

    index = {name: label for label, name in enumerate(settings["classes"])}
    samples = TestSamples(
        videos,
        [index[video.class_name] for video in videos],
        size=settings["size"],
        crops=protocol.frames,
        views=protocol.views,
        mirror=protocol.mirror,
        reference=REFERENCE[_trained_step(settings, protocol)["crops"]],
        streams=streams,
        stack=settings["network"]["flow_channels"] // 2,
    )
    return iter(make_loader(samples, range(len(videos)), loader_workers(config.workers, device), device))


def _trained_step(settings: dict[str, Any], protocol: Protocol) -> dict[str, Any]:
    """The recipe of the step under test; of late fusion, the motion stream's."""
    return settings["steps"]["motion" if protocol.step == LATE_FUSION else protocol.step]


def _training_frames(settings: dict[str, Any], protocol: Protocol) -> int:
    return min(_trained_step(settings, protocol)["frames"], protocol.frames)


def _gather(rows: "dict[int, dict[str, torch.Tensor]]", videos: "list[Video]", classes: list[str]) -> "Scores":
    """One table of all videos; `fused` is the mean of both streams' logits (PAPER.md, "Testing")."""
    import numpy as np
    import torch

    from pipelines.evaluation.scores import Scores

    order = sorted(rows)
    streams = {name: torch.stack([rows[i][name] for i in order]).numpy() for name in rows[order[0]]}
    if len(streams) == 2:
        streams["fused"] = (streams["appearance"] + streams["motion"]) / 2
    index = {name: label for label, name in enumerate(classes)}
    return Scores(
        videos=[videos[i].id for i in order],
        labels=np.array([index[videos[i].class_name] for i in order], dtype=np.int64),
        classes=classes,
        **{name: value.astype(np.float32) for name, value in streams.items()},
    )
