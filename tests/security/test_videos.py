"""Videos from strangers: no other file is read, whatever they name; they stay within pixels, memory and time."""

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines import extract_frames
from pipelines.errors import VideoError
from pipelines.jobs.frames import FrameTask
from pipelines.runtime import worker_pool as workers
from pipelines.runtime.worker_pool import Limits
from pipelines.storage.failures import read_failures
from pipelines.storage.workspace import Workspace
from pipelines.video import isolation
from pipelines.video.decoding import VideoReader
from pipelines.video.synthetic import write_video

FRAMES = 4


def texture(seed: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (FRAMES, height, width, 3), dtype=np.uint8)


# ------------------------------------------------------------------ other files


def write_mov(path: Path, frames: np.ndarray) -> None:
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def with_external_data(content: bytes, other: Path) -> bytes:
    """The same film, of which a data reference says that its pixels lie in `other`."""
    name = os.fsencode(other)
    place = struct.pack(">hh", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">hh", -1, 0)
    alias = bytes(10) + b"\0" * 28 + bytes(12) + b"\0" * 64 + bytes(16) + struct.pack(">hh", 1, 1) + bytes(16) + place
    entry = struct.pack(">I4sI", 12 + len(alias), b"alis", 0) + alias
    at = content.index(b"dref") - 4
    size = struct.unpack_from(">I", content, at)[0]
    inserted = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    data = bytearray(content[:at] + inserted + content[at + size :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):  # each holds the next
        start = data.index(kind) - 4
        struct.pack_into(">I", data, start, struct.unpack_from(">I", data, start)[0] + len(inserted) - size)
    pixels = data.index(b"mdat") + 4
    data[pixels : pixels + FRAMES * 32 * 48 * 3] = bytes(FRAMES * 32 * 48 * 3)
    return bytes(data)


def test_a_film_whose_pixels_lie_in_another_file_does_not_show_them(tmp_path: Path) -> None:
    secret = tmp_path / "secret.mov"
    write_mov(secret, texture(1))
    (tmp_path / "a.mov").write_bytes(with_external_data(secret.read_bytes(), secret))
    with av.open(str(tmp_path / "a.mov"), options={"enable_drefs": "1", "use_absolute_path": "1"}) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(first, texture(1)[0])  # or this test shows nothing
    with pytest.raises(VideoError, match="no frame can be decoded"):
        VideoReader(tmp_path / "a.mov")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'secret.avi'\n",
        "#EXTM3U\n#EXTINF:10,\nsecret.avi\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-MAP:URI=file:secret.avi\n#EXTINF:10,\nsecret.avi\n",
        "[playlist]\nFile1=secret.avi\n",
        "<ASX version='3'><ENTRY><REF HREF='secret.avi'/></ENTRY></ASX>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>secret.avi</BaseURL></MPD>',
        "RTSPtext\nrtsp://127.0.0.1/secret.avi\n",
    ],
)
@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv", ".ts"])
def test_a_text_that_names_another_file_is_no_video(tmp_path: Path, text: str, suffix: str) -> None:
    write_video(tmp_path / "secret.avi", texture(1))
    (tmp_path / f"a{suffix}").write_text(text)
    with pytest.raises(VideoError, match=r"^(not a video|holds no video|no frame)"):
        VideoReader(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    "name", ["concat:secret.avi|secret.avi", "subfile,,start,0,end,0,,:secret.avi", "crypto:secret.avi", "%03d.avi"]
)
def test_a_name_that_is_a_protocol_or_a_pattern_is_only_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "secret.avi", texture(1))
    write_video(tmp_path / "001.avi", texture(1))
    with pytest.raises(VideoError, match="the file does not exist"):
        VideoReader(Path(name))


def test_a_link_to_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.avi").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "b.avi")
    for name in ("a.avi", "b.avi"):
        with pytest.raises(VideoError, match="not a file"):
            VideoReader(tmp_path / name)


# ------------------------------------------------------------------ pixels, memory, time


