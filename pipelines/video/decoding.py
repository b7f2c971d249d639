"""Decodes a video file to RGB frames, one at a time, or says in one sentence why that fails.

Letters: T frames, H W pixels.
"""

import contextlib
import logging
import os
import re
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import av
import numpy as np

from pipelines.errors import VideoError
from pipelines.interface.wording import plural
from pipelines.runtime.closing import Closing
from pipelines.storage.jpeg import MOST_PIXELS
from pipelines.storage.placeholders import placeholder
from pipelines.video.ending import Ending, ending_of
from pipelines.video.hdr import TRANSFERS, tone_mapped
from pipelines.video.orientation import Orientation
from pipelines.video.resize import resize, stored_size
from pipelines.video.timing import FrameClock, Timing
from pipelines.video.webp import is_animated_webp, webp_as_matroska

# Only containers that hold their own pictures. Play lists (ffconcat, HLS, SDP, DASH) make FFmpeg open other files and
# addresses, even if their name is that of a video: they are refused, and so is every protocol but `file`.
CONTAINERS = "avi,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mpeg,mpegts,mpegvideo,m4v,asf,flv,ogg,gif,apng"
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
# Checksums that a codec has (PNG, FFV1, HEVC) are looked at, and bit streams beyond what is needed to decode them.
_ERRORS_LOOKED_FOR = "crccheck+bitstream+buffer"
# A reference that is no longer needed is already gone, as in videos that were cut without encoding them again.
_HARMLESS_ERRORS = ("mmco: unref short failure",)
_ALARMING_WARNINGS = ("Skipping invalid undecodable NALU", "EOI missing")
_HALF = 0.5  # of a frame, by which a header's duration may be rounded
_SMALLEST_FRAME = 8  # bytes that a picture takes at least in a container that counts them
_PACKETS_TO_A_JOIN = 2  # from one marked as corrupt, the last but one of a stream, to the first of another joined to it
_LONGEST_GAP = 60  # seconds that are taken for a missing piece; streams joined from elsewhere are further apart
# Codecs of which a black picture is zeros, and those of which no picture holds many zeros, but behind its end or, to
# keep a constant rate, before the start code 00 00 01 of its next slice.
_WITHOUT_CODING = frozenset(("rawvideo", "v210", "v308", "v408", "v410", "r10k", "r210", "y41p", "yuv4", "ayuv"))
_WITHOUT_ZEROS = frozenset(("h264", "hevc", "vp8", "vp9", "av1"))
_ZEROS = bytes(256)  # found 400 times faster than what follows them
_HOLE = re.compile(rb"(?<!\0)\0{256,}+[^\0\1]")
_HEADER_OF_VP8_IN_OGG = b"OVP80"
_FALSE_CHECKSUM = "CRC mismatch"
_NOWHERE = logging.NullHandler()
_CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


