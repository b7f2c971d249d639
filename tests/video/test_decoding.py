"""Frames come out exactly as they went in, or a sentence says why not."""

import os
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.errors import VideoError
from pipelines.runtime.worker_pool import Limits
from pipelines.video.decoding import CONTAINERS, VideoReader, is_truncated
from pipelines.video.isolation import Decoder
from pipelines.video.synthetic import write_video

DATA = Path(__file__).parents[3] / "shared" / "data"


def texture(frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def write_cut_avi(path: Path, frames: int, share: float) -> None:
    whole = path.with_name("whole.avi")
    write_video(whole, texture(frames))
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_no_frame_starts_threads_of_its_own(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", texture(5))
    before = set(os.listdir("/proc/self/task"))
    with VideoReader(tmp_path / "a.avi") as reader:
        assert all(set(os.listdir("/proc/self/task")) <= before for _ in reader)


@pytest.mark.parametrize(
    "name", ["a.mkv", "a b.avi", "a#1.mkv", "a&b.mkv", "a[1].mkv", "a.b.mkv", "größe.mkv", "%d.avi"]
)
def test_lossless_frames_come_out_bit_for_bit(tmp_path: Path, name: str) -> None:
    frames = texture(5)
    write_video(tmp_path / name, frames, codec="ffv1", pixels="bgr0")
    with VideoReader(tmp_path / name) as reader:
        assert (reader.width, reader.height, reader.fps) == (64, 48, 25.0)
        assert np.array_equal(list(reader), frames)
        assert (reader.decoded, reader.truncated) == (5, False)


def test_frames_are_resized_to_the_short_side(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", texture(2), codec="ffv1", pixels="bgr0")
    with VideoReader(tmp_path / "a.mkv", 96) as reader:
        assert [frame.shape for frame in reader] == [(96, 128, 3)] * 2
        assert (reader.source_width, reader.source_height) == (64, 48)
    with VideoReader(tmp_path / "a.mkv", 96, keep_size=True) as reader:
        assert (reader.width, reader.height) == (64, 48)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "forgiven"),
    [
        ("a.mov", "png", "rgb48be", 1),
        ("a.mov", "png", "gray16be", 1),
        ("a.mkv", "ffv1", "gray16le", 1),
        ("a.mkv", "ffv1", "gray", 0),
        ("a.avi", "rawvideo", "bgr24", 0),
        ("a.mov", "qtrle", "argb", 0),  # transparency is not looked at
        ("a.mov", "qtrle", "gray", 0),  # decodes as a palette
        ("a.mov", "prores_ks", "yuva444p10le", 2),
        ("a.mp4", "libx264", "yuv444p10le", 3),
        ("a.mkv", "ffv1", "yuv420p16le", 10),
    ],
)
def test_every_pixel_format_comes_out_as_its_picture(
    tmp_path: Path, name: str, codec: str, pixels: str, forgiven: int
) -> None:
    picture = smooth(grey="gray" in pixels)
    write_frames(tmp_path / name, codec, pixels, [picture] * 2)
    with VideoReader(tmp_path / name) as reader:
        frames = list(reader)
    assert len(frames) == 2
    assert np.abs(frames[0].astype(int) - picture).max() <= forgiven


@pytest.mark.parametrize(
    ("space", "spread"),
    [(av.video.reformatter.Colorspace.ITU709, 1), (av.video.reformatter.Colorspace.ITU601, 1), (None, 2)],
    ids=["BT.709", "BT.601", "full range"],
)
def test_colours_are_those_that_the_video_says_it_means(tmp_path: Path, space: int | None, spread: int) -> None:
    picture = smooth()
    write_frames(
        tmp_path / "a.mp4", "libx264", "yuv444p" if space else "yuvj444p", [picture], space=space, spread=spread
    )
    with VideoReader(tmp_path / "a.mp4") as reader:
        (frame,) = reader
    assert np.abs(frame.astype(int) - picture).max() <= 4


def smooth(grey: bool = False) -> np.ndarray:
    """Colours that any subsampling keeps: uint8 [48, 64, 3]."""
    y, x = np.mgrid[:48, :64]
    channels = (x * 4, x * 4, x * 4) if grey else (x * 4, y * 5, (x + y) * 2)
    return np.stack(channels, axis=-1).astype(np.uint8)


def write_frames(
    path: Path, codec: str, pixels: str, frames: list[np.ndarray], space: int | None = None, spread: int | None = None
) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "1"} if codec == "libx264" else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if space is not None:
            stream.codec_context.colorspace = space
        if spread is not None:
            stream.codec_context.color_range = spread
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format=pixels, dst_colorspace=space, dst_color_range=spread)
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


