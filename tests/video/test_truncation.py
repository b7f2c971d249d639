"""A film that was cut is known as truncated wherever something in its file can tell; a whole one never is."""

import re
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.video.decoding import VideoReader
from tests.helpers.films import FRAMES, HEIGHT, KINDS, WIDTH, texture, verdict, write_film

ANIMATED = (".gif", ".apng")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A film of each kind, by its name."""
    folder = tmp_path_factory.mktemp("films")
    made = {}
    for name, (codec, pixels) in KINDS.items():
        if codec in av.codecs_available:
            write_film(folder / name, codec, pixels, texture())
            made[name] = folder / name
    return made


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_film_is_whole_in_every_container_and_codec(films: dict[str, Path], name: str) -> None:
    assert verdict(existing(films, name)) == str(FRAMES)


@pytest.mark.parametrize("name", KINDS)
def test_a_film_cut_at_any_byte_is_truncated_or_has_all_its_frames(
    films: dict[str, Path], name: str, tmp_path: Path
) -> None:
    content, cut = existing(films, name).read_bytes(), tmp_path / name
    for percent in (10, 23, 50, 67, 81, 90, 95, 98, 99):
        position = len(content) * percent // 100
        cut.write_bytes(content[: position + (position % 188 == 0)])  # between packets of .ts nothing may tell
        found = verdict(cut)
        assert re.match(r"truncated: decoded \d+|not a video|no frame", found) or found == str(FRAMES), (percent, found)
        if percent <= 90:
            assert found != str(FRAMES), percent


def existing(films: dict[str, Path], name: str) -> Path:
    if name not in films:
        pytest.skip(f"this FFmpeg has no encoder {KINDS[name][0]}")
    return films[name]


@pytest.mark.parametrize("name", [name for name in KINDS if not name.endswith((*ANIMATED, ".m4v"))])
def test_sound_that_outlasts_the_pictures_is_no_truncation(tmp_path: Path, name: str) -> None:
    codec, pixels = KINDS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    write_film(tmp_path / name, codec, pixels, texture(), sound_seconds=4)
    assert verdict(tmp_path / name) == str(FRAMES)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", {"live": "1"}),
        ("a.webm", {"live": "1"}),
        ("a.mkv", {"reserve_index_space": "2000"}),
        ("a.mkv", {"cluster_time_limit": "200"}),
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mp4", {"movflags": "faststart"}),
        ("a.mp4", {"movflags": "dash+frag_keyframe+global_sidx"}),
        ("a.ts", {"mpegts_m2ts_mode": "1"}),
        ("a.flv", {"flvflags": "no_duration_filesize"}),
    ],
)
def test_films_written_live_or_in_fragments_are_whole_and_cut_they_are_truncated(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    codec = "libvpx" if name.endswith("webm") else "libx264"
    path = tmp_path / name
    write_film(path, codec, "yuv420p", texture(), container_options=options)
    assert verdict(path) == str(FRAMES)
    content = path.read_bytes()
    for percent in (40, 71, 93):
        path.write_bytes(content[: len(content) * percent // 100])
        assert re.match("truncated: decoded |not a video", verdict(path)), percent


def test_the_message_says_how_many_of_how_many_or_when_the_file_ends_or_where(
    films: dict[str, Path], tmp_path: Path
) -> None:
    said = {}
    for name in ("mpeg4.avi", "ffv1.mkv", "mpeg2.mpg"):
        content = films[name].read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        said[name] = re.sub(r"\d+", "N", verdict(tmp_path / name))
    assert said == {
        "mpeg4.avi": "truncated: decoded N of N",
        "ffv1.mkv": "truncated: decoded N frames; the file ends at N.N of N.N s",
        "mpeg2.mpg": "truncated: decoded N frames; the file ends inside a packet",
    }


def test_what_a_cut_film_still_has_is_given_out_where_allowed(films: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    content = films["ffv1.mkv"].read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with VideoReader(path, allow_truncated=True) as reader, VideoReader(films["ffv1.mkv"]) as whole:
        for shown, original in zip(reader, whole, strict=False):
            assert (shown == original).all()
        assert reader.truncated
        assert not reader.damaged_frames
        assert 10 < reader.decoded < 20


def test_a_film_of_which_half_is_still_blank_is_truncated(films: dict[str, Path], tmp_path: Path) -> None:
    for name in ("mpeg4.avi", "ffv1.mkv", "wmv2.wmv", "h264.flv", "flv1.flv", "h264.ts", "gif.gif"):
        content = films[name].read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))
        assert verdict(tmp_path / name).startswith(("truncated: ", "damaged: ")), name
        if not name.endswith(".ts"):  # in which nothing tells what comes behind the end from what is missing
            (tmp_path / name).write_bytes(content + bytes(10_000))
            assert verdict(tmp_path / name) == str(FRAMES), name


@pytest.mark.parametrize("name", ["vp9.webm", "wmv2.wmv", "flv1.flv", "h264.flv"])
@pytest.mark.parametrize("filled", [False, True])
def test_a_film_of_which_a_piece_within_is_missing_or_blank_is_damaged_or_truncated(
    films: dict[str, Path], tmp_path: Path, name: str, filled: bool
) -> None:
    content = existing(films, name).read_bytes()
    start, stop = (len(content) * percent // 100 for percent in (50, 65))
    (tmp_path / name).write_bytes(content[:start] + bytes(filled * (stop - start)) + content[stop:])
    assert verdict(tmp_path / name).startswith(("truncated: ", "damaged: "))


@pytest.mark.parametrize("name", ["h264.mp4", "h264.flv", "vp8.webm", "vp9.webm", "gif.gif"])
def test_a_film_with_a_blank_sector_is_damaged_or_truncated(films: dict[str, Path], tmp_path: Path, name: str) -> None:
    content = existing(films, name).read_bytes()
    for size in (512, 4096):
        for percent in (30, 37, 45, 55, 61):
            start = len(content) * percent // 100
            (tmp_path / name).write_bytes(content[:start] + bytes(size) + content[start + size :])
            assert verdict(tmp_path / name).startswith(("truncated: ", "damaged: ")), (size, percent)


def test_zeros_between_slices_of_a_stream_of_constant_rate_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "stuffed.ts"
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=25, width=WIDTH, height=HEIGHT, options={"slices": "4"})
        frames = [av.VideoFrame.from_ndarray(picture) for picture in texture()]
        for packet in [packet for frame in (*frames, None) for packet in stream.encode(frame)]:
            head, rest = bytes(packet)[:4], bytes(packet)[4:]
            stuffed = av.Packet(head + rest.replace(b"\0\0\1", bytes(900) + b"\0\0\1"))
            stuffed.stream, stuffed.time_base = stream, packet.time_base
            stuffed.pts, stuffed.dts, stuffed.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
            film.mux(stuffed)
    assert path.stat().st_size > FRAMES * 3 * 900
    assert verdict(path) == str(FRAMES)


def test_a_transport_stream_of_which_a_piece_of_a_key_frame_is_missing_is_damaged(
    films: dict[str, Path], tmp_path: Path
) -> None:
    content = existing(films, "hevc.ts").read_bytes()
    with av.open(str(films["hevc.ts"])) as film:
        place = [packet.pos for packet in film.demux(video=0) if packet.is_keyframe][1]
    for number in range(4, 30, 3):
        start = place + number * 188
        (tmp_path / "a.ts").write_bytes(content[:start] + content[start + 3 * 188 :])
        assert verdict(tmp_path / "a.ts").startswith("damaged: "), number


@pytest.mark.parametrize("name", [name for name in KINDS if name.endswith(".avi")])
@pytest.mark.parametrize("lost", ["all", "head", "content", "removed"])
def test_an_avi_of_which_one_chunk_is_blank_or_missing_is_damaged_or_truncated(
    films: dict[str, Path], tmp_path: Path, name: str, lost: str
) -> None:
    content = existing(films, name).read_bytes()
    start = [found.start() for found in re.finditer(b"00dc", content[: content.rindex(b"idx1")])][FRAMES // 2]
    end = start + 8 + struct.unpack_from("<I", content, start + 4)[0]
    end += end % 2
    first, last = {"head": (start, start + 8), "content": (start + 8, end)}.get(lost, (start, end))
    (tmp_path / name).write_bytes(content[:first] + bytes((last - first) * (lost != "removed")) + content[last:])
    assert verdict(tmp_path / name).startswith(("truncated: ", "damaged: "))


def test_a_film_of_black_pictures_without_coding_is_not_blank(tmp_path: Path) -> None:
    write_film(tmp_path / "a.avi", "rawvideo", "bgr24", np.zeros((4, 48, 64, 3), np.uint8))
    assert verdict(tmp_path / "a.avi") == "4"


def test_an_avi_whose_chunks_of_odd_lengths_are_not_filled_up_is_whole(films: dict[str, Path], tmp_path: Path) -> None:
    content = films["mpeg4.avi"].read_bytes()
    start = content.index(b"movi") + 4
    chunks, place = b"", start
    while content[place : place + 4] == b"00dc":
        (length,) = struct.unpack_from("<I", content, place + 4)
        chunks += content[place : place + 8 + length]
        place += 8 + length + length % 2
    filled = struct.pack("<I", len(chunks) + 4)
    (tmp_path / "a.avi").write_bytes(content[: start - 8] + filled + b"movi" + chunks)
    assert verdict(tmp_path / "a.avi") == str(FRAMES)


@pytest.mark.parametrize("name", ["h264.ts", "hevc.ts", "mpeg2.ts"])
def test_a_transport_stream_of_which_what_precedes_a_key_frame_is_missing_is_damaged(
    films: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """As a stream's segment that was not downloaded; of streams that were joined the clocks do not tell a gap."""
    content = existing(films, name).read_bytes()
    packets = [content[place : place + 188] for place in range(0, len(content), 188)]
    tables = [number for number, packet in enumerate(packets) if packet[1:3] == b"\x40\0"]  # one before each key frame
    start, stop = tables[len(tables) // 3], tables[2 * len(tables) // 3]
    for first in (start, start + 1, start - 2):
        (tmp_path / name).write_bytes(b"".join(packets[:first] + packets[stop:]))
        assert verdict(tmp_path / name).startswith("damaged: "), first


# ------------------------------------------------------------------ headers and tags that are wrong in whole files


def test_a_number_of_frames_that_a_program_copied_while_it_cut_a_film_is_not_believed(tmp_path: Path) -> None:
    for number in ("5000", "3"):
        path = tmp_path / f"{number}.mkv"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=25, width=64, height=48, pix_fmt="yuv420p")
            stream.metadata["NUMBER_OF_FRAMES"] = number
            for picture in texture(12, 48, 64):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        assert verdict(path) == "12"