class VideoReader(Closing):
    """Iterates over the frames of a video once, as a player would show them: uint8 RGB [H, W, 3].

    Rotation and mirroring that the container asks for are applied; non-square pixels are not stretched. Memory is
    bounded by a few frames, whatever T.

    Known from the start are `fps` (the container's, 0.0 where unknown), `container_frames` (the container's count, 0
    where it has none), `source_width` and `source_height` (of the picture as shown), `width` and `height` (of the
    frames). Final after the iteration are `decoded`, `truncated`, `damaged_frames` (those that the decoder had to
    conceal in part or to leave out) and `timing`.

    Args:
        path: The video file.
        short_side: That of `stored_size`.
        keep_size: Whether the frames keep their size.
        allow_truncated: Whether a truncated video is no error.
        allow_damaged: Whether a damaged video is no error.

    Raises:
        VideoError: On opening, if no frame decodes; while iterating, if the picture's size changes; at the end, if the
            video is truncated or damaged.
    """

    def __init__(
        self,
        path: Path,
        short_side: int | None = None,
        *,
        keep_size: bool = False,
        allow_truncated: bool = False,
        allow_damaged: bool = False,
    ) -> None:
        self.path = path
        self.allow_truncated, self.allow_damaged = allow_truncated, allow_damaged
        self.decoded = 0
        self.truncated = False
        self.damaged_frames = 0
        self._failure: av.FFmpegError | None = None
        self._has_ended_early = False
        self._discarded = 0
        self._packets = _Packets()
        self._status, self._head = _require_readable_file(path)
        self._converted = webp_as_matroska(path) if is_animated_webp(self._head) else None
        with av.logging.Capture() as messages:
            self._container = _open(path, self._converted)
        self._packets.left_out(messages)
        try:
            self._stream = _video_stream(self._container, path)
            self.clock = FrameClock(self._container, self._stream)
            self.fps = self.clock.rate
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise VideoError(f"no frame can be decoded{self._why()}")
            self._shape = _shape(self._first)
            if not self._packets.lost:  # what did not decode precedes the first picture that a player shows
                self._failure = None
        except av.FFmpegError as error:
            self.close()
            raise VideoError(f"cannot be decoded ({error.strerror})") from error
        except BaseException:
            self.close()
            raise
        width, height, orientation = self._shape
        size = (height, width) if orientation.transposed else (width, height)
        self.source_width, self.source_height = size
        self.width, self.height = size if keep_size else stored_size(*size, short_side)
        self.resizes = True  # False: frames come as they are decoded, for whoever resizes them elsewhere

    @property
    def tone_mapped_from(self) -> str:
        """PQ or HLG if the video's pictures, but not the frames, have a high dynamic range; else ""."""
        return TRANSFERS.get(self._stream.codec_context.color_trc, "")

    @property
    def container_frames(self) -> int:
        tagged = (int(text) for text in _tags(self._stream, "NUMBER_OF_FRAMES") if text.isdecimal())
        counted = self._stream.frames or next(tagged, 0)
        if counted > self._status.st_size / _SMALLEST_FRAME:
            return 0  # of a recording that was not finished
        return max(0, counted - self._discarded)

    @property
    def announced_frames(self) -> int:
        """`container_frames`, or where the container has no count an estimate from its duration; 0 where unknown."""
        return self.container_frames or round((self._container.duration or 0) / av.time_base * self.fps)

    @property
    def timing(self) -> Timing:
        return self.clock.timing()

    @property
    def stamp(self) -> float | None:
        """The timestamp of the frame decoded last, in seconds by the container's clock."""
        return self.clock.stamps[-1]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (picture for _, picture in self.pick(lambda index: True))

    def pick(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, np.ndarray]]:
        """The frames whose index is wanted, with their index from 0. The others are only decoded, which is most of the
        work for large pictures and a third of it for small ones."""
        frame, self._first = self._first, None
        while frame is not None:
            if (shape := _shape(frame)) != self._shape:
                raise VideoError(_changed(self._shape, shape, self.decoded))
            self.decoded += 1
            self.clock.add(frame)
            if wanted(self.decoded - 1):
                picture = _picture(frame, shape)
                yield self.decoded - 1, resize(picture, self.width, self.height) if self.resizes else picture
            frame = next(self._frames, None)
        self._judge()

    def judge_until_here(self) -> None:
        """As at the end of the iteration, for what needs no more than the frames decoded so far. Raises `VideoError` if
        damage was met and is not allowed."""
        self._note_damage(without_last=False)
        if self.damaged_frames and not self.allow_damaged:
            self.require_unchanged()
            raise VideoError(damage(self.damaged_frames, self.decoded) + self._why())

    def require_unchanged(self) -> None:
        """Raises `VideoError` if the file has changed since it was opened: the frames may be of two versions."""
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise VideoError(f"the file cannot be read ({error.strerror})") from error
        if _version(now) != _version(self._status):
            raise VideoError("the file changed while it was read: run the same command again")

    def close(self) -> None:
        self._container.close()
        if self._converted is not None:
            self._converted.close()

    def _decode(self) -> Iterator[av.VideoFrame]:
        """The stream's frames. A packet that does not decode is left out, as players do; demuxing that fails is the
        end. Either leaves `_failure` set. Pieces that their container's checksum does not fit are left out."""
        try:
            packets = iter(self._container.demux(self._stream))
            while True:
                packet = None
                # PyAV's IndexError comes after our stream's last packet, if the file added streams while it was read.
                with av.logging.Capture() as messages, contextlib.suppress(IndexError):
                    packet = next(packets, None)
                self._packets.left_out(messages)
                if packet is None:
                    return
                # Counted by the container, but cut away by its own edit list: not missing.
                self._discarded += packet.is_discard
                yield from self._decoded(packet)
        except MemoryError as error:  # one of FFmpeg's errors; the file holds more than what was decoded so far
            raise MemoryError from error
        except av.FFmpegError as error:
            self._failure, self._has_ended_early = error, True
            yield from self._decoded(None)

    def _decoded(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        """The frames that a packet completes; None: those that the decoder still holds."""
        if packet is not None and packet.size == 0 and packet.dts is not None:
            return []  # the picture before it, shown for longer
        codec, content = self._stream.codec_context.name, b"" if packet is None else bytes(packet)
        frames: list[av.VideoFrame] = []
        error: av.FFmpegError | None = None
        with av.logging.Capture() as messages:
            try:
                frames = self._stream.codec_context.decode(packet)
            except MemoryError as none_left:
                raise MemoryError from none_left
            except av.FFmpegError as failure:
                # A header where pictures are expected: the file goes on with another one.
                is_theora = codec == "theora" and isinstance(failure, av.PermissionError)
                if is_theora or content.startswith(_HEADER_OF_VP8_IN_OGG):
                    return []
                error = failure
        is_empty = codec not in _WITHOUT_CODING and len(content) >= 16 and not any(content)
        has_hole = codec in _WITHOUT_ZEROS and _ZEROS in content and _HOLE.search(content) is not None
        is_told = any(tells_of_damage(level, text) for level, _, text in messages)
        is_bad = error is not None or is_empty or has_hole or is_told
        self._packets.add(packet, is_bad=is_bad, is_lost=error is not None or (is_empty and not frames))
        self._failure = error or self._failure
        self._packets.marked += sum(frame.is_corrupt for frame in frames)
        return frames

    @cached_property
    def _ending(self) -> Ending:
        name = self._container.format.name
        return ending_of(self.path, name, self._stream.id, self._stream.codec_context.name)

    def _note_damage(self, *, without_last: bool) -> None:
        self.damaged_frames = self._packets.damaged(self._ending.damaged, without_last=without_last)

    def _judge(self) -> None:
        """Decides what is missing or damaged. Raises `VideoError` where that is not allowed."""
        packets, counted = self._packets, self.container_frames
        name = self._container.format.name
        ending = self._ending
        if name == "gif" or (ending.is_whole and not name.startswith("mov")):
            counted = 0  # a header that a program left as it was when it cut or joined the file, or pictures left out
        found = self.decoded + packets.lost
        clocks = filter(None, map(_CLOCK.fullmatch, _tags(self._stream, "DURATION")))
        tagged = next((3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3]) for clock in clocks), 0.0)
        stated = tagged or ending.seconds
        tick = float(self._stream.time_base or 0)
        end = tick * packets.end
        reached = end - tick * (packets.start or 0) if tagged else end
        slack = max(_FRAMES_FORGIVEN / self.fps if self.fps else 0.0, _SHARE_FORGIVEN * stated)
        # Where pictures are not coded in the order they are shown, the last one being there says nothing.
        is_in_order = not self._stream.codec_context.has_b_frames
        is_complete = not packets.last_is_bad and (
            0 < counted <= found or (is_in_order and 0 < stated <= reached + _HALF / (self.fps or 1))
        )
        self.truncated = self._has_ended_early or (
            not is_complete
            and (
                is_truncated(found, counted)
                or bool(ending.cut)
                or (not ending.is_whole and (packets.last_is_bad or end + slack < stated))
            )
        )
        # What a cut left of the last picture is missing, not damaged.
        self._note_damage(without_last=self.truncated)
        if self.truncated or self.damaged_frames:
            self.require_unchanged()
        if self.truncated and not self.allow_truncated:
            if counted:
                raise VideoError(f"truncated: decoded {self.decoded} of {counted}{self._why()}")
            where = f"at {end:.1f} of {stated:.1f} s" if stated else ending.cut or "inside a picture"
            raise VideoError(f"truncated: decoded {plural(self.decoded, 'frame')}; the file ends {where}{self._why()}")
        if self.damaged_frames and not self.allow_damaged:
            raise VideoError(damage(self.damaged_frames, found) + self._why())

    def _why(self) -> str:
        return f" (decoding fails: {self._failure.strerror})" if self._failure else ""