ONE = 1 << 16  # in the fixed-point numbers of a display matrix


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, ONE, 0, -ONE, 0), lambda picture: np.rot90(picture, -1)),
        ((0, -ONE, 0, ONE, 0), lambda picture: np.rot90(picture, 1)),
        ((-ONE, 0, 0, 0, -ONE), lambda picture: picture[::-1, ::-1]),
        ((-ONE, 0, 0, 0, ONE), lambda picture: picture[:, ::-1]),
        ((ONE, 0, 0, 0, -ONE), lambda picture: picture[::-1]),
        ((0, ONE, 0, ONE, 0), lambda picture: picture.swapaxes(0, 1)),
        ((2 * ONE, 0, 0, 0, ONE), lambda picture: picture),
        ((0, 0, 0, 0, 0), lambda picture: picture),
    ],
    ids=["right", "left", "about", "mirrored", "upended", "transposed", "stretched", "nothing"],
)
def test_a_display_matrix_gives_the_picture_a_player_shows(
    tmp_path: Path, matrix: tuple[int, ...], shown: Callable[[np.ndarray], np.ndarray]
) -> None:
    with VideoReader(film_with_matrix(tmp_path, matrix)) as reader:
        frames = np.stack(list(reader))
        assert (reader.source_height, reader.source_width) == frames.shape[1:3]
    assert np.array_equal(frames, [shown(picture) for picture in texture(2)])


def test_other_turns_than_quarters_are_named_as_unsupported(tmp_path: Path) -> None:
    reason = refused(film_with_matrix(tmp_path, (46341, 46341, 0, -46341, 46341)))
    assert reason == "its rotation is not a multiple of 90 degrees: unsupported"


def film_with_matrix(folder: Path, matrix: tuple[int, ...]) -> Path:
    path = folder / "a.mov"
    write_frames(path, "qtrle", "rgb24", list(texture(2)))
    content = bytearray(path.read_bytes())
    struct.pack_into(">5i", content, content.index(b"tkhd") + 44, *matrix)
    path.write_bytes(content)
    return path


def test_rotation_is_applied_as_a_player_would(tmp_path: Path) -> None:
    frames = texture(3)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        stream.set_display_rotation(90)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    with VideoReader(tmp_path / "a.mp4") as reader:
        assert (reader.width, reader.height) == (48, 64)
        assert np.array_equal(list(reader), np.rot90(frames, axes=(1, 2)))


@pytest.mark.parametrize(
    ("decoded", "counted", "truncated"),
    [
        (49, 107, True),
        (107, 107, False),
        (72, 73, False),
        (10, 12, False),
        (9, 12, True),
        (980, 1000, False),
        (979, 1000, True),
        (5, 0, False),
    ],
)
def test_truncated_is_more_than_two_frames_and_two_per_cent_short(decoded: int, counted: int, truncated: bool) -> None:
    assert is_truncated(decoded, counted) is truncated


def test_a_cut_avi_says_how_much_decodes(tmp_path: Path) -> None:
    write_cut_avi(tmp_path / "cut.avi", frames=40, share=0.5)
    reader = VideoReader(tmp_path / "cut.avi")
    with pytest.raises(VideoError) as error:
        list(reader)
    assert 5 < reader.decoded < 35
    assert str(error.value) == f"truncated: decoded {reader.decoded} of 40"
    reader.close()


def test_a_cut_avi_is_given_out_and_marked_where_allowed(tmp_path: Path) -> None:
    write_cut_avi(tmp_path / "cut.avi", frames=40, share=0.5)
    with VideoReader(tmp_path / "cut.avi", allow_truncated=True) as reader:
        frames = list(reader)
    assert reader.truncated
    assert len(frames) == reader.decoded < 35


