"""What the device makes of a batch of clips, against the same done sample by sample, pixel by pixel, in float64."""

import contextlib
import importlib.util
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipelines.datasets import preparation
from pipelines.datasets.augmentation import Crop
from pipelines.datasets.clips import Clip, Clips, joined
from pipelines.datasets.preparation import Prepare
from pipelines.errors import UsageError
from pipelines.models import Normalise, STResNet

RGB_MEAN, RGB_DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
STACKS = np.array([[0, 1, 2], [1, 2, 3], [4, 5, 5]])  # the last as at the end of a short video
CROPS = [
    Crop(0, 0, 40, 50),
    Crop(5, 7, 24, 30),
    Crop(5, 7, 24, 30, mirror=True),
    Crop(3, 0, 11, 50, mirror=True),
    Crop(1, 2, 1, 1),
]
GAINS = [1.0, 1.5, 0.7, 1.2, 1.0]
SIZES = [(24, 30), (16, 20), (33, 61)]


def make_clip(stream, crop, size, seed=0):
    """Pixels of their own for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 3 if stream == "rgb" else 2, 40, 50), dtype=np.uint8)
    if stream == "rgb":
        return Clip(torch.from_numpy(pixels), np.array([[0], [3], [5]]), crop, size)
    return Clip(torch.from_numpy(pixels), STACKS, crop, size, GAINS[seed])


def prepared(clips, stream):
    rgb, flow = Prepare()(*((clips, None) if stream == "rgb" else (None, clips)))
    assert (flow if stream == "rgb" else rgb) is None
    return rgb if stream == "rgb" else flow


def by_hand(clip, stream):
    """[T, P*C, h, w] in float64, one plane after the other, times the clip's gain."""
    crop, frames = clip.crop, []
    for places in clip.frame_index:
        planes = []
        for picture in places:
            for channel in range(clip.pixels.shape[1]):
                plane = clip.pixels[picture, channel].numpy().astype(np.float64)
                plane = plane[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
                if crop.mirror:
                    plane = plane[:, ::-1]
                    plane = 255 - plane if stream == "flow" and channel == 0 else plane
                plane = bilinear(plane, clip.size)
                if stream == "rgb":
                    planes.append((plane / 255 - RGB_MEAN[channel]) / RGB_DEVIATION[channel])
                else:
                    planes.append((plane - 128) / 57.6)
        frames.append(planes)
    return clip.gain * np.array(frames)


def bilinear(plane, size):
    """Between the centers of pixels, edges repeated, nothing smoothed before: OpenCV's INTER_LINEAR."""
    for axis, length in enumerate(size):
        given = plane.shape[axis]
        at = np.clip((np.arange(length) + 0.5) * given / length - 0.5, 0, given - 1)
        low = np.floor(at).astype(int)
        share = np.expand_dims(at - low, 1 - axis)
        plane = plane.take(low, axis) * (1 - share) + plane.take(np.minimum(low + 1, given - 1), axis) * share
    return plane


@pytest.mark.parametrize("stream", ["rgb", "flow"])
@pytest.mark.parametrize("size", SIZES)
def test_a_batch_is_what_its_samples_are_by_hand(stream, size):
    clips = [make_clip(stream, crop, size, seed) for seed, crop in enumerate(CROPS)]
    found = prepared(Clips(clips), stream)
    assert found.shape == Clips(clips).shape
    assert found.dtype == torch.float32
    assert found.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    for one, clip in zip(found, clips, strict=True):
        np.testing.assert_allclose(one, by_hand(clip, stream), atol=2e-5)


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_a_sample_does_not_depend_on_its_batch(stream):
    clips = [make_clip(stream, crop, (16, 20), seed) for seed, crop in enumerate(CROPS)]
    together = prepared(Clips(clips), stream)
    for one, clip in zip(together, clips, strict=True):
        assert torch.equal(one, prepared(Clips([clip]), stream)[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [crop for crop in CROPS if not crop.mirror])
def test_a_mirrored_sample_is_the_flipped_one_with_x_turned_round(crop, size):
    """Both streams: columns reversed; of the flow, x becomes 255 - x and y stays."""
    mirrored = Crop(crop.top, crop.left, crop.height, crop.width, mirror=True)
    plain, other = (prepared(Clips([make_clip("rgb", c, size)]), "rgb") for c in (crop, mirrored))
    torch.testing.assert_close(other, plain.flip(-1), atol=2e-5, rtol=0)
    plain, other = (prepared(Clips([make_clip("flow", c, size)]), "flow") * 57.6 + 128 for c in (crop, mirrored))
    expected = plain.flip(-1)
    expected[:, :, 0::2] = 255 - expected[:, :, 0::2]
    torch.testing.assert_close(other, expected, atol=1e-3, rtol=0)


def test_a_crop_at_the_inputs_size_keeps_every_byte():
    clip = make_clip("flow", Crop(5, 7, 24, 30), (24, 30))
    bytes_ = prepared(Clips([clip]), "flow")[0] * 57.6 + 128
    expected = clip.pixels[torch.from_numpy(STACKS), :, 5:29, 7:37].flatten(1, 2)
    assert torch.equal(bytes_.round().to(torch.uint8), expected)


@pytest.mark.parametrize("camera_motion", ["none", "mean", "median"])
def test_a_gain_multiplies_motion_and_leaves_none_as_none(camera_motion):
    """Whatever it is relative to: the byte of no motion, or what the camera's is taken for."""
    prepare = Prepare(Normalise(camera_motion=camera_motion))
    moving = make_clip("flow", CROPS[1], (16, 20))
    still = replace(moving, pixels=torch.full_like(moving.pixels, 128 if camera_motion == "none" else 90))
    (_, plain), (_, scaled) = (prepare(None, Clips([replace(moving, gain=gain)])) for gain in (1.0, 1.5))
    torch.testing.assert_close(scaled, 1.5 * plain)
    assert not prepare(None, Clips([replace(still, gain=1.5)]))[1].any()


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_what_a_clip_ships_is_its_crop_and_shows_the_same(stream):
    for crop in CROPS:
        clip = make_clip(stream, crop, (16, 20))
        cut = clip.copy_crop()
        assert cut.pixels.numel() == crop.height * crop.width * clip.pixels[..., 0, 0].numel()
        assert torch.equal(prepared(Clips([cut]), stream), prepared(Clips([clip]), stream))


def test_parts_and_frames_of_clips_are_those_of_their_input():
    clips = Clips([make_clip("flow", crop, (16, 20), seed) for seed, crop in enumerate(CROPS)])
    whole = prepared(clips, "flow")
    assert torch.equal(prepared(clips[1:3], "flow"), whole[1:3])
    assert torch.equal(prepared(clips.frames([2, 0]), "flow"), whole[:, [2, 0]])
    assert torch.equal(prepared(joined([clips[:2], clips[2:]]), "flow"), whole)
    assert torch.equal(joined([whole[:2], whole[2:]]), whole)


def test_views_of_one_video_share_their_pixels_on_every_device():
    clip = make_clip("rgb", CROPS[0], (16, 20))
    views = Clips([clip, Clip(clip.pixels, clip.frame_index, CROPS[2], (16, 20))])
    moved = views.to("meta")
    assert moved[0].pixels is moved[1].pixels
    assert moved.device.type == "meta"


def test_packed_clips_travel_as_one_buffer_and_parts_of_them_as_their_own_stretch():
    clips = Clips([make_clip("flow", crop, (16, 20), seed).copy_crop() for seed, crop in enumerate(CROPS)])
    packed = clips.packed()
    assert len({clip.pixels.untyped_storage().data_ptr() for clip in packed}) == 1
    for given, expected in ((packed, clips), (packed[1:3], clips[1:3]), (clips, clips)):
        assert sum(len(buffer) for buffer in given._buffers()) == sum(clip.pixels.numel() for clip in expected)
        found = pickle.loads(pickle.dumps(given))
        assert torch.equal(prepared(found, "flow"), prepared(expected, "flow"))


def test_pixels_with_their_channels_innermost_travel_as_they_are():
    """A decoded frame is [H, W, 3] in memory."""
    clip = make_clip("rgb", CROPS[2], (16, 20))
    innermost = Clip(clip.pixels.contiguous(memory_format=torch.channels_last), clip.frame_index, clip.crop, clip.size)
    for given in (innermost, innermost.copy_crop()):
        for clips in (Clips([given]), Clips([given]).packed(), pickle.loads(pickle.dumps(Clips([given])))):
            assert torch.equal(prepared(clips, "rgb"), prepared(Clips([clip]), "rgb"))


def test_bytes_that_need_no_resizing_are_normalised_as_they_are():
    clip = make_clip("flow", Crop(0, 0, 40, 50), (40, 50))
    dense = clip.pixels[torch.from_numpy(STACKS)].flatten(1, 2)[None]
    assert torch.equal(Prepare()(None, dense)[1], prepared(Clips([clip]), "flow"))
    with pytest.raises(UsageError, match="flow must be uint8"):
        Prepare()(None, dense.float())


def test_sixteen_bits_are_float32_rounded_and_added_channels_change_no_logits():
    inputs = [Clips([make_clip(stream, CROPS[2], (32, 40))]) for stream in ("rgb", "flow")]
    plain, padded = Prepare()(*inputs), Prepare(None, torch.bfloat16, on_gpu=True)(*inputs)
    assert [x.shape[2] for x in padded] == [8, 8]
    for x, wide, channels in zip(plain, padded, (3, 6), strict=True):
        assert torch.equal(wide[:, :, :channels], x.to(torch.bfloat16))
        assert not wide[:, :, channels:].any()
    torch.manual_seed(0)
    network = STResNet(3, depth=26, width=4, flow_channels=6).eval()
    with torch.no_grad():
        for a, b in zip(network(*plain), network(*(x.float() for x in padded)), strict=True):
            torch.testing.assert_close(a, b, rtol=0.02, atol=1e-3)  # the rounding of the input


# ------------------------------------------------------------------ in one pass


@pytest.fixture
def kernel(monkeypatch):
    """The GPU's kernel, interpreted; what is asked for on the CPU is made by it. Counts the clips that it makes."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("no Triton")
    from triton.runtime.interpreter import InterpretedFunction

    from pipelines.datasets import preparation_kernel

    interpreted = InterpretedFunction(preparation_kernel.prepare.fn)
    current = []  # the device that Triton would launch on

    @contextlib.contextmanager
    def device_of(tensor):
        current.append(tensor.device)
        yield
        current.clear()

    class Kernel:
        made = 0
        offset = 0.0  # of what byte 0 is said to be

        def __getitem__(self, grid):
            self.made += 1
            assert current == [torch.device("cpu")]
            return lambda pixels, places, lines, *rest, **sizes: interpreted[grid](
                pixels, places, lines + self.offset, *rest, **sizes
            )

    kernel = Kernel()
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(preparation_kernel, "prepare", kernel)
    monkeypatch.setattr(preparation_kernel, "_PIXELS", 512)  # fewer programs, since each takes as long
    monkeypatch.setattr(preparation, "_has_kernel", lambda device: True)
    monkeypatch.setattr(preparation, "_kernel_agrees", {})
    return kernel


def sixteen_bits(stream, clips, normalise=None):
    found = Prepare(normalise, torch.bfloat16, on_gpu=True)(*((clips, None) if stream == "rgb" else (None, clips)))
    return found[0 if stream == "rgb" else 1]


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_one_pass_makes_what_several_do_but_for_the_last_bit(kernel, stream):
    size = 24, 11  # as high as two of the crops
    clips = [make_clip(stream, crop, size, seed).frames([0, 2]) for seed, crop in enumerate(CROPS)]
    innermost = clips[2].pixels.contiguous(memory_format=torch.channels_last)  # as decoded frames are in memory
    clips.append(Clip(innermost, clips[2].frame_index, CROPS[2], size))
    expected = prepared(Clips(clips), stream)
    found = sixteen_bits(stream, Clips(clips))
    assert kernel.made == 2 * len(clips)  # compared first
    assert found.shape == (len(clips), 2, 8, *size)
    assert found.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    channels = expected.shape[2]
    torch.testing.assert_close(found[:, :, :channels].float(), expected, rtol=2**-7, atol=1e-5)
    assert not found[:, :, channels:].any()
    prepare = Prepare(None, torch.float32)
    exact = prepare(Clips(clips), None)[0] if stream == "rgb" else prepare(None, Clips(clips))[1]
    assert kernel.made == 3 * len(clips)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("wrong", ["numbers", "launch"])
def test_a_kernel_that_gives_something_else_is_not_used_and_a_line_says_so(kernel, monkeypatch, caplog, wrong):
    def refused(*_):
        raise RuntimeError("too old a driver\nand more")

    if wrong == "numbers":
        kernel.offset = 0.1
    else:
        monkeypatch.setattr(type(kernel), "__getitem__", refused)
    clips = Clips([make_clip("flow", CROPS[2], (16, 20))])
    expected = prepared(clips, "flow").to(torch.bfloat16)
    for _ in range(2):
        assert torch.equal(sixteen_bits("flow", clips)[:, :, :6], expected)
    (line,) = caplog.messages
    assert line.startswith("the network's input is made in several passes in place of one: ")
    assert "\n" not in line


def test_what_needs_all_of_a_field_first_is_not_made_in_one_pass(kernel):
    clips = Clips([make_clip("flow", CROPS[0], (16, 20))])
    sixteen_bits("flow", clips, Normalise(camera_motion="mean"))
    prepared(clips, "flow")  # nor what is not rounded to 16 bits
    assert kernel.made == 0