def damage(damaged: int, frames: int) -> str:
    return f"damaged: {damaged} of {plural(frames, 'frame')}"


class _Packets:
    """What became of the packets of a stream, one after the other."""

    def __init__(self) -> None:
        self.lost = 0
        """Packets that did not decode at all."""
        self.marked = 0
        """Frames that the decoder marks as corrupt."""
        self.start: int | None = None
        self.end = 0
        """When the first picture starts and the last one ends, in ticks of the stream's clock."""
        self.last_is_bad = False
        """Whether the last packet is incomplete or does not decode, so that the file may end within it."""
        self._bad = 0
        self._places = array("q")  # in the file, bytes
        self._is_begun = False
        self._suspects = 0
        self._next = 0  # when the next picture is due to be decoded, in ticks

    def left_out(self, messages: Sequence[tuple[int, str, str]]) -> None:
        """Counts what the container's messages say was left out because of a wrong checksum."""
        self._bad += sum(text.startswith(_FALSE_CHECKSUM) for _, _, text in messages)

    def add(self, packet: av.Packet | None, *, is_bad: bool, is_lost: bool) -> None:
        """Counts a packet. Those before the first key frame do not count: players do not show them either."""
        if packet is not None and packet.size and packet.pos is not None:
            self._places.append(packet.pos)
        if packet is None or packet.size == 0:  # nothing new, only what the decoder held back
            self._bad += is_bad
            self.last_is_bad |= is_bad
            return
        self._is_begun |= packet.is_keyframe
        if not self._is_begun:
            return
        if self._suspects:
            self._judge_suspect(packet)
        self._next = (packet.dts or 0) + (packet.duration or 0)
        if packet.is_corrupt and not is_bad:
            self._suspects = _PACKETS_TO_A_JOIN
        self.last_is_bad = is_bad or packet.is_corrupt
        self._bad += is_bad
        self.lost += is_lost
        start = packet.dts if packet.pts is None else packet.pts
        if start is not None:
            self.start = start if self.start is None else min(self.start, start)
            self.end = max(self.end, start + (packet.duration or 0))

    def _judge_suspect(self, packet: av.Packet) -> None:
        """Nearby pieces of a transport stream are missing; but where a key frame follows, and the clock does not run on
        without pictures, two streams were joined."""
        late = (packet.dts or 0) - self._next
        is_gap = (packet.duration or 0) / 2 < late < _LONGEST_GAP / (packet.time_base or 1)
        self._suspects = 0 if is_gap else self._suspects - 1
        self._bad += is_gap or (not self._suspects and not packet.is_keyframe)

    def damaged(self, pieces: Sequence[range], *, without_last: bool) -> int:
        """How many pictures are known to be damaged or lost. `pieces`: damaged bytes of the file."""
        last = without_last and self.last_is_bad
        first, end = min(self._places, default=0), max(self._places, default=0)
        within = 0
        for piece in pieces:  # of which all pictures may be lost
            within += sum(place in piece for place in self._places) or first < piece.start < end
        return max(self._bad - (last and not self._suspects), self.marked - last, within, 0)


