"""Decoding: a video file to RGB frames, one at a time, or one precise sentence on why that cannot be.

Letters: T frames, H W pixels.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np

from pipelines.artifacts import MOST_PIXELS
from pipelines.errors import VideoError
from pipelines.video.orientation import Orientation
from pipelines.video.resize import resize, stored_size
from pipelines.video.timing import FrameClock, Timing

# Only containers that hold their own pictures. Play lists (ffconcat, HLS, SDP, DASH) make FFmpeg open other files and
# addresses, whatever the name of the file that holds them: they are refused, and so is every protocol but `file`.
CONTAINERS = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,m4v,asf,flv,ogg"
# No reference to data in another file is followed (mov), and no picture larger than can be stored is allocated.
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": CONTAINERS,
    "enable_drefs": "0",
    "use_absolute_path": "0",
    "max_pixels": str(MOST_PIXELS),
    "threads": "1",
}

# HMDB51's containers count one frame more than decodes; a file cut short misses many.
_FRAMES_FORGIVEN = 2
_SHARE_FORGIVEN = 0.02


class VideoReader:
    """Iterates over the frames of a video once, as a player would show them: uint8 RGB [H, W, 3].

    `short_side` is that of `stored_size`; `keep_size=True` gives the frames as they are. Rotation and
    mirroring asked for by the container are applied; non-square pixels are not stretched. Memory is bounded by a few
    frames, whatever T.

    `fps` (as the container has it, 0.0 where unknown), `container_frames` (how many the container counts, 0 where it
    does not), `source_width` and `source_height` (of the picture as shown), `width` and `height` (as given out) are
    known from the start; `decoded`, `truncated` and `timing`, when each frame is shown, are final after the iteration.

    Raises `VideoError` with the reason: on opening, where no frame decodes; while iterating, where the picture's size
    changes or the video is truncated, unless `allow_truncated`.
    """

    def __init__(
        self, path: Path, short_side: int | None = None, *, keep_size: bool = False, allow_truncated: bool = False
    ) -> None:
        self.path = path
        self.allow_truncated = allow_truncated
        self.decoded = 0
        self.truncated = False
        self._failure: av.FFmpegError | None = None
        self._discarded = 0
        self._status = _require_readable_file(path)
        self._container = _open(path)
        try:
            self._stream = _video_stream(self._container)
            self.clock = FrameClock(self._container, self._stream)
            self.fps = self.clock.rate
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise VideoError(f"no frame can be decoded{self._why()}")
            self._shape = _shape(self._first)
        except av.FFmpegError as error:
            self.close()
            raise VideoError(f"cannot be decoded ({error.strerror})") from error
        except BaseException:
            self.close()
            raise
        self.source_width, self.source_height = _shown_size(self._shape)
        size = (self.source_width, self.source_height)
        self.width, self.height = size if keep_size else stored_size(*size, short_side)

    @property
    def container_frames(self) -> int:
        counted = self._stream.frames or _tagged_frames(self._stream)
        return max(0, counted - self._discarded)

    @property
    def announced_frames(self) -> int:
        """`container_frames`, or where the container has no count an estimate from its duration; 0 where unknown."""
        return self.container_frames or round((self._container.duration or 0) / av.time_base * self.fps)

    @property
    def timing(self) -> Timing:
        return self.clock.timing()

    def __iter__(self) -> Iterator[np.ndarray]:
        return (picture for _, picture in self.pick(lambda index: True))

    def pick(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, np.ndarray]]:
        """The frames whose index from 0 is wanted, with it. The others are only decoded, which is most of the work
        for large pictures and a third of it for small ones."""
        frame, self._first = self._first, None
        while frame is not None:
            if (shape := _shape(frame)) != self._shape:
                raise VideoError(_changed(self._shape, shape, self.decoded))
            self.decoded += 1
            self.clock.add(frame)
            if wanted(self.decoded - 1):
                yield self.decoded - 1, resize(_picture(frame, shape), self.width, self.height)
            frame = next(self._frames, None)
        self._judge_length()

    def require_unchanged(self) -> None:
        """Raises `VideoError` where the file is no longer what was opened: what decoded may be of two versions."""
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise VideoError(f"the file cannot be read ({error.strerror})") from error
        if _version(now) != _version(self._status):
            raise VideoError("the file changed while it was read: run the same command again")

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decode(self) -> Iterator[av.VideoFrame]:
        """The stream's frames. Ends early, leaving `_failure` set, where demuxing or decoding fails."""
        try:
            for packet in self._container.demux(self._stream):
                # Counted by the container, but cut away by its own edit list: not missing.
                self._discarded += packet.is_discard
                yield from packet.decode()
        except MemoryError as error:  # of FFmpeg's errors one; what decoded so far is not all that is in the file
            raise MemoryError from error
        except av.FFmpegError as error:
            self._failure = error

    def _judge_length(self) -> None:
        self.truncated = self._failure is not None or is_truncated(self.decoded, self.container_frames)
        if self.truncated and not self.allow_truncated:
            counted = self.container_frames or "an unknown number"
            raise VideoError(f"truncated: decoded {self.decoded} of {counted}{self._why()}")

    def _why(self) -> str:
        return f" (decoding fails: {self._failure.strerror})" if self._failure else ""


