"""A timeline as CSV, one row a window, as a JSON document, and as a picture; its segments as a list and as subtitles;
and where these files go."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.errors import MissingError
from pipelines.interface.wording import numbered, percent, printable
from pipelines.prediction.timeline import Timeline
from pipelines.prediction.timeline_picture import draw_timeline
from pipelines.sources.videos import VideoSource
from pipelines.storage.atomic import read_json, write_bytes, write_json, write_text
from pipelines.storage.failures import csv_text
from pipelines.storage.workspace import UNLABELLED

SCHEMA = "stres/timeline/1"
SEGMENTS = "segments.csv"
SEGMENT_COLUMNS = ("path", "start", "end", "label", "score")
COLUMNS = ("start_seconds", "end_seconds", "start_frame", "end_frame", "class", "probability")


def free_paths(folder: Path, sources: Sequence[VideoSource]) -> Iterator[Path]:
    """The path of each video's timeline files, without suffix: no two videos share one, and none is that of another
    video's timeline from an earlier command."""
    taken: set[Path] = set()

    def is_free(path: Path, source: VideoSource) -> bool:
        if path in taken or f"{path.name}.csv".endswith(f".{SEGMENTS}"):  # the list of another video's segments
            return False
        with contextlib.suppress(MissingError, AttributeError):
            return bool(read_json(path.with_name(f"{path.name}.json")).get("video") == str(source.path))
        return True

    for source in sources:
        path = folder / source.video if source.class_name == UNLABELLED else folder / source.class_name / source.video
        paths = (path.with_name(name) for name in numbered(path.name))
        free = next(each for each in paths if is_free(each, source))
        taken.add(free)
        yield free


def write_timeline(path: Path, timeline: Timeline, about: dict[str, Any]) -> dict[str, Path]:
    """Writes the files of a timeline.

    The CSV file has `COLUMNS`, then the probability of each class under its name; a window holds the frames before its
    `end`. The JSON document holds all of it, with each stream's probabilities. The list of segments has
    `SEGMENT_COLUMNS`, times in seconds; the subtitles (SubRip) name the class of each segment.

    Args:
        path: Of the files, without their suffixes.
        about: Which video, run and protocol.

    Returns:
        The files' paths by kind.

    Raises:
        StorageError: A file cannot be written.
    """
    # Names may hold dots: suffixes are added, never replaced.
    files = {kind: path.with_name(f"{path.name}.{kind}") for kind in ("csv", "json", "png", SEGMENTS, "srt")}
    rows = []
    for window in timeline.windows:
        numbers = [f"{probability:.6f}" for probability in window.headline]
        winner = timeline.classes[window.winner], numbers[window.winner]
        times = (f"{timeline.time(frame):.3f}" for frame in (window.start, window.end))
        rows.append([*times, window.start, window.end, *winner, *numbers])
    write_text(files["csv"], csv_text([*COLUMNS, *timeline.classes], rows))

    segments = timeline.segments()
    listed = [
        [about["video"], f"{one.start:.3f}", f"{one.end:.3f}", one.class_name, f"{one.probability:.6f}"]
        for one in segments
    ]
    write_text(files[SEGMENTS], csv_text(SEGMENT_COLUMNS, listed))
    shown = [
        f"{number}\n{_clock(one.start)} --> {_clock(one.end)}\n"
        f"{printable(one.class_name)} {percent(one.probability)} %\n"
        for number, one in enumerate(segments, 1)
    ]
    write_text(files["srt"], "\n".join(shown))

    windows = [
        {
            "start_seconds": timeline.time(window.start),
            "end_seconds": timeline.time(window.end),
            "start_frame": window.start,
            "end_frame": window.end,
            "class": timeline.classes[window.winner],
            "probabilities": {name: [round(each, 6) for each in of] for name, of in window.probabilities.items()},
            **({"step_frames": window.attention.frames} if window.attention else {}),
        }
        for window in timeline.windows
    ]
    document = {
        "schema": SCHEMA,
        **about,
        "fps": timeline.timing.fps,
        "times_from": timeline.timing.origin,
        "times_problem": timeline.timing.problem,
        "video_frames": timeline.frames,
        "video_seconds": timeline.duration,
        "window": str(timeline.window),
        "hop": str(timeline.hop),
        "window_frames": timeline.window_frames,
        "hop_frames": timeline.hop_frames,
        "classes": timeline.classes,
        "threshold": timeline.threshold,
        "segments": [asdict(segment) for segment in segments],
        "windows": windows,
    }
    write_json(files["json"], document)
    details = f"run {about['run']}, {about['step']}"
    write_bytes(files["png"], draw_timeline(timeline, Path(about["video"]).name, details))
    return files


def _clock(seconds: float) -> str:
    """`01:02:03,456`, as subtitles have it."""
    rest, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d},{thousandths:03d}"
