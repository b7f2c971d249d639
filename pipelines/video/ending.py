"""Whether a file was cut off, by the structure of its container.

Only headers are read: sizes that lead beyond the end of the file, a last element that is cut, an end mark that is
missing. Nothing is compared that a whole file may have wrong, such as a header's frame rate.
"""

import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

_MOST_ELEMENTS = 1_000_000  # examined; longer files are judged only by what decodes
_BLANK = 4096  # zero bytes that end no video


@dataclass(frozen=True)
class Ending:
    """How a file ends."""

    cut: str = ""
    """Where it was cut, to follow "the file ends": "inside a cluster". "" if nothing shows that it was."""
    is_whole: bool = False
    """The structure shows that everything is there: no other sign (a duration, a tag) may say otherwise."""
    seconds: float = 0.0
    """The duration in the header, 0 where there is none."""
    damaged: tuple[range, ...] = ()
    """The bytes of parts whose checksum or structure is wrong."""


_UNKNOWN, _WHOLE = Ending(), Ending(is_whole=True)


def ending_of(path: Path, container: str, stream: int = -1, codec: str = "") -> Ending:
    """Returns how a file ends.

    Args:
        container: FFmpeg's name of its format.
        stream: Identifier of its video stream.
        codec: FFmpeg's name of its codec.
    """
    try:
        with open(path, "rb") as file:
            if container == "mpegts":
                return _transport_stream(_Bytes(file), stream if codec in _SILENT_CODECS else -1)
            return _CONTAINERS[container](_Bytes(file)) if container in _CONTAINERS else _UNKNOWN
    except (OSError, EOFError, IndexError, struct.error):
        return _UNKNOWN


class _Bytes:
    """A file read by positions."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def at(self, position: int, count: int) -> bytes:
        """`count` bytes. Raises `EOFError` where the file has fewer."""
        if position < 0 or position + count > self.size:
            raise EOFError
        self._file.seek(position)
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def unpack(self, position: int, layout: str) -> tuple[Any, ...]:
        """What `struct` makes of the bytes there. Raises as `at`."""
        return struct.unpack(layout, self.at(position, struct.calcsize(layout)))


def _ends_blank(file: _Bytes, end: int) -> bool:
    """Whether nothing but zeros precedes `end`, as where room was made for what did not come."""
    return end > _BLANK and not any(file.at(end - _BLANK, _BLANK))


# ------------------------------------------------------------------ AVI


_KIND_OF_CHUNK = re.compile(rb"[0-9]{2}[ -~]{2}|ix[0-9]{2}|JUNK")
_START_OF_CHUNK = re.compile(rb"[0-9]{2}(?:d[bc]|wb)")


def _avi(file: _Bytes) -> Ending:
    """The lists of chunks `movi` must lie in the file and hold nothing else; the index behind them need not."""
    position, lists, cut, damaged = 0, 0, "", list[range]()
    while position + 12 <= file.size and file.at(position, 4) == b"RIFF":
        (length,) = file.unpack(position + 4, "<I")
        for kind, start, end in _riff_chunks(file, position + 12, position + 8 + length):
            if kind == b"LIST" and file.at(start, 4) == b"movi":
                if end - start in (0, 4, 0xFFFFFFFF):  # a recording that was not finished
                    return _UNKNOWN
                lists += 1
                if end > file.size:
                    return Ending("inside its list of chunks")
                if not any(file.at(max(start, end - _BLANK), min(_BLANK, end - start))):
                    return _UNKNOWN  # room made for what was to come
                damaged += _holes(file, start + 4, end)
                if damaged and damaged[-1].stop == end:
                    cut = "inside its list of chunks"
        position += 8 + length + length % 2
    return Ending(cut, is_whole=lists > 0 and not damaged, damaged=tuple(damaged))


def _holes(file: _Bytes, position: int, end: int) -> Iterator[range]:
    """What is no chunk in a list of chunks of streams."""
    for _ in range(_MOST_ELEMENTS):
        if position + 8 > end:
            return
        kind, length = file.unpack(position, "<4sI")
        if kind == b"LIST" and file.at(position + 8, 4) == b"rec ":
            position += 12  # its chunks follow
        elif kind == b"idx1":  # something is missing before it
            yield range(position, end)
            return
        elif _KIND_OF_CHUNK.match(kind) and position + 8 + length <= file.size:
            position += 8 + length + length % 2
        else:
            sought = position - 1  # from here, as some programs leave out what fills a chunk up to an even length
            for block in range(sought, end, 1 << 16):
                found = _START_OF_CHUNK.search(file.at(block, min((1 << 16) + 3, end - block)))
                if found:
                    sought = block + found.start()
                    break
            else:
                sought = end
            if sought > position:
                yield range(position, sought)
            position = sought


def _riff_chunks(file: _Bytes, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each chunk, where its content starts and where it ends."""
    for _ in range(_MOST_ELEMENTS):
        if position + 8 > min(end, file.size):
            return
        kind, length = file.unpack(position, "<4sI")
        yield kind, position + 8, position + 8 + length
        position += 8 + length + length % 2


