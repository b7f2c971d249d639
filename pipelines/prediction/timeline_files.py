"""A timeline as CSV, one row a window, as a JSON document, and as a picture."""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.prediction.timeline import Timeline, Window
from pipelines.prediction.timeline_picture import draw_timeline
from pipelines.storage.atomic import write_bytes, write_json, write_text
from pipelines.storage.failures import spreadsheet_text

SCHEMA = "stres/timeline/1"
COLUMNS = ("start_seconds", "end_seconds", "start_frame", "end_frame", "class", "probability")


def write_timeline(place: Path, timeline: Timeline, about: dict[str, Any]) -> dict[str, Path]:
    """`place` with .csv, .json and .png added; returns them by kind. Raises `StorageError`."""
    # Names may hold dots: suffixes are added, never replaced.
    files = {kind: place.with_name(f"{place.name}.{kind}") for kind in ("csv", "json", "png")}
    write_csv(files["csv"], timeline)
    write_document(files["json"], timeline, about)
    details = f"run {about['run']}, {about['step']}"
    write_bytes(files["png"], draw_timeline(timeline, Path(about["video"]).name, details))
    return files


def write_csv(path: Path, timeline: Timeline) -> None:
    """`COLUMNS`, then the probability of each class under its name; `end` is where the window no longer is. Raises
    `StorageError`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    classes = [spreadsheet_text(name) for name in timeline.classes]
    writer.writerow([*COLUMNS, *classes])
    for window in timeline.windows:
        numbers = [f"{probability:.6f}" for probability in window.headline]
        winner = classes[window.winner], numbers[window.winner]
        times = (f"{timeline.time(frame):.3f}" for frame in (window.start, window.end))
        writer.writerow([*times, window.start, window.end, *winner, *numbers])
    write_text(path, text.getvalue())


def write_document(path: Path, timeline: Timeline, about: dict[str, Any]) -> None:
    """All of it, with each stream's probabilities; `about` says which video, run and protocol. Raises
    `StorageError`."""
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
        "segments": [asdict(segment) for segment in timeline.segments()],
        "windows": [_window(window, timeline) for window in timeline.windows],
    }
    write_json(path, document)


def _window(window: Window, timeline: Timeline) -> dict[str, Any]:
    return {
        "start_seconds": timeline.time(window.start),
        "end_seconds": timeline.time(window.end),
        "start_frame": window.start,
        "end_frame": window.end,
        "class": timeline.classes[window.winner],
        "probabilities": {name: [round(value, 6) for value in values] for name, values in window.probabilities.items()},
    }