def test_an_avi_header_that_counts_too_many_does_not_make_a_whole_film_truncated(
    films: dict[str, Path], tmp_path: Path
) -> None:
    content = bytearray(films["mpeg4.avi"].read_bytes())
    for tag, offset in ((b"avih", 24), (b"strh", 40)):
        struct.pack_into("<I", content, content.index(tag) + offset, 200)
    (tmp_path / "a.avi").write_bytes(content)
    assert verdict(tmp_path / "a.avi") == str(FRAMES)


def test_a_recording_that_nobody_finished_has_the_frames_it_has(films: dict[str, Path], tmp_path: Path) -> None:
    content = bytearray(films["mpeg4.avi"].read_bytes())
    struct.pack_into("<I", content, 4, 0)
    struct.pack_into("<I", content, content.index(b"movi") - 4, 0)
    for tag, offset in ((b"avih", 24), (b"strh", 40)):
        struct.pack_into("<I", content, content.index(tag) + offset, 1 << 30)
    (tmp_path / "a.avi").write_bytes(content)
    assert verdict(tmp_path / "a.avi") == str(FRAMES)
    with VideoReader(tmp_path / "a.avi") as reader:
        assert reader.container_frames == 0


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.ts", "mpeg2.mpg", "vp8.ogv"])
def test_films_joined_end_to_end_are_neither_truncated_nor_damaged(
    films: dict[str, Path], tmp_path: Path, name: str
) -> None:
    content = films[name].read_bytes()
    (tmp_path / name).write_bytes(content + content)
    assert verdict(tmp_path / name) == str(2 * FRAMES)


def test_a_picture_shown_for_long_at_the_end_is_no_truncation(tmp_path: Path) -> None:
    for suffix, codec in (("mkv", "mpeg4"), ("mp4", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx"), ("wmv", "wmv2")):
        path = tmp_path / f"a.{suffix}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, width=64, height=48, pix_fmt="yuv420p")
            for index, picture in enumerate(texture(12, 48, 64)):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                frame.pts = index if index < 11 else 300
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        assert verdict(path) == "12", suffix