def test_a_picture_that_does_not_decode_is_damage_with_the_decoders_reason(tmp_path: Path) -> None:
    frames = texture(20)
    write_video(tmp_path / "a.avi", frames, codec="png", pixels="rgb24")
    content = bytearray((tmp_path / "a.avi").read_bytes())
    middle = content.index(b"\x89PNG", len(content) // 2)
    content[middle : middle + 8] = bytes(8)
    (tmp_path / "a.avi").write_bytes(content)
    with VideoReader(tmp_path / "a.avi", allow_damaged=True) as reader:
        shown = list(reader)
        assert (reader.truncated, reader.damaged_frames) == (False, 1)
    number = next(index for index, frame in enumerate(shown) if not np.array_equal(frame, frames[index]))
    assert len(shown) < len(frames)
    assert np.array_equal(shown[number:], frames[number - len(shown) :])  # players, too, go on after it
    with VideoReader(tmp_path / "a.avi") as reader, pytest.raises(VideoError, match=r"damaged: 1 of \d+ frames \(dec"):
        list(reader)


def test_colours_that_nothing_converts_are_named_as_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.colorspace = 8  # YCgCo
        for picture in texture(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with VideoReader(path) as reader, pytest.raises(VideoError, match="cannot be converted to RGB"):
        list(reader)
    decoder = Decoder(Limits(patience=20))
    with decoder.open(path) as isolated, pytest.raises(VideoError, match="cannot be converted to RGB"):
        list(isolated)
    with decoder.open(path) as isolated:  # the process lives, and serves the next
        assert list(isolated.pick(lambda index: False)) == []
        assert isolated.decoded == 3
    decoder.close()


def test_a_change_of_size_within_a_video_is_unsupported(tmp_path: Path) -> None:
    streams = []
    for name, size in (("a", (48, 64)), ("b", (64, 80))):
        write_video(tmp_path / f"{name}.avi", texture(3, *size))
        with av.open(str(tmp_path / f"{name}.avi")) as container:
            streams.append([bytes(packet) for packet in container.demux(video=0) if packet.size])
    with av.open(str(tmp_path / "both.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, data in enumerate(streams[0] + streams[1]):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            container.mux(packet)
    with VideoReader(tmp_path / "both.avi") as reader, pytest.raises(VideoError, match=r"64x48 to 80x64 .*unsupported"):
        list(reader)


def refused(path: Path) -> str:
    with pytest.raises(VideoError) as error:
        VideoReader(path)
    return str(error.value)


def test_what_is_no_video_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty.avi").touch()
    (tmp_path / "text.avi").write_text("not a video\n" * 100)
    (tmp_path / "folder.avi").mkdir()
    assert refused(tmp_path / "empty.avi") == "the file is empty"
    assert refused(tmp_path / "gone.avi") == "the file does not exist"
    assert refused(tmp_path / "folder.avi") == "not a file"
    assert refused(tmp_path / "text.avi").startswith("not a video")


def test_a_file_with_sound_alone_holds_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert refused(tmp_path / "a.mkv") == "holds no video stream"


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile {}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{}</BaseURL></MPD>',
    ],
)
def test_play_lists_named_as_videos_open_no_other_file(tmp_path: Path, playlist: str) -> None:
    write_video(tmp_path / "secret.avi", texture(3))
    (tmp_path / "a.avi").write_text(playlist.format(tmp_path / "secret.avi"))
    assert refused(tmp_path / "a.avi").startswith("not a video")


def test_no_container_accepted_reads_other_files() -> None:
    assert not {"concat", "hls", "sdp", "dash", "image2", "lavfi", "imf"} & set(CONTAINERS.split(","))


@pytest.mark.skipif(not DATA.is_dir(), reason="the real clips are not here")
@pytest.mark.parametrize(
    ("clip", "frames", "size"),
    [
        ("ucf101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 164, (320, 240)),
        ("ucf101/Punch/v_Punch_g03_c01.avi", 108, (320, 240)),
        ("hmdb51/wave/RATRACE_wave_f_nm_np1_fr_goo_37.avi", 72, (560, 240)),  # its container counts 73
        ("kinetics/abseiling/abseiling_k400.mp4", 250, (454, 256)),
        ("weizmann/videos/walk/denis_walk.avi", 68, (80, 64)),
    ],
)
def test_real_clips_decode_to_the_known_number_of_frames(clip: str, frames: int, size: tuple[int, int]) -> None:
    with VideoReader(DATA / clip, keep_size=True) as reader:
        assert sum(1 for _ in reader) == frames
        assert (reader.width, reader.height) == size


def test_streams_that_a_damaged_file_adds_while_it_is_read_do_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV looks for them in memory that is not its own, and may raise an IndexError after our stream's last packet."""
    write_video(tmp_path / "film.avi", texture(10))

    class Adding:
        def __init__(self, path: Path, _: object) -> None:
            self.container = av.open(str(path))

        def __getattr__(self, name: str) -> object:
            return getattr(self.container, name)

        def demux(self, stream: av.VideoStream) -> Iterator[av.Packet]:
            yield from self.container.demux(stream)
            raise IndexError("list index out of range")

    monkeypatch.setattr("pipelines.video.decoding._open", Adding)
    with VideoReader(tmp_path / "film.avi") as reader:
        assert len(list(reader)) == 10