# ------------------------------------------------------------------ MP4, MOV, 3GP


def _mp4(file: _Bytes) -> Ending:
    """The boxes must end with the file. FFmpeg reports samples beyond its end by the index."""
    position, is_fragmented, awaits_data = 0, False, False
    for _ in range(_MOST_ELEMENTS):
        if position + 8 > file.size:
            break
        length, kind = file.unpack(position, ">I4s")
        header = 8
        if length == 1:
            (length,), header = file.unpack(position + 8, ">Q"), 16
        end = position + length if length else file.size
        if length and length < header:
            return _UNKNOWN
        if kind == b"sidx" and position + _indexed_bytes(file, position, length) > file.size:
            return Ending("before the last fragment of its index")
        if kind == b"moov" and end > file.size:
            return Ending("inside its index")
        if kind in (b"moof", b"mdat"):
            is_fragmented |= kind == b"moof"
            awaits_data = kind == b"moof"
            if end > file.size:
                return Ending("inside a fragment" if is_fragmented else "inside its media data")
        position = end
    if awaits_data or (is_fragmented and file.size > position):
        return Ending("inside a fragment")
    return _WHOLE if position >= file.size and not is_fragmented else _UNKNOWN


def _indexed_bytes(file: _Bytes, position: int, length: int) -> int:
    """How many bytes from `position` on a segment index says there are, itself included."""
    version = file.at(position + 8, 1)[0]
    _, offset = file.unpack(position + 20, ">QQ" if version else ">II")
    at = position + (36 if version else 28)
    _, entries = file.unpack(at, ">HH")
    sizes = file.unpack(at + 4, ">" + "III" * entries)[::3]
    return length + offset + sum(size & 0x7FFFFFFF for size in sizes)


# ------------------------------------------------------------------ Matroska, WebM

_SEGMENT, _CLUSTER, _CUES, _SEEK_HEAD = 0x18538067, 0x1F43B675, 0x1C53BB6B, 0x114D9B74
_EBML, _VOID, _CRC = 0x1A45DFA3, 0xEC, 0xBF
# Info, Tracks, Tags, Attachments, Chapters
_BESIDE = {_CUES, _SEEK_HEAD, 0x1549A966, 0x1654AE6B, 0x1254C367, 0x1941A469, 0x1043A770, _VOID, _CRC}
# Of a cluster: time, position, size of the one before, block, group of blocks, encrypted block, silent tracks
_IN_CLUSTER = {0xE7, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0x5854, _VOID, _CRC}
_LIVE = -1  # the length of an element that was written while it was recorded


def _matroska(file: _Bytes) -> Ending:
    damaged: list[range] = []
    return replace(_end_of_matroska(file, damaged), damaged=tuple(damaged))


def _is_sound(file: _Bytes, start: int, end: int) -> bool:
    """Whether a cluster fits its checksum; or where it begins with none, as FFmpeg's do only in Matroska, whether its
    elements follow one another up to its end."""
    if end - start < 6 or file.at(start, 2) != bytes([_CRC, 0x84]):
        position = start
        while position < end:
            kind, length, content = _element(file, position)
            if kind not in _IN_CLUSTER or length == _LIVE:
                return False
            position = content + length
        return position == end
    found = 0
    for position in range(start + 6, end, 1 << 20):
        found = zlib.crc32(file.at(position, min(1 << 20, end - position)), found)
    return found == int.from_bytes(file.at(start + 2, 4), "little")


