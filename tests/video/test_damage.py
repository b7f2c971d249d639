"""A film with flipped bytes is named as damaged wherever its decoder or container can tell; a sound one never is."""

from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.errors import VideoError
from pipelines.video.decoding import VideoReader, tells_of_damage
from pipelines.video.isolation import Decoder
from tests.helpers.films import FRAMES, KINDS, flipped, texture, verdict, write_film

TRIED = 16
# Of films whose pictures changed by flipped bits, the share that is named at least. With a checksum of the codec or the
# container it is all; arithmetic coders without one decode anything.
NAMED = {
    **dict.fromkeys(("ffv1.mkv", "png.mov", "apng.apng", "vp8.ogv", "h264.mkv", "hevc.mkv", "av1.mkv"), 1.0),
    **dict.fromkeys(("h264.mp4", "h264.ts", "mpeg4.avi", "mpeg2.mpg", "h263.3gp", "flv1.flv"), 0.6),
    **dict.fromkeys(("wmv2.wmv",), 0.4),
    **dict.fromkeys(("mjpeg.avi",), 0.1),
    **dict.fromkeys(("vp9.webm", "hevc.ts"), 0.0),
}


def pictures(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return list(reader)


@pytest.mark.parametrize("name", NAMED)
def test_a_film_with_flipped_bits_is_what_it_was_or_is_named_as_often_as_stated(tmp_path: Path, name: str) -> None:
    codec, pixels = KINDS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    path = tmp_path / name
    write_film(path, codec, pixels, texture())
    content, original = path.read_bytes(), pictures(path)
    named = unnoticed = 0
    for seed in range(TRIED):
        path.write_bytes(flipped(content, seed))
        try:
            shown = pictures(path)
        except VideoError as error:
            named += str(error).startswith(("damaged: ", "truncated: ", "no ", "not ", "the picture changes"))
        else:
            unnoticed += not np.array_equal(shown, original)
    assert named + unnoticed > TRIED / 2  # or this test shows nothing
    assert named >= NAMED[name] * (named + unnoticed), (named, unnoticed)


def broken(path: Path) -> Path:
    """A film of which two pictures are concealed."""
    write_film(path, "mpeg4", "yuv420p", texture())
    content = bytearray(path.read_bytes())
    place = content.index(b"\0\0\1\xb6", len(content) // 2) + 40
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)
    return path


def test_a_damaged_film_fails_with_the_number_of_its_damaged_frames(tmp_path: Path) -> None:
    assert verdict(broken(tmp_path / "a.avi")) == f"damaged: 1 of {FRAMES} frames"


def test_a_damaged_film_is_given_out_and_marked_where_allowed(tmp_path: Path) -> None:
    with VideoReader(broken(tmp_path / "a.avi"), allow_damaged=True) as reader:
        assert len(list(reader)) == FRAMES
        assert (reader.damaged_frames, reader.truncated) == (1, False)
    assert verdict(tmp_path / "a.avi", allow_truncated=True).startswith("damaged: 1")


def test_a_damaged_film_is_given_out_by_the_isolated_decoder_which_says_so(tmp_path: Path) -> None:
    decoder = Decoder()
    with decoder.open(broken(tmp_path / "a.avi")) as reader:
        assert len(list(reader)) == FRAMES
        assert reader.damaged_frames == 1
    decoder.close()


def test_messages_of_films_cut_without_coding_them_anew_are_no_damage() -> None:
    assert not tells_of_damage(av.logging.ERROR, "mmco: unref short failure\n")
    assert not tells_of_damage(av.logging.WARNING, "deprecated pixel format used\n")
    assert tells_of_damage(av.logging.ERROR, "error while decoding MB 1 2, bytestream -6\n")


def test_pictures_that_cannot_be_decoded_before_the_first_that_stands_alone_are_not_damage(tmp_path: Path) -> None:
    """As where a film is cut out of another at any place, without coding it anew."""
    write_film(tmp_path / "whole.mkv", "libx264", "yuv420p", texture(), options={"g": "10", "keyint_min": "10"})
    with av.open(str(tmp_path / "whole.mkv")) as film, av.open(str(tmp_path / "a.ts"), "w") as cut:
        stream = cut.add_stream_from_template(film.streams.video[0])
        for number, packet in enumerate(film.demux(video=0)):
            if number >= 4 and packet.dts is not None:
                packet.stream = stream
                cut.mux(packet)
    assert 10 <= int(verdict(tmp_path / "a.ts")) < FRAMES


def test_nothing_of_a_decoders_messages_reaches_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    verdict(broken(tmp_path / "a.avi"))
    assert capfd.readouterr() == ("", "")