def tells_of_damage(level: int, message: str) -> bool:
    """Whether a decoder's message says that a picture is damaged."""
    if level > av.logging.ERROR:
        return message.startswith(_ALARMING_WARNINGS)
    return not message.startswith(_HARMLESS_ERRORS)


def is_truncated(decoded: int, counted: int) -> bool:
    """Whether fewer frames decode than the container counts: more than 2 % and more than 2 frames short."""
    short = counted - decoded
    return short > _FRAMES_FORGIVEN and short > _SHARE_FORGIVEN * counted


def _open(path: Path, converted: IO[bytes] | None) -> "av.container.InputContainer":
    """Opens the file at `path`, or `converted` in its place."""
    # A decoder reports damage by messages, which each call of it captures; no others are wanted on the terminal.
    logging.getLogger("libav").addHandler(_NOWHERE)
    logging.getLogger("libav").propagate = False
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    try:
        # "file:" and an absolute path: nothing in a name can be read as a protocol or an option.
        source = converted or f"file:{os.path.abspath(path)}"
        return av.open(source, "r", options=dict(_OPTIONS), metadata_errors="replace")
    except av.error.ArgumentError as error:
        raise VideoError(f"not a video: its content is none of the containers accepted ({CONTAINERS})") from error
    except av.FFmpegError as error:
        raise VideoError(f"not a video, or cut off before its index ({error.strerror})") from error


