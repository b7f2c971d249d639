"""The attributes of artifacts about the file they were made from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.errors import VideoError
from pipelines.jobs.task import VideoTask
from pipelines.storage.atomic import json_text
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.hdf5 import ArtifactError
from pipelines.storage.provenance import file_sha256, library_versions

if TYPE_CHECKING:
    from pipelines.video.decoding import VideoReader
    from pipelines.video.timing import Timing


SEGMENT_ATTRIBUTES = ("segment", "segment_start", "segment_end", "segment_first_frame")
"""Of an artifact of a segment: which one, as in its name; its start and end in seconds of the video; and the number of
its first frame in the video."""


def video_attributes(task: VideoTask, reader: "VideoReader", timing: "Timing | None" = None) -> dict[str, Any]:
    """The attributes about a video file that was read to its end, or of a segment of it to that one's.

    Args:
        timing: That of the segment's frames; None: of all.

    Raises:
        VideoError: The file cannot be read, or has changed.
    """
    path, timing = task.source.path, timing or reader.timing
    frames = len(timing.times)
    try:
        status = path.stat()
        digest = file_sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise VideoError(f"the file cannot be read ({error.strerror})") from error
    reader.require_unchanged()
    attributes: dict[str, Any] = {
        "source": str(path),
        "source_sha256": digest,
        "source_bytes": status.st_size,
        "source_mtime_ns": status.st_mtime_ns,
        "source_frames": frames,
        **timing_attributes(timing),
        "short_side": min(reader.width, reader.height),
        "width": reader.width,
        "height": reader.height,
        "source_width": reader.source_width,
        "source_height": reader.source_height,
        "container_frames": 0 if task.source.segment else reader.container_frames,
        "library_versions": stored_library_versions(),
    }
    if task.source.split:
        attributes["source_split"] = task.source.split
    if reader.truncated:
        attributes |= {"truncated": True, "decoded_frames": frames}
    if reader.tone_mapped_from:
        attributes["tone_mapped_from"] = reader.tone_mapped_from
    if reader.damaged_frames:
        attributes |= {"damaged": True, "damaged_frames": min(reader.damaged_frames, frames)}
    return attributes


def timing_attributes(timing: "Timing") -> dict[str, Any]:
    """The attributes about the times of the frames."""
    attributes: dict[str, Any] = {"fps": timing.fps, "times_from": timing.origin}
    return attributes | ({"times_problem": timing.problem} if timing.problem else {})


def stored_library_versions() -> str:
    """The versions of the libraries that affect an artifact's content, as JSON."""
    return json_text(library_versions("av", "opencv", "numpy", "torch"))


def flow_difference(attributes: Mapping[str, Any], wanted: FlowSettings) -> str:
    """`options_difference` of a flow file. Raises `ArtifactError` where it does not tell its own: it is damaged."""
    try:
        FlowSettings.from_attributes(attributes)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"its settings are broken ({error})") from error
    return options_difference(attributes, wanted.attributes())


def options_difference(attributes: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names the attributes that are not as wanted: "bound is 20.0, not 5.0"; "" for none."""
    return "; ".join(
        f"{name} is {attributes.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if attributes.get(name) != value
    )