def is_truncated(decoded: int, counted: int) -> bool:
    """Whether fewer frames decode than the container counts: more than 2 % and more than 2 frames short."""
    short = counted - decoded
    return short > _FRAMES_FORGIVEN and short > _SHARE_FORGIVEN * counted


def _open(path: Path) -> "av.container.InputContainer":
    av.logging.set_level(None)  # FFmpeg would write its warnings over the progress display
    try:
        # "file:" and an absolute path: nothing in a name can be read as a protocol or an option.
        return av.open(f"file:{os.path.abspath(path)}", options=dict(_OPTIONS), metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise VideoError(f"not a video: its content is none of the containers accepted ({CONTAINERS})") from error
    except av.FFmpegError as error:
        raise VideoError(f"not a video, or cut off before its index ({error.strerror})") from error


def _require_readable_file(path: Path) -> os.stat_result:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise VideoError("not a file")
        with open(path, "rb"):
            pass
    except FileNotFoundError as error:
        raise VideoError("the file does not exist") from error
    except OSError as error:
        raise VideoError(f"the file cannot be read ({error.strerror})") from error
    if status.st_size == 0:
        raise VideoError("the file is empty")
    return status


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _video_stream(container: "av.container.InputContainer") -> "av.VideoStream":
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        raise VideoError("holds no video stream")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError("its codec is not known to FFmpeg")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MOST_PIXELS:
        raise VideoError(f"its pictures of {width}x{height} have more than {MOST_PIXELS} pixels: unsupported")
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
    stream.codec_context.thread_type = "NONE"  # several videos are decoded at once, each by a process
    stream.codec_context.thread_count = 1
    return stream


def _tagged_frames(stream: "av.VideoStream") -> int:
    """Matroska has no count of its own; mkvmerge writes one as a tag."""
    for name, value in stream.metadata.items():
        if name.upper().startswith("NUMBER_OF_FRAMES") and value.isdecimal():
            return int(value)
    return 0


Shape = tuple[int, int, Orientation]  # coded width and height, and how they are shown


def _shape(frame: av.VideoFrame) -> Shape:
    return frame.width, frame.height, Orientation.of(frame)


def _shown_size(shape: Shape) -> tuple[int, int]:
    width, height, orientation = shape
    return (height, width) if orientation.transposed else (width, height)


def _picture(frame: av.VideoFrame, shape: Shape) -> np.ndarray:
    """uint8 RGB [H, W, 3], turned as the container asks."""
    try:
        picture = frame.to_ndarray(format="rgb24")
    except av.FFmpegError as error:  # colours of a kind that is reserved, or that nothing converts
        raise VideoError(f"its pictures cannot be converted to RGB ({error.strerror})") from error
    return np.ascontiguousarray(shape[2].applied(picture))


def _changed(before: Shape, after: Shape, index: int) -> str:
    was, now = (f"{w}x{h}" + (f" {orientation}" if any(orientation) else "") for w, h, orientation in (before, after))
    return f"the picture changes from {was} to {now} at frame {index}: a change of size within a video is unsupported"