def _end_of_matroska(file: _Bytes, damaged: list[range]) -> Ending:
    """Clusters must be complete, and the segment up to its cues. Adds the damaged parts to `damaged`."""
    position, end, in_cluster, clusters, cues = 0, 0, False, 0, 0
    start = 0  # of the segment's content
    for _ in range(_MOST_ELEMENTS):
        if position >= file.size:
            break
        try:
            kind, length, content = _element(file, position)
        except EOFError:
            return _cut_segment(position, end, cues, file.size)
        if kind == _SEGMENT:
            start, position = content, content
            end = file.size if length == _LIVE else content + length
            continue
        if kind == _CLUSTER:
            clusters += 1
            in_cluster = length == _LIVE
            if in_cluster:
                position = content
                continue
            if content + length > file.size:
                return Ending("inside a cluster")
            if not _is_sound(file, content, content + length):
                damaged.append(range(position, content + length))
        elif in_cluster and kind in _IN_CLUSTER:
            if content + length > file.size:
                return Ending("inside a cluster")
        elif kind in _BESIDE or kind == _EBML:
            in_cluster = False
            if kind == _SEEK_HEAD:
                cues = start + _place_of_cues(file, content, content + length)
            if content + length > file.size:
                return _WHOLE if clusters else _UNKNOWN  # an index or tags behind the pictures
        else:
            return Ending("inside a cluster") if in_cluster else _UNKNOWN
        if length == _LIVE:
            return _UNKNOWN
        position = content + length
    return _cut_segment(position, end, cues, file.size) if clusters else _UNKNOWN


def _cut_segment(position: int, end: int, cues: int, size: int) -> Ending:
    """Of a file that ends at or behind `position`, the end of the last complete element."""
    if end > size and cues != position:
        return Ending("before its last cluster")
    if end <= size and position < size:
        return Ending("inside a cluster")
    return _WHOLE if end else _UNKNOWN


def _element(file: _Bytes, position: int) -> tuple[int, int, int]:
    """The kind of an EBML element, its length (`_LIVE`: unknown) and where its content starts."""
    width = 9 - file.at(position, 1)[0].bit_length()
    if width > 4:
        return 0, 0, position + 1
    kind = int.from_bytes(file.at(position, width), "big")
    first = file.at(position + width, 1)[0]
    wide = 9 - first.bit_length()
    if wide > 8:
        return 0, 0, position + 1
    length = int.from_bytes(file.at(position + width, wide), "big") & ((1 << 7 * wide) - 1)
    return kind, _LIVE if length == (1 << 7 * wide) - 1 else length, position + width + wide


def _place_of_cues(file: _Bytes, position: int, end: int) -> int:
    """Where a seek head says that the cues are, from the start of the segment; negative where it does not."""
    while position < min(end, file.size):
        kind, length, content = _element(file, position)
        if length == _LIVE or kind == 0:
            break
        if kind == 0x4DBB and _CUES.to_bytes(4, "big") in (entry := file.at(content, length)):  # a seek entry
            at = entry.find(b"\x53\xac")  # its position
            if at >= 0:
                return int.from_bytes(entry[at + 3 : at + 3 + (entry[at + 2] & 0x7F)], "big")
        position = content + length
    return -file.size - 1


# ------------------------------------------------------------------ ASF, WMV

_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_PACKET = b"\x82\0\0"  # how FFmpeg, too, finds the next one
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _asf(file: _Bytes) -> Ending:
    """The data object must lie in the file, and its packets one after the other, unless it is a broadcast, which does
    not know its length."""
    (header,) = file.unpack(16, "<Q")
    objects = file.at(0, min(header, 1 << 20))
    at = objects.find(_ASF_FILE_PROPERTIES)
    if at < 0:
        return _UNKNOWN
    played, _, preroll, flags, size, largest = struct.unpack_from("<QQQIII", objects, at + 64)
    seconds = max(0.0, played / 1e7 - preroll / 1e3)
    if flags & 1 or file.at(header, 16) != _ASF_DATA:
        return _UNKNOWN
    (length,) = file.unpack(header + 16, "<Q")
    start, end, damaged = header + 50, header + length, list[range]()
    if size == largest > 2 and file.at(start, 3) == _ASF_PACKET:
        for place in range(start, min(end, file.size) - 2, size)[:_MOST_ELEMENTS]:
            if file.at(place, 3) != _ASF_PACKET:
                begun = damaged.pop().start if damaged and damaged[-1].stop == place else place
                damaged.append(range(begun, place + size))
    cut = "inside its data packets" if end > file.size else ""
    is_whole = start < end <= file.size and not _ends_blank(file, end)
    return Ending(cut, is_whole, seconds, tuple(damaged))


