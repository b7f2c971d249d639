"""The attributes of artifacts about the file they were made from."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.errors import VideoError
from pipelines.jobs.task import VideoTask
from pipelines.storage.atomic import json_text
from pipelines.storage.provenance import library_versions

if TYPE_CHECKING:
    from pipelines.video.decoding import VideoReader
    from pipelines.video.timing import Timing


def video_attributes(task: VideoTask, reader: "VideoReader") -> dict[str, Any]:
    """The attributes about a video file that was read to its end.

    Raises:
        VideoError: The file cannot be read, or has changed.
    """
    import hashlib

    path, timing = task.source.path, reader.timing
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise VideoError(f"the file cannot be read ({error.strerror})") from error
    reader.require_unchanged()
    attributes: dict[str, Any] = {
        "source": str(path),
        "source_sha256": digest,
        "source_bytes": status.st_size,
        "source_mtime_ns": status.st_mtime_ns,
        "source_frames": len(timing.times),
        **timing_attributes(timing),
        "short_side": min(reader.width, reader.height),
        "width": reader.width,
        "height": reader.height,
        "source_width": reader.source_width,
        "source_height": reader.source_height,
        "container_frames": reader.container_frames,
        "library_versions": stored_library_versions(),
    }
    if task.source.split:
        attributes["source_split"] = task.source.split
    if reader.truncated:
        attributes |= {"truncated": True, "decoded_frames": reader.decoded}
    if reader.tone_mapped_from:
        attributes["tone_mapped_from"] = reader.tone_mapped_from
    if reader.damaged_frames:
        attributes |= {"damaged": True, "damaged_frames": reader.damaged_frames}
    return attributes


def timing_attributes(timing: "Timing") -> dict[str, Any]:
    """The attributes about the times of the frames."""
    attributes: dict[str, Any] = {"fps": timing.fps, "times_from": timing.origin}
    return attributes | ({"times_problem": timing.problem} if timing.problem else {})


def stored_library_versions() -> str:
    """The versions of the libraries that affect an artifact's content, as JSON."""
    return json_text(library_versions("av", "opencv", "numpy", "torch"))


def options_difference(attributes: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names the attributes that are not as wanted: "bound is 20.0, not 5.0"; "" for none."""
    return "; ".join(
        f"{name} is {attributes.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if attributes.get(name) != value
    )
