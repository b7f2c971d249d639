"""Stage `predict`: classes with probabilities straight from video files, by a trained run; nothing is stored.

What comes out is what `evaluate` would give for the video's frames and flow, had they been extracted as those that the
run was trained on. Letters: C classes.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pipelines import evaluate, options
from pipelines.errors import MissingError, StorageError, UsageError, VideoError
from pipelines.options import Option, TemporalName, ViewName
from pipelines.prediction.duration import Duration
from pipelines.prediction.progress import STAGE, PredictionProgress
from pipelines.prediction.results import BEST, ClassProbability, Prediction, Result, TimelineFiles, Truth
from pipelines.runtime.progress import OnProgress, ignore_progress, note
from pipelines.runtime.ranks import ranks
from pipelines.sources.names import is_video
from pipelines.sources.videos import VideoSource, find_videos
from pipelines.storage.atomic import read_json, require_writable
from pipelines.storage.failures import Failure, record_outcomes
from pipelines.training.runs import Chosen, Run, choose_run
from pipelines.workspace import UNLABELLED, Workspace

if TYPE_CHECKING:
    from pipelines.prediction.predictor import Logits, Predictor
    from pipelines.video.timing import Timing

CROPS = 25
CROPS_OF_A_WINDOW = 5
_TIMELINE, _RARELY = "Timeline", "Rarely needed"
_WINDOW, _HOP = Duration(2, in_frames=False), Duration(1, in_frames=False)


@dataclass(frozen=True)
class Config:
    """Settings of `predict`."""

    videos: Annotated[Sequence[str], Option(argument=True, metavar="VIDEOS", repeated=True)]
    """Videos, folders of class folders, list files (path label), globs."""
    workspace: options.WorkspaceFolder
    run: options.RunOrFolder = None
    step: options.UsedNetwork = None
    crops: Annotated[
        int | None, Option(metavar="N", minimum=1, default="25; of a timeline's window 5, or those of training")
    ] = None
    """Frames of a video, spaced evenly."""
    views: ViewName = "full"
    """full (whole frames), center, 3, 5, or 10 crops (5 and mirrors)."""
    mirror: Annotated[bool | None, Option(default="with full and 10")] = None
    """Also mirrored."""
    temporal: TemporalName = "sequence"
    """sequence (all frames as one) or windows (of the training's length)."""
    timeline: Annotated[bool, Option(group=_TIMELINE)] = False
    """Class over time: CSV, JSON and a picture."""
    window: Annotated[str | None, Option(metavar="LENGTH", default="2", group=_TIMELINE)] = None
    """Of the timeline's window: seconds (2, 0.5s) or frames (50f)."""
    hop: Annotated[str | None, Option(metavar="LENGTH", default="half a window", group=_TIMELINE)] = None
    """From one window to the next."""
    overlay: Annotated[bool, Option(group=_TIMELINE)] = False
    """With --timeline: also the video with its classes."""
    output: Annotated[Path | None, Option(metavar="DIR", default="predictions/ in the workspace", group=_TIMELINE)] = (
        None
    )
    """Folder of the timelines' files."""
    device: options.DeviceName = "auto"
    precision: options.TestPrecision = "fp32"
    method_options: Annotated[options.MethodOptions, Option(group=_RARELY)] = field(default_factory=dict)
    """weights=FILE, where the run's flow method has them in one."""
    allow_truncated: Annotated[options.AllowTruncated, Option(group=_RARELY)] = False
    """Take truncated videos as far as they decode."""

    def __post_init__(self) -> None:
        options.check(self)
        if not self.videos:
            raise UsageError("VIDEOS: give at least one video, folder, list file or glob")
        self.protocol_settings(CROPS)
        window, hop = self.lengths()
        if hop.in_frames == window.in_frames and hop.number > window.number:
            raise UsageError(f"--hop {hop} is more than --window {window}: what lies between would not be looked at")
        for flag, value in (("--window", self.window), ("--hop", self.hop), ("--output", self.output)):
            if value is not None and not self.timeline:
                raise UsageError(f"{flag} {value} goes with --timeline only")
        if self.overlay and not self.timeline:
            raise UsageError("--overlay goes with --timeline only")

    def protocol_settings(self, crops: int) -> evaluate.Config:
        """The same settings for `evaluate`, which checks them and has their defaults."""
        return evaluate.Config(
            workspace=self.workspace,
            crops=crops if self.crops is None else self.crops,
            views=self.views,
            mirror=self.mirror,
            temporal=self.temporal,
            device=self.device,
            precision=self.precision,
        )

    @property
    def output_folder(self) -> Path:
        """Of the timelines' files."""
        return self.output or Workspace(self.workspace).root / "predictions"

    def lengths(self) -> tuple[Duration, Duration]:
        """Window and hop. Raises `UsageError` for what is no length."""
        window = _WINDOW if self.window is None else Duration.parse("--window", self.window)
        if self.hop is not None:
            return window, Duration.parse("--hop", self.hop)
        return window, _HOP if self.window is None else window.half()


OnPrediction = Callable[[Prediction], None]


def _ignore_prediction(prediction: Prediction) -> None:
    """The `on_prediction` of a caller who waits for the result."""


# ------------------------------------------------------------------ the stage


def run(
    config: Config,
    on_progress: OnProgress = ignore_progress,
    on_prediction: OnPrediction = _ignore_prediction,
) -> Result:
    """Predicts every video; `on_prediction` is told of each as it is done. Under torchrun the ranks share the videos,
    and rank 0 is told.

    Videos that cannot be read are listed in the result and in the workspace's `failures.csv`. Raises `MissingError`
    where run, videos or what computes the flow are missing, `UsageError` where the run cannot be tested so,
    `StorageError` where timelines cannot be written.
    """
    chosen = ranks().broadcast_from_rank0(lambda: choose_run(Workspace(config.workspace), config.run, config.step))
    trained = chosen.run
    sources, failures, told = ranks().broadcast_from_rank0(lambda: _sources(config))
    if config.timeline:
        ranks().broadcast_from_rank0(lambda: require_writable(config.output_folder))
    predictor = _predictor(config, chosen)
    if not ranks().is_first:
        on_progress = ignore_progress
    for text in (chosen.warning, *told):
        if text:
            on_progress(note(text))
    started = time.monotonic()
    progress = PredictionProgress(on_progress, len(sources), len(failures))
    for failure in failures:
        progress.failed(failure)
    outcomes = _predict_each(config, predictor, trained, sources, progress, on_prediction)
    predictions = [outcome for outcome in outcomes if isinstance(outcome, Prediction)]
    failures += [outcome for outcome in outcomes if isinstance(outcome, Failure)]

    def result() -> Result:
        _record(config, predictions, failures, on_progress)
        return _result(predictor, trained, predictions, failures, time.monotonic() - started)

    return ranks().broadcast_from_rank0(result)


def _result(
    predictor: "Predictor", trained: Run, predictions: list[Prediction], failures: list[Failure], seconds: float
) -> Result:
    protocol = predictor.protocol
    video_seconds = sum(prediction.seconds for prediction in predictions)
    return Result(
        run=trained.name,
        step=protocol.step,
        protocol={name: getattr(protocol, name) for name in ("frames", "views", "mirror", "temporal")},
        classes=predictor.classes,
        predictions=predictions,
        failures=failures,
        seconds=seconds,
        video_seconds=video_seconds,
        video_seconds_per_second=video_seconds / max(seconds, 1e-9),
        truth=Truth.of(predictions),
    )


def _sources(config: Config) -> tuple[list[VideoSource], list[Failure], list[str]]:
    """All videos, what was named but is none, and how each of VIDEOS was read but single videos, in words. Raises
    `MissingError` where nothing is left."""
    sources: list[VideoSource] = []
    failures: list[Failure] = []
    told: list[str] = []
    missing: list[tuple[str, MissingError]] = []
    for argument in config.videos:
        try:
            found = find_videos(argument, to_store=False, workspace=config.workspace)
        except MissingError as error:
            missing.append((argument, error))
            continue
        sources += found.videos
        failures += [Failure(STAGE, p.class_name, p.video, str(p.path), p.reason) for p in found.problems]
        if found.account is not None and not is_video(Path(argument)):
            told += found.account.sentences()
    if not sources:
        raise missing[0][1] if missing else MissingError(f"{failures[0].path}: {failures[0].reason}")
    failures += [
        Failure(STAGE, UNLABELLED, Path(argument).stem, str(Path(argument).absolute()), str(error))
        for argument, error in missing
    ]
    return sources, failures, told


def _predictor(config: Config, chosen: Chosen) -> "Predictor":
    from pipelines.prediction.predictor import Predictor
    from pipelines.runtime.devices import device_for

    crops = _crops_of_a_window(chosen.run, chosen.step) if config.timeline else CROPS
    return Predictor(
        chosen.run,
        config.protocol_settings(crops).protocol(chosen.step),
        device_for(config.device, config.precision),
        precision=config.precision,
        options=config.method_options,
        allow_truncated=config.allow_truncated,
    )


def _crops_of_a_window(trained: Run, step: str) -> int:
    steps = {str(name): config.step for name, config in trained.config().steps.items()}
    return max(CROPS_OF_A_WINDOW, steps[step].frames if step in steps else 1)


def _with_places(config: Config, sources: Sequence[VideoSource]) -> Iterator[tuple[VideoSource, Path]]:
    """Each video with the path of its timeline's files, without suffix; no two share one, nor takes one what an earlier
    command left of another video."""
    folder = config.output_folder
    taken: set[Path] = set()
    for source in sources:
        place = folder / source.video if source.class_name == UNLABELLED else folder / source.class_name / source.video
        names = (place.with_name(f"{place.name}-{number}") for number in itertools.count(2))
        free = next(
            name for name in itertools.chain([place], names) if name not in taken and not _is_of_another(name, source)
        )
        taken.add(free)
        yield source, free


def _is_of_another(place: Path, source: VideoSource) -> bool:
    """Whether the timeline there is of another video."""
    with contextlib.suppress(MissingError, AttributeError):
        return bool(read_json(place.with_name(f"{place.name}.json")).get("video") != str(source.path))
    return False


# ------------------------------------------------------------------ one by one


def _predict_each(
    config: Config,
    predictor: "Predictor",
    trained: Run,
    sources: Sequence[VideoSource],
    progress: PredictionProgress,
    on_prediction: OnPrediction,
) -> list[Prediction | Failure]:
    """What became of each video, in their order; on rank 0, of all ranks. Raises `StorageError`."""
    places = list(_with_places(config, sources))

    def work(numbers: Iterator[int]) -> Generator[tuple[int, Prediction | Failure]]:
        for number in numbers:
            source, place = places[number]
            outcome: Prediction | Failure
            try:
                outcome = _predict(config, predictor, trained, source, place, progress)
            except VideoError as error:
                outcome = Failure(STAGE, source.class_name, source.video, str(source.path), str(error))
            yield number, outcome

    found: dict[int, Prediction | Failure] = {}
    with contextlib.closing(ranks().pool(len(places), work)) as outcomes:
        for _, (number, outcome) in outcomes:
            found[number] = outcome
            if isinstance(outcome, Failure):
                progress.failed(outcome)
                continue
            on_prediction(outcome)
            progress.predicted(outcome)
    return [found[number] for number in sorted(found)]


def _predict(
    config: Config, predictor: "Predictor", trained: Run, source: VideoSource, place: Path, progress: PredictionProgress
) -> Prediction:
    """Raises `VideoError`, `StorageError`."""
    if not config.timeline:
        from pipelines.prediction.predictor import Clip

        clip = Clip(predictor, source.file, lambda done, total: progress.frames(done, total))
        return _prediction(predictor, source, clip.timing, predictor.logits(clip.pixels), clip.pairs, clip.warning)
    from pipelines.prediction.overlay import write_overlay
    from pipelines.prediction.timeline import slide
    from pipelines.prediction.timeline_files import write_timeline

    timeline = slide(predictor, source.file, *config.lengths(), lambda done, total: progress.frames(done, total))
    truth = {} if source.class_name == UNLABELLED else {"truth": source.class_name}
    about = {"video": str(source.path), "run": trained.name, **truth, **vars(predictor.protocol)}
    files = write_timeline(place, timeline, about)
    if config.overlay:

        def draw(done: int, total: int) -> None:
            progress.frames(done, total, "draw")

        files["mp4"] = write_overlay(
            place,
            timeline,
            source.path,
            predictor.decoder,
            config.allow_truncated,
            draw,
        )
    short = TimelineFiles(
        segments=timeline.segments(),
        windows=len(timeline.windows),
        window=str(timeline.window),
        hop=str(timeline.hop),
        window_frames=timeline.window_frames,
        hop_frames=timeline.hop_frames,
        files=files,
    )
    return _prediction(predictor, source, timeline.timing, timeline.mean, timeline.pairs, timeline.warning, short)


def _prediction(
    predictor: "Predictor",
    source: VideoSource,
    timing: "Timing",
    logits: "Logits",
    pairs: int,
    warning: str,
    timeline: TimelineFiles | None = None,
) -> Prediction:
    from pipelines.evaluation.videos import class_finder
    from pipelines.prediction.predictor import probabilities

    found = probabilities(logits)
    headline = list(found.values())[-1]
    given = None if source.class_name == UNLABELLED else class_finder(predictor.classes)(source.class_name)
    best = sorted(range(len(headline)), key=lambda index: -headline[index])[:BEST]
    return Prediction(
        video=str(source.path),
        class_name=None if source.class_name == UNLABELLED else source.class_name,
        frames=len(timing.times),
        fps=timing.fps,
        top=[ClassProbability(predictor.classes[index], headline[index]) for index in best],
        probabilities=found,
        logits={name: values.tolist() for name, values in logits.items()},
        pairs=pairs,
        timeline=timeline,
        right=None if given is None else given == best[0],
        warning=warning,
    )


# ------------------------------------------------------------------ accounts


def _record(
    config: Config, predictions: Sequence[Prediction], failures: Sequence[Failure], on_progress: OnProgress
) -> None:
    """Enters the outcomes into the workspace's `failures.csv`, if there is a workspace. One that may only be read is
    no reason to keep the predictions back."""
    workspace = Workspace(config.workspace)
    if not workspace.root.is_dir():
        return
    done = [Failure(STAGE, "", "", prediction.video, "").key for prediction in predictions]
    try:
        record_outcomes(workspace, failed=failures, succeeded=done)
    except StorageError as error:
        on_progress(note(f"the failures are not recorded: {error}"))