# ------------------------------------------------------------------ FLV


_SECOND = 1000  # FLV counts milliseconds


def _flv(file: _Bytes) -> Ending:
    """The last tag must be complete, and the file as long as its header says, or if that says none, its last tag as
    late."""
    (position,) = file.unpack(5, ">I")
    position += 4
    stated = {b"duration": 0.0, b"filesize": 0.0}
    last = longest = 0  # milliseconds: the time of the last tag, and the longest from one to the next
    damaged: tuple[range, ...] = ()
    for _ in range(_MOST_ELEMENTS):
        if position >= file.size:
            break
        if position + 11 > file.size:
            return Ending("inside a tag")
        kind, high, low, later, time, highest = file.unpack(position, ">BBHBHB")
        length, time = (high << 16) + low, (highest << 24) + (later << 16) + time
        if kind & 0x1F not in (8, 9, 18):
            damaged = (range(position, position + 1),)
            break
        if position + 11 + length > file.size:
            is_end = kind == 9 and length == 5 and file.size > position + 12 and file.at(position + 12, 1) == b"\2"
            return _WHOLE if is_end else Ending("inside a tag")
        if kind == 18 and not any(stated.values()):
            script = file.at(position + 11, length)
            for name in stated:
                at = script.find(name + b"\0")  # a number follows
                if 0 <= at <= length - len(name) - 9:
                    (stated[name],) = struct.unpack_from(">d", script, at + len(name) + 1)
        last, longest = max(last, time), max(longest, time - last)
        position += 15 + length
    size, until = stated[b"filesize"], _SECOND * stated[b"duration"]
    if size > file.size + 4 or ((damaged or not size) and until > last + max(_SECOND, 2 * longest)):
        return Ending("before its last tag", damaged=damaged)
    return Ending(is_whole=size == file.size and not damaged, damaged=damaged)


# ------------------------------------------------------------------ Ogg

_OGG_VIDEO = (b"\x80theora", b"OVP80", b"BBCD", b"\x01video")


def _ogg(file: _Bytes) -> Ending:
    """The last page of each stream of pictures must say that it is the last."""
    position, is_open = 0, {}
    for _ in range(_MOST_ELEMENTS):
        if position + 27 > file.size or file.at(position, 4) != b"OggS":
            break
        flags, serial, segments = file.unpack(position, "<5xB8xI8xB")
        if position + 27 + segments > file.size:
            break
        content = position + 27 + segments
        length = sum(file.at(position + 27, segments))
        if flags & 2 and file.at(content, min(8, length, file.size - content)).startswith(_OGG_VIDEO):
            is_open[serial] = True
        if content + length > file.size:
            break
        if flags & 4:
            is_open[serial] = False
        position = content + length
    else:
        return _UNKNOWN
    if not is_open:
        return _UNKNOWN
    return Ending("before the last page of its pictures") if any(is_open.values()) else _WHOLE


# ------------------------------------------------------------------ MPEG program and transport streams


_PADDING = 0xBE