def test_pictures_of_more_pixels_than_can_be_stored_are_refused(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32_000, 2_200, "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((2_200, 32_000), np.uint8), format="gray")))
        container.mux(stream.encode())
    assert (tmp_path / "a.avi").stat().st_size < 1_000_000
    with pytest.raises(VideoError, match=r"no frame can be decoded|more than 67108864 pixels"):
        VideoReader(tmp_path / "a.avi")


@pytest.fixture
def decoder() -> Iterator[isolation.Decoder]:
    decoder = isolation.Decoder(Limits(patience=3.0))
    yield decoder
    decoder.close()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_video(tmp_path / "a.mkv", texture(1), codec="ffv1", pixels="bgr0")
    return tmp_path / "a.mkv"


def test_an_isolated_video_is_the_same_video(decoder: isolation.Decoder, clip: Path) -> None:
    for short_side in (None, 16):
        with decoder.open(clip, short_side) as ours, VideoReader(clip, short_side) as theirs:
            assert np.array_equal(list(ours), list(theirs))
            for name in (*isolation._ABOUT, "width", "height", "decoded", "truncated"):
                assert getattr(ours, name) == getattr(theirs, name), name


def test_only_the_frames_wanted_come_out_and_the_next_video_can_follow(decoder: isolation.Decoder, clip: Path) -> None:
    with decoder.open(clip) as reader:
        assert [index for index, _ in reader.pick(lambda index: index % 2 == 1)] == [1, 3]
    with decoder.open(clip) as reader:
        assert np.array_equal(next(iter(reader)), texture(1)[0])
    with decoder.open(clip) as reader:
        assert len(list(reader)) == FRAMES
    assert len(decoder._idle) == 1


def test_a_video_that_cannot_be_read_says_the_same_from_its_own_process(
    decoder: isolation.Decoder, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.avi").write_text("no video")
    write_video(tmp_path / "cut.avi", np.concatenate([texture(seed) for seed in range(10)]))
    content = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match="not a video"):
        decoder.open(tmp_path / "text.avi")
    with decoder.open(tmp_path / "cut.avi") as reader, pytest.raises(VideoError, match=r"truncated: decoded \d+ of 40"):
        list(reader)
    with decoder.open(tmp_path / "cut.avi", allow_truncated=True) as reader:
        assert len(list(reader)) == reader.decoded < 40
        assert reader.truncated
    assert len(decoder._idle) == 1


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGSEGV, "killed by signal 11"), (signal.SIGSTOP, "no progress for 0.5 s")]
)
def test_a_codec_that_crashes_or_hangs_costs_its_video_alone(
    decoder: isolation.Decoder, clip: Path, number: signal.Signals, reason: str
) -> None:
    with decoder.open(clip) as reader:
        frames = iter(reader)
        next(frames)
        if number == signal.SIGSTOP:
            reader._process.limits = Limits(patience=0.5)
        os.kill(reader._process._process.pid, number)
        with pytest.raises(VideoError, match=reason):
            list(frames)
    with decoder.open(clip) as reader:
        assert len(list(reader)) == FRAMES


def test_a_video_without_progress_is_a_row_and_the_others_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"videos/c/{name}.avi", texture(1))
    workspace = Workspace(tmp_path / "work")
    give = workers._Worker.give

    def give_and_stop(self: workers._Worker[tuple[FrameTask, ...]], task: tuple[FrameTask, ...]) -> bool:
        if task[0].source.video == "b":
            os.kill(self.process.pid or 0, signal.SIGSTOP)
        return give(self, task)

    monkeypatch.setattr(workers._Worker, "give", give_and_stop)
    monkeypatch.setattr(workers, "_TICK", 0.1)
    config = extract_frames.Config(workspace.root, str(tmp_path / "videos"), workers=1, patience=3.0)
    result = extract_frames.run(config)
    assert (result.done, result.failed) == (2, 1)
    assert [row.reason for row in read_failures(workspace)] == ["no progress for 3 s, so its process was ended"]