def _require_readable_file(path: Path) -> tuple[os.stat_result, bytes]:
    """The file's status and its first bytes."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise VideoError("not a file")
        with open(path, "rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise VideoError("the file does not exist") from error
    except OSError as error:
        raise VideoError(f"the file cannot be read ({error.strerror})") from error
    if status.st_size == 0:
        raise VideoError("the file is empty")
    if (found := placeholder(head)) is not None:
        raise VideoError(f"not a video: {found[0]}: {found[1]}")
    return status, head


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


_Disposition = av.stream.Disposition
_NO_VIDEO = _Disposition.attached_pic | _Disposition.timed_thumbnails | _Disposition.dependent


def _video_stream(container: "av.container.InputContainer", path: Path) -> "av.VideoStream":
    """The stream that a player shows: not a cover, nor a still beside a video; of several videos FFmpeg's choice, which
    is the one marked as default, else the one of most frames and bits."""
    streams = [s for s in container.streams.video if not s.disposition & _NO_VIDEO]
    if not streams:
        if ending_of(path, container.format.name).cut:
            raise VideoError("not a video, or cut off before its index")
        raise VideoError("holds no video stream")
    streams = [s for s in streams if s.codec_context is not None] or streams
    stills = _stills(streams, path)
    streams = [s for s in streams if s.index not in stills] or streams
    stream = container.streams.best("video")
    if stream not in streams:
        stream = next((stream for stream in streams if stream.disposition & _Disposition.default), streams[0])
    if stream.codec_context is None:
        raise VideoError("its codec is not known to FFmpeg")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MOST_PIXELS:
        raise VideoError(f"its pictures of {width}x{height} have more than {MOST_PIXELS} pixels: unsupported")
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS), "err_detect": _ERRORS_LOOKED_FOR}
    stream.codec_context.thread_type = "NONE"  # several videos are decoded at once, each by a process
    stream.codec_context.thread_count = 1
    return stream


def _stills(streams: "Sequence[av.VideoStream]", path: Path) -> set[int]:
    """The indices of the streams of a single picture, or none. Containers such as Matroska do not count them: there
    packets are counted, until each stream has two."""
    stills = {s.index for s in streams if s.frames == 1 or s.disposition & _Disposition.still_image}
    counts = {s.index: 0 for s in streams if s.frames == 0 and s.index not in stills}
    if len(streams) > 1 and counts:
        with _open(path, None) as again, contextlib.suppress(av.FFmpegError, IndexError):
            for packet in again.demux([again.streams[index] for index in counts]):
                counts[packet.stream_index] += packet.size > 0
                if min(counts.values()) > 1:
                    break
    return stills | {index for index, count in counts.items() if count == 1}


def _tags(stream: "av.VideoStream", name: str) -> Iterator[str]:
    """A Matroska stream's tags of that name, in which FFmpeg and mkvmerge write what has no other place there."""
    return (value.strip() for key, value in stream.metadata.items() if key.upper().startswith(name))


# From PyAV 17 on every frame would otherwise start threads of its own, which takes longer than its conversion.
ONE_THREAD: dict[str, Any] = {"threads": 1} if int(av.__version__.partition(".")[0]) >= 17 else {}
Shape = tuple[int, int, Orientation]  # coded width and height, and how they are shown


def _shape(frame: av.VideoFrame) -> Shape:
    return frame.width, frame.height, Orientation.of(frame)


def _picture(frame: av.VideoFrame, shape: Shape) -> np.ndarray:
    """uint8 RGB [H, W, 3], rotated as the container asks, of standard dynamic range."""
    transfer = TRANSFERS.get(frame.color_trc)
    try:
        if transfer is None:
            picture = frame.to_ndarray(format="rgb24", **ONE_THREAD)
        else:
            picture = tone_mapped(frame.to_ndarray(format="rgb48le", **ONE_THREAD), transfer)
    except av.FFmpegError as error:  # colours of a kind that is reserved, or that nothing converts
        raise VideoError(f"its pictures cannot be converted to RGB ({error.strerror})") from error
    return np.ascontiguousarray(shape[2].applied(picture))


def _changed(before: Shape, after: Shape, index: int) -> str:
    was, now = (f"{w}x{h}" + (f" {orientation}" if any(orientation) else "") for w, h, orientation in (before, after))
    return f"the picture changes from {was} to {now} at frame {index}: a change of size within a video is unsupported"
