"""Stage `predict`: classifies video files directly with a trained run; nothing is stored.

The result is what `evaluate` would give for the video's frames and flow, had they been extracted as those that the run
was trained on.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines.datasets.video_names import spelled_as
from pipelines.errors import MissingError, StorageError, UsageError, VideoError
from pipelines.evaluation.protocols import CROPS, ProtocolSettings
from pipelines.interface import options
from pipelines.interface.options import Option
from pipelines.prediction.progress import STAGE, PredictionProgress
from pipelines.prediction.results import Prediction, Result, Truth, write_csv
from pipelines.prediction.speed import about_speed
from pipelines.prediction.windows import lengths
from pipelines.runtime.progress import OnProgress, ignore_progress, note
from pipelines.runtime.ranks import ranks
from pipelines.sources.names import is_video
from pipelines.sources.videos import AS_IT_SAYS, ReadAs, VideoSource, find_videos
from pipelines.storage.atomic import remove_left_over_temporary_files, require_writable
from pipelines.storage.failures import Failure, record_outcomes
from pipelines.storage.workspace import UNLABELLED, Workspace
from pipelines.training.runs import Chosen, Run, choose_run

if TYPE_CHECKING:
    from pipelines.prediction.predictor import Predictor

_TIMELINE = "Timeline"


@dataclass(frozen=True)
class Config(ProtocolSettings):
    """Settings of `predict`."""

    videos: Annotated[Sequence[str], Option(argument=True, metavar="VIDEOS", repeated=True)]
    """Videos, folders of videos, list files (path label), globs."""
    workspace: options.WorkspaceFolder
    run: options.RunOrFolder = None
    step: options.UsedNetwork = None
    checkpoint: options.UsedCheckpoint = "last"
    _: KW_ONLY
    crops: Annotated[
        int | None, Option(metavar="N", minimum=1, default="25; for a timeline's window 5, or as many as in training")
    ] = None
    timeline: Annotated[bool, Option(group=_TIMELINE)] = False
    """Write the class over time: CSV, JSON, a picture, and segments as a list and as subtitles."""
    window: Annotated[str | None, Option(metavar="LENGTH", default="2", group=_TIMELINE)] = None
    """Length of a timeline's window: in seconds (2, 0.5s) or frames (50f)."""
    hop: Annotated[str | None, Option(metavar="LENGTH", default="half a window", group=_TIMELINE)] = None
    """Distance from one window to the next."""
    threshold: Annotated[float, Option(metavar="SHARE", minimum=0, maximum=1, group=_TIMELINE)] = 0.0
    """Leave windows whose best class is less probable than that, 0 to 1, out of the timeline's segments."""
    overlay: Annotated[bool, Option(group=_TIMELINE)] = False
    """With --timeline: also write the video with its classes."""
    attention: Annotated[bool, Option(group=_TIMELINE)] = False
    """With --timeline: also write class activation maps (.npy): where the network saw each class. The overlay then
    shows those of the best class."""
    output: Annotated[Path | None, Option(metavar="DIR", default="the workspace's predictions/", group=_TIMELINE)] = (
        None
    )
    """Folder for the timelines."""
    csv: Annotated[Path | None, Option(metavar="FILE")] = None
    """Also write the predictions as CSV, a row a video."""
    fusion_weight: options.TestedFusionWeight = options.EQUAL_WEIGHTS
    device: options.DeviceName = "auto"
    precision: options.TestPrecision = "fp32"
    method_options: Annotated[options.MethodOptions, Option(group=options.RARELY)] = field(default_factory=dict)
    """weights=FILE, if the run's flow method reads its weights from a file."""
    allow_truncated: Annotated[options.AllowTruncated, Option(group=options.RARELY)] = False
    """Classify truncated videos as far as they decode."""
    read_as: ReadAs = AS_IT_SAYS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.videos:
            raise UsageError("VIDEOS: give at least one video, folder, list file or glob")
        lengths(self.window, self.hop)
        for flag in ("window", "hop", "output", "threshold"):
            if (value := getattr(self, flag)) and not self.timeline:
                raise UsageError(f"--{flag} {value} goes with --timeline only")
        if self.csv is not None and (self.csv.is_dir() or is_video(self.csv)):
            raise UsageError(f"--csv {self.csv} is a folder or a video: name a file to write, such as predictions.csv")
        for flag, asked in (("--overlay", self.overlay), ("--attention", self.attention)):
            if asked and not self.timeline:
                raise UsageError(f"{flag} goes with --timeline only")
        if self.attention and self.views != "full":
            raise UsageError(f"--attention needs whole frames: leave --views {self.views} out")

    @property
    def output_folder(self) -> Path:
        """Of the timelines' files."""
        return self.output or Workspace(self.workspace).root / "predictions"