def _program_stream(file: _Bytes) -> Ending:
    """The last packet must be complete. All say their length; only those near the end are looked at."""
    tail = max(0, file.size - (1 << 19))
    data = file.at(tail, file.size - tail)
    at = data.find(b"\0\0\1\xba")
    while 0 <= at < len(data):
        if data[at : at + 3] != b"\0\0\1"[: len(data) - at]:
            return _UNKNOWN
        if len(data) - at < 6:
            return _WHOLE if data[at + 3 : at + 4] == b"\xb9" else Ending("inside a packet")
        code = data[at + 3]
        if code == 0xBA:
            if len(data) - at < 14:
                return Ending("inside a packet")
            at += 14 + (data[at + 13] & 7) if data[at + 4] >> 6 == 1 else 12
        elif code == 0xB9:
            at += 4
        elif code == _PADDING and at + 6 + (data[at + 4] << 8 | data[at + 5]) > len(data):
            return _UNKNOWN  # nothing is missing
        elif code >= 0xBB:
            at += 6 + (data[at + 4] << 8 | data[at + 5])
        else:
            return _UNKNOWN
    return Ending("inside a packet") if at > len(data) else _UNKNOWN


# Decoders that do not notice where the data of a picture end early.
_SILENT_CODECS = {"h264", "hevc", "vvc"}
_STUFFED = 0x20  # a packet with what fills it up


def _transport_stream(file: _Bytes, stream: int) -> Ending:
    """The last packet must be complete, and so must the last picture, of `stream` if that is not negative.

    A picture without a length ends in a packet that is filled up to its fixed length, save one in 184 that fits.
    """
    if _ends_blank(file, file.size):
        return Ending("in blank space")
    for length, lead in ((188, 0), (192, 4), (204, 0)):
        count = file.size // length
        places = [lead + length * n for n in (0, 1, 2, count // 2, count - 2, count - 1)]
        if count > 2 and all(file.at(place, 1) == b"\x47" for place in places):
            break
    else:
        return _UNKNOWN
    if file.size % length:
        return Ending("inside a packet")
    is_last = True
    for number in range(count - 1, max(-1, count - _MOST_ELEMENTS), -1):
        packet = file.at(lead + length * number, 188)
        if (packet[1] << 8 | packet[2]) & 0x1FFF != stream:
            continue
        if is_last and packet[3] & _STUFFED:
            return _UNKNOWN
        is_last = False
        if packet[1] & 0x40:  # the picture starts here
            at = 5 + packet[4] if packet[3] & _STUFFED else 4
            return Ending("inside a picture") if packet[at + 4 : at + 6] == b"\0\0" else _UNKNOWN
    return _UNKNOWN


# ------------------------------------------------------------------ animated pictures


def _gif(file: _Bytes) -> Ending:
    try:
        flags = file.at(10, 1)[0]
        position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        for _ in range(_MOST_ELEMENTS):
            if position == file.size:
                blank = _ends_blank(file, file.size)  # else no end mark, as some programs leave it
                return Ending("in blank space") if blank else _UNKNOWN
            kind = file.at(position, 1)[0]
            if kind == 0x3B:
                return _WHOLE
            if kind == 0x2C:
                flags = file.at(position + 9, 1)[0]
                position += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            elif kind == 0x21:
                position += 2
            elif kind == 0:  # between two blocks it means nothing
                position += 1
                continue
            else:
                return Ending("inside a picture")
            while length := file.at(position, 1)[0]:
                position += 1 + length
            position += 1
    except EOFError:
        return Ending("inside a picture")
    return _UNKNOWN


def _png(file: _Bytes) -> Ending:
    """Chunks must be complete, and as many pictures as are announced have to begin."""
    position, missing = 8, 0
    for _ in range(_MOST_ELEMENTS):
        if position + 12 > file.size:
            return _UNKNOWN if missing == 0 else Ending("before its last picture")
        length, kind = file.unpack(position, ">I4s")
        if kind == b"acTL":
            (missing,) = file.unpack(position + 8, ">I")
        missing -= kind == b"fcTL"
        position += 12 + length
        if position > file.size:
            return Ending("inside a picture")
        if kind == b"IEND":
            return _WHOLE
    return _UNKNOWN


# By FFmpeg's name of the format; of `mpegts` see `ending_of`.
_CONTAINERS: dict[str, Callable[[_Bytes], Ending]] = {
    "avi": _avi,
    "mov,mp4,m4a,3gp,3g2,mj2": _mp4,
    "matroska,webm": _matroska,
    "asf": _asf,
    "flv": _flv,
    "ogg": _ogg,
    "mpeg": _program_stream,
    "gif": _gif,
    "apng": _png,
}
