"""Animated pictures are films: GIF, APNG and WebP. Still pictures are none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import MissingError, VideoError
from pipelines.sources.videos import find_videos
from pipelines.video.decoding import VideoReader
from pipelines.video.isolation import Decoder
from tests.helpers.films import texture, verdict, write_film

FRAMES = texture(6, 48, 64)
DURATIONS = [40, 100, 40, 500, 40, 40]  # milliseconds


def write_animation(path: Path, format: str, frames: np.ndarray = FRAMES, **options: object) -> Path:
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(path, format, save_all=True, append_images=others, duration=DURATIONS[: len(frames)], loop=0, **options)
    return path


@pytest.mark.parametrize(
    ("name", "format", "options"), [("a.webp", "WEBP", {"lossless": True}), ("a.png", "PNG", {}), ("a.apng", "PNG", {})]
)
def test_a_lossless_animation_comes_out_bit_for_bit_and_at_its_times(
    tmp_path: Path, name: str, format: str, options: dict[str, object]
) -> None:
    path = write_animation(tmp_path / name, format, **options)
    with VideoReader(path) as reader:
        assert np.array_equal(list(reader), FRAMES)
        assert np.allclose(reader.timing.times, np.cumsum([0, *DURATIONS[:-1]]) / 1000, atol=1e-3)


def test_a_gif_comes_out_as_its_frames(tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 8).astype(np.uint8)[FRAMES % 8]
    with VideoReader(write_animation(tmp_path / "a.gif", "GIF", grey)) as reader:
        frames = np.stack(list(reader))
    assert frames.shape == FRAMES.shape
    assert np.abs(frames.astype(int) - grey).mean() < 30  # a palette of 256 colours
    write_film(tmp_path / "b.gif", "gif", "gray", [np.full((48, 64, 3), 10 * n, np.uint8) for n in range(9)])
    with VideoReader(tmp_path / "b.gif") as reader:
        assert [frame.min() for frame in reader] == [10 * n for n in range(9)]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
def test_a_cut_animation_is_truncated(tmp_path: Path, name: str) -> None:
    path = write_animation(tmp_path / name, name[2:].upper())
    content = path.read_bytes()
    for percent in (30, 60, 90, 99):
        path.write_bytes(content[: len(content) * percent // 100])
        assert verdict(path).startswith(("truncated: ", "no frame")), percent


def test_an_animation_is_decoded_apart_as_well(tmp_path: Path) -> None:
    path = write_animation(tmp_path / "a.webp", "WEBP", lossless=True)
    decoder = Decoder()
    with decoder.open(path) as reader:
        assert np.array_equal(list(reader), FRAMES)
    decoder.close()


def test_of_pictures_in_a_folder_only_the_animated_ones_are_videos(tmp_path: Path) -> None:
    for format in ("png", "webp"):
        write_animation(tmp_path / f"moving_{format}.{format}", format.upper())
        Image.fromarray(FRAMES[0]).save(tmp_path / f"still.{format}")
    write_animation(tmp_path / "moving_gif.gif", "GIF")
    Image.fromarray(FRAMES[0]).save(tmp_path / "still.jpg")
    found = find_videos(tmp_path)
    assert [source.video for source in found.videos] == ["moving_gif", "moving_png", "moving_webp"]
    assert found.ignored == 3


def test_a_folder_of_still_pictures_holds_no_videos(tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(FRAMES[number]).save(tmp_path / f"{number}.png")
    with pytest.raises(MissingError, match="no videos"):
        find_videos(tmp_path)


def test_a_still_picture_named_as_a_video_is_none(tmp_path: Path) -> None:
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match="not a video"):
        VideoReader(tmp_path / "a.png")


def test_webp_of_nonsense_is_one_sentence(tmp_path: Path) -> None:
    head = b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0"
    for size, said in ((b"\x10\0\0" * 2, "its WebP animation cannot be decoded"), (b"\xff" * 6, "more than")):
        (tmp_path / "a.webp").write_bytes(head + size + bytes(range(60)))
        with pytest.raises(VideoError, match=said):
            VideoReader(tmp_path / "a.webp")