OnPrediction = Callable[[Prediction], None]


def run(
    config: Config,
    on_progress: OnProgress = ignore_progress,
    on_prediction: OnPrediction = lambda prediction: None,
) -> Result:
    """Predicts every video; under torchrun the ranks share the videos, and rank 0 reports them.

    Videos that cannot be read are listed in the result and in the workspace's `failures.csv`.

    Args:
        config: What to predict, and how.
        on_progress: Receives the progress.
        on_prediction: Receives each prediction as it is made.

    Raises:
        MissingError: The run, all videos or what computes the flow are missing.
        UsageError: The run cannot be tested by this protocol.
        StorageError: Timelines or the CSV file cannot be written.
    """
    from pipelines.evaluation.fusion_weight import known_weight

    chosen = ranks().broadcast_from_rank0(
        lambda: choose_run(Workspace(config.workspace), config.run, config.step, config.checkpoint)
    )
    sources, failures, notes = ranks().broadcast_from_rank0(lambda: _sources(config))
    ranks().broadcast_from_rank0(lambda: _prepare_folders(config))
    weight, about_weight = ranks().broadcast_from_rank0(
        lambda: known_weight(chosen, config.fusion_weight, Workspace(config.workspace), config.run)
    )
    predictor = _predictor(replace(config, fusion_weight=weight), chosen)
    on_progress = ranks().speaker(on_progress)
    for text in (chosen.warning, about_weight, about_speed(chosen.run, chosen.step), *notes):
        if text:
            on_progress(note(text))
    started = time.monotonic()
    progress = PredictionProgress(on_progress, len(sources), len(failures))
    for failure in failures:
        progress.failed(failure)
    outcomes = _predict_each(config, predictor, sources, progress, on_prediction)
    predictions = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    failures += [outcome for outcome in outcomes if isinstance(outcome, Failure)]

    def result() -> Result:
        _record(Workspace(config.workspace), predictions, failures, on_progress)
        if config.csv is not None:
            write_csv(config.csv, predictions, predictor.classes)
        seconds, protocol = time.monotonic() - started, predictor.protocol
        video_seconds = sum(prediction.seconds for prediction in predictions)
        return Result(
            run=chosen.run.name,
            step=protocol.step,
            protocol=protocol.document(),
            classes=predictor.classes,
            predictions=predictions,
            failures=failures,
            seconds=seconds,
            video_seconds=video_seconds,
            video_seconds_per_second=video_seconds / max(seconds, 1e-9),
            truth=Truth.of(predictions, _trained_on(chosen.run, sources, outcomes)),
        )

    return ranks().broadcast_from_rank0(result)


def _trained_on(run: Run, sources: Sequence[VideoSource], outcomes: Sequence[Prediction | Failure]) -> int:
    """How many of the videos with a class that the run knows have names of those it was trained on; 0 where it does not
    tell."""
    try:
        learned = spelled_as(run.trained_on())
    except MissingError:
        return 0
    return sum(
        isinstance(outcome, Prediction) and outcome.right is not None and learned(source.id) is not None
        for source, outcome in zip(sources, outcomes, strict=True)
    )


