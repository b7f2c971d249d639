"""The prediction of one video: as a whole, or over time with its files."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from pipelines.evaluation.videos import class_finder
from pipelines.prediction.predictor import DecodedVideo, Logits, Predictor, probabilities
from pipelines.prediction.progress import PredictionProgress
from pipelines.prediction.results import BEST, ClassProbability, Prediction, TimelineFiles
from pipelines.prediction.windows import Duration
from pipelines.sources.videos import VideoSource
from pipelines.storage.workspace import UNLABELLED
from pipelines.video.timing import Timing


def predict_whole(predictor: Predictor, source: VideoSource, progress: PredictionProgress) -> Prediction:
    """Raises `VideoError` if the video cannot be decoded or is too short."""
    video = DecodedVideo(predictor, source.file, progress.frames)
    logits = predictor.logits(video.pixels)
    return _prediction(predictor, source, video.timing, logits, video.pairs, video.warning)


def predict_over_time(
    predictor: Predictor,
    source: VideoSource,
    lengths: tuple[Duration, Duration],
    path: Path,
    *,
    threshold: float,
    overlay: bool,
    attention: bool,
    progress: PredictionProgress,
) -> Prediction:
    """Predicts the windows of a video, and writes them as a timeline.

    Args:
        predictor: What predicts each window.
        source: The video.
        lengths: Window and hop.
        path: Of the timeline's files, without suffix.
        threshold: The probability below which a window is part of no segment.
        overlay: Whether to write the video with its classes, too.
        attention: Whether to write what the network looks at, and to draw it in the overlay.
        progress: Counts decoded and drawn frames.

    Raises:
        VideoError: The video cannot be decoded or is too short.
        StorageError: A file cannot be written.
    """
    from pipelines.prediction.attention import AXES, attention_file
    from pipelines.prediction.overlay import write_overlay  # these load matplotlib
    from pipelines.prediction.timeline import timeline_of
    from pipelines.prediction.timeline_files import write_timeline

    array = path.with_name(f"{path.name}.npy")
    with attention_file(predictor, array) if attention else nullcontext() as writer:
        timeline = timeline_of(predictor, source.file, *lengths, progress.frames, writer, threshold)
    truth = {} if source.class_name == UNLABELLED else {"truth": source.class_name}
    about = {"video": str(source.path), "run": predictor.run.name, **truth, **vars(predictor.protocol)}
    if attention:
        about["attention"] = {"file": array.name, "axes": AXES, "streams": sorted(predictor.streams)}
    files = write_timeline(path, timeline, about) | ({"npy": array} if attention else {})
    if overlay:
        files["mp4"] = write_overlay(
            path, timeline, source.path, predictor, lambda done, total: progress.frames(done, total, "draw")
        )
    summary = TimelineFiles(
        segments=timeline.segments(),
        windows=len(timeline.windows),
        window=str(timeline.window),
        hop=str(timeline.hop),
        window_frames=timeline.window_frames,
        hop_frames=timeline.hop_frames,
        files=files,
    )
    return _prediction(predictor, source, timeline.timing, timeline.mean, timeline.pairs, timeline.warning, summary)


def _prediction(
    predictor: Predictor,
    source: VideoSource,
    timing: Timing,
    logits: Logits,
    pairs: int,
    warning: str,
    timeline: TimelineFiles | None = None,
) -> Prediction:
    by_stream = probabilities(logits)
    headline: Sequence[float] = list(by_stream.values())[-1]
    best = sorted(range(len(headline)), key=lambda index: -headline[index])[:BEST]
    class_name = None if source.class_name == UNLABELLED else source.class_name
    truth = None if class_name is None else class_finder(predictor.classes)(class_name)
    return Prediction(
        video=str(source.path),
        class_name=class_name,
        frames=len(timing.times),
        fps=timing.fps,
        top=[ClassProbability(predictor.classes[index], headline[index]) for index in best],
        probabilities=by_stream,
        logits={name: values.tolist() for name, values in logits.items()},
        pairs=pairs,
        timeline=timeline,
        right=None if truth is None else truth == best[0],
        warning=warning,
    )
