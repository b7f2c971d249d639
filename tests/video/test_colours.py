"""Colours are those that the video says it means, by formulas in floating point."""

from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.extract_frames import Config, run
from pipelines.storage.frames_file import FRAMES_SCHEMA
from pipelines.storage.hdf5 import peek
from pipelines.video.decoding import VideoReader
from pipelines.video.hdr import rolled_off, tone_mapped

# FFmpeg's number of a colour space: the shares of red and blue in its luma.
SPACES = {"BT.709": (1, 0.2126, 0.0722), "BT.601": (6, 0.299, 0.114), "BT.470BG": (5, 0.299, 0.114)}
SPACES |= {"BT.2020": (9, 0.2627, 0.0593), "SMPTE 240M": (7, 0.212, 0.087), "none named": (2, 0.299, 0.114)}


def blocks(bits: int, side: int = 32) -> np.ndarray:
    """Y, U, V of blocks of 4 pixels, within what is a colour: [3, H, W]."""
    rng, scale = np.random.default_rng(0), 2 ** (bits - 8)
    planes = [rng.integers(low * scale, high * scale, (side // 4,) * 2) for low, high in ((16, 236), *[(60, 196)] * 2)]
    return np.stack([plane.repeat(4, 0).repeat(4, 1) for plane in planes])


def write(path: Path, planes: np.ndarray, pixels: str, bits: int, **about: int) -> Path:
    """One lossless frame of these planes."""
    kind = np.uint8 if bits == 8 else np.uint16
    frame = av.VideoFrame(planes.shape[2], planes.shape[1], pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        step = planes.shape[2] // plane.width
        rows[:, : plane.width] = values[::step, ::step]
        plane.update(rows.tobytes())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=frame.width, height=frame.height, pix_fmt=pixels)
        for name, value in about.items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rgb(planes: np.ndarray, red: float, blue: float, full: bool, bits: int) -> np.ndarray:
    """R'G'B' of 0..1 by the definition: float64 [H, W, 3]."""
    most, scale = 2**bits - 1, 2 ** (bits - 8)
    luma = planes[0] / most if full else (planes[0] - 16 * scale) / (219 * scale)
    u, v = ((plane - 128 * scale) / (most if full else 224 * scale) for plane in planes[1:])
    r, b = luma + 2 * (1 - red) * v, luma + 2 * (1 - blue) * u
    return np.clip(np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b], axis=-1), 0, 1)


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p", "yuv444p10le", "yuv420p10le"])
@pytest.mark.parametrize("name", SPACES)
def test_every_matrix_and_range_is_that_of_its_formula(tmp_path: Path, name: str, pixels: str, full: bool) -> None:
    number, red, blue = SPACES[name]
    bits = 10 if "10" in pixels else 8
    planes = blocks(bits)
    path = write(tmp_path / "a.mkv", planes, pixels, bits, colorspace=number, color_range=2 if full else 1)
    with VideoReader(path) as reader:
        (shown,) = reader
    inner = np.s_[1::4, 1::4]  # where chroma is not blended with the next block's
    error = np.abs(shown[inner] - 255 * rgb(planes, red, blue, full, bits)[inner]).max()
    assert error <= (4 if "420" in pixels else 1.2)


# ------------------------------------------------------------------ high dynamic range


def mapped_by_definition(signal: np.ndarray, transfer: str) -> np.ndarray:
    """BT.2100, BT.2390, BT.2087 and BT.1886 written out, in float64: R'G'B' of 0..1 to 0..255."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875

    def eotf(x: np.ndarray) -> np.ndarray:
        return 1e4 * (np.maximum(x ** (1 / m2) - c1, 0) / (c2 - c3 * x ** (1 / m2))) ** (1 / m1)

    def inverse(light: np.ndarray) -> np.ndarray:
        y = (light / 1e4) ** m1
        return ((c1 + c2 * y) / (1 + c3 * y)) ** m2

    if transfer == "PQ":
        light = np.minimum(eotf(signal), 1000)
    else:
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light = 1000 * scene * (scene @ [0.2627, 0.6780, 0.0593])[..., None] ** 0.2
    largest = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
    e1 = inverse(largest) / inverse(np.array(1000.0))
    top = float(inverse(np.array(203.0)) / inverse(np.array(1000.0)))
    start = 1.5 * top - 0.5
    t = (e1 - start) / (1 - start)
    bent = (2 * t**3 - 3 * t**2 + 1) * start + (t**3 - 2 * t**2 + t) * (1 - start) + (-2 * t**3 + 3 * t**2) * top
    target = eotf(np.where(e1 < start, e1, bent) * inverse(np.array(1000.0)))
    xyz = {  # BT.2020 and BT.709, D65: the columns are the primaries' X, Y, Z
        2020: [[0.636958, 0.144617, 0.168881], [0.262700, 0.677998, 0.059302], [0.0, 0.028073, 1.060985]],
        709: [[0.412391, 0.357584, 0.180481], [0.212639, 0.715169, 0.072192], [0.019331, 0.119195, 0.950532]],
    }
    matrix = np.linalg.inv(xyz[709]) @ xyz[2020]
    return 255 * np.clip(light / largest * target / 203 @ matrix.T, 0, 1) ** (1 / 2.4)


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
def test_tone_mapping_is_its_formula(transfer: str) -> None:
    signal = np.random.default_rng(0).integers(0, 65536, (64, 64, 3), dtype=np.uint16)
    signal[0] = np.linspace(0, 65535, 64).astype(np.uint16)[:, None]
    assert np.abs(tone_mapped(signal, transfer) - mapped_by_definition(signal / 65535, transfer)).max() < 0.7


def test_the_roll_off_keeps_the_dark_reaches_white_and_never_turns() -> None:
    light = np.linspace(0, 1000, 5000)
    mapped = rolled_off(light)
    assert np.allclose(mapped[light < 90], light[light < 90], rtol=1e-3)
    assert mapped[-1] == pytest.approx(203)
    assert (np.diff(mapped) > 0).all()


@pytest.mark.parametrize(("transfer", "number"), [("PQ", 16), ("HLG", 18)])
def test_a_film_of_high_dynamic_range_is_tone_mapped_and_its_artifact_says_so(
    tmp_path: Path, transfer: str, number: int
) -> None:
    planes = blocks(10)
    about = {"colorspace": 9, "color_range": 1, "color_trc": number, "color_primaries": 9}
    (tmp_path / "videos").mkdir()
    path = write(tmp_path / "videos" / "a.mkv", planes, "yuv444p10le", 10, **about)
    with VideoReader(path) as reader:
        (shown,) = reader
    expected = mapped_by_definition(rgb(planes, 0.2627, 0.0593, False, 10), transfer)
    error = np.abs(shown - expected)  # swscale's 16 bits are off by up to 0.4 %, which dark colours show
    assert error.max() < 6
    assert error.mean() < 0.8
    assert run(Config(tmp_path / "ws", str(tmp_path / "videos"), workers=1)).done == 1
    attributes = peek(tmp_path / "ws" / "frames" / "unlabelled" / "a.h5", FRAMES_SCHEMA)
    assert attributes["tone_mapped_from"] == transfer


def test_the_same_film_without_the_mark_is_shown_as_it_is(tmp_path: Path) -> None:
    planes = blocks(10)
    path = write(tmp_path / "a.mkv", planes, "yuv444p10le", 10, colorspace=9, color_range=1)
    with VideoReader(path) as reader:
        (shown,) = reader
        assert reader.tone_mapped_from == ""
    assert np.abs(shown - 255 * rgb(planes, 0.2627, 0.0593, False, 10)).max() < 2