def _sources(config: Config) -> tuple[list[VideoSource], list[Failure], list[str]]:
    """All videos, what was named but is not one, and in words how each of VIDEOS was read that is not a single video.
    Raises `MissingError` if there is no video at all."""
    sources: list[VideoSource] = []
    failures: list[Failure] = []
    notes: list[str] = []
    missing: list[tuple[str, MissingError]] = []
    for argument in config.videos:
        try:
            videos = find_videos(argument, to_store=False, workspace=config.workspace, read_as=config.read_as)
        except MissingError as error:
            missing.append((argument, error))
            continue
        if segment := next((source for source in videos.videos if source.segment), None):
            raise UsageError(
                f"{argument} lists segments, such as {segment.segment} of {segment.path.name}, and predict looks at "
                "whole videos: name these, with --timeline for class over time; `stres evaluate` tests stored segments"
            )
        sources += videos.videos
        failures += [Failure(STAGE, p.class_name, p.video, str(p.path), p.problem) for p in videos.problems]
        if videos.account is not None and not is_video(Path(argument)):
            notes += videos.account.sentences()
    if not sources:
        raise missing[0][1] if missing else MissingError(f"{failures[0].path}: {failures[0].reason}")
    failures += [
        Failure(STAGE, UNLABELLED, Path(argument).stem, str(Path(argument).absolute()), str(error))
        for argument, error in missing
    ]
    return sources, failures, notes


def _predictor(config: Config, chosen: Chosen) -> "Predictor":
    from pipelines.prediction.predictor import Predictor, crops_of_a_window
    from pipelines.runtime.devices import device_for

    crops = crops_of_a_window(chosen.run, chosen.step) if config.timeline else CROPS
    return Predictor(
        chosen.run,
        replace(config.protocol_for(chosen, crops), fusion_weight=config.fusion_weight),
        device_for(config.device, config.precision),
        precision=config.precision,
        options=config.method_options,
        allow_truncated=config.allow_truncated,
    )


def _predict_each(
    config: Config,
    predictor: "Predictor",
    sources: Sequence[VideoSource],
    progress: PredictionProgress,
    on_prediction: OnPrediction,
) -> list[Prediction | Failure]:
    """What became of each video, in their order; on rank 0, of all ranks. Raises `StorageError`."""
    from pipelines.prediction.one_video import predict_over_time, predict_whole

    paths: list[Path] = []
    if config.timeline:
        from pipelines.prediction.timeline_files import free_paths

        paths = list(free_paths(config.output_folder, sources))
        require_writable(*(path.parent for path in paths))

    def predict(number: int) -> Prediction | Failure:
        source = sources[number]
        try:
            if not config.timeline:
                return predict_whole(predictor, source, progress)
            return predict_over_time(
                predictor,
                source,
                lengths(config.window, config.hop),
                paths[number],
                threshold=config.threshold,
                overlay=config.overlay,
                attention=config.attention,
                progress=progress,
            )
        except VideoError as error:
            return Failure(STAGE, source.class_name, source.video, str(source.path), str(error))

    def work(numbers: Iterator[int]) -> Generator[tuple[int, Prediction | Failure]]:
        yield from ((number, predict(number)) for number in numbers)

    done: dict[int, Prediction | Failure] = {}
    with contextlib.closing(ranks().pool(len(sources), work)) as outcomes:
        for _, (number, outcome) in outcomes:
            done[number] = outcome
            if isinstance(outcome, Failure):
                progress.failed(outcome)
                continue
            on_prediction(outcome)
            progress.predicted(outcome)
    return [done[number] for number in sorted(done)]


def _prepare_folders(config: Config) -> None:
    """Raises `StorageError` where results could not be written; removes what killed predictions left there."""
    remove_left_over_temporary_files(Workspace(config.workspace).root, below=False)
    if config.timeline:
        require_writable(config.output_folder)
        # Another folder than the workspace's may hold anything: it is not searched through.
        remove_left_over_temporary_files(config.output_folder, below=config.output is None)
    if config.csv is not None:
        require_writable(files=[config.csv])
        remove_left_over_temporary_files(config.csv.parent, below=False)


def _record(
    workspace: Workspace, predictions: Sequence[Prediction], failures: Sequence[Failure], on_progress: OnProgress
) -> None:
    """Records the outcomes in the workspace's `failures.csv`, if there is a workspace. One that can only be read is no
    reason to withhold the predictions."""
    if not workspace.root.is_dir():
        return
    done = [Failure(STAGE, "", "", prediction.video, "").key for prediction in predictions]
    try:
        record_outcomes(workspace, failed=failures, succeeded=done)
    except StorageError as error:
        on_progress(note(f"the failures are not recorded: {error}"))
