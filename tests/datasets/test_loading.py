"""Samples and loaders: what is read, that nothing but seeds decides it, and what becomes of damaged files."""

import errno
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from multiprocessing.context import BaseContext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from pipelines.datasets import loading
from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.clips import Clips
from pipelines.datasets.loading import SAMPLES_AT_ONCE, _loaded, make_loader
from pipelines.datasets.open_files import OpenArtifactCache
from pipelines.datasets.preparation import Prepare
from pipelines.datasets.sampler import Item, StepSampler, epoch_order
from pipelines.datasets.samples import BadSample, Batch, Sample, TestSample, TestSamples, TrainingSamples
from pipelines.datasets.sampling import TemporalSampling, flow_indices, sample_centers
from pipelines.errors import Interrupted, MissingError, UsageError
from pipelines.runtime.worker_pool import Limits
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import new_frames_file

SIZE = (32, 40)


@pytest.fixture
def videos(workspace, add_video):
    for number, length in enumerate((20, 33, 12, 6, 45)):
        add_video("ab"[number % 2], f"clip{number}", length)
    return load_catalogue(workspace).videos


def training(videos, **options):
    settings = {
        "sampling": TemporalSampling(3, (2, 4)),
        "scheme": "mild",
        "size": SIZE,
        "seed": 5,
        "step_index": 2,
    }
    return TrainingSamples(videos, [ord(video.class_name) - ord("a") for video in videos], **(settings | options))


def batches(dataset, workers=0, count=6, **sampler):
    settings = {"factor": 2, "batch": 3, "seed": 5, "step_index": 2}
    sampler = StepSampler(len(dataset), **(settings | sampler))
    return list(itertools.islice(make_loader(dataset, sampler, workers), count))


def rgb_bytes(sample):
    """The RGB input of a sample or batch on the bytes' scale; those of a test video first by views."""
    return shown(sample.rgb, "rgb")


def flow_bytes(sample):
    return shown(sample.flow, "flow")


def shown(clips, stream):
    """Undoes the normalising of `Prepare`: what is not resized comes back as the bytes it was."""
    prepare = Prepare()
    clips = clips if isinstance(clips, Clips) else Clips([clips])
    if stream == "rgb":
        values = prepare(clips, None)[0] * prepare.normalise.rgb_deviation + prepare.normalise.rgb_mean
    else:
        values = prepare(None, clips)[1] * 57.6 + 128
    return values.round().to(torch.int64)


def assert_same(first: Batch, second: Batch) -> None:
    for name in ("labels", "indices"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    for one, other in zip(Prepare()(first.rgb, first.flow), Prepare()(second.rgb, second.flow), strict=True):
        assert torch.equal(one, other)
    assert first.bad == second.bad


def test_jittered_colors_change_nothing_but_the_frames_and_are_drawn_again_alike(videos):
    """The flow of a sample, its crop and its mirror are those without."""
    plain, jittered = training(videos), training(videos, color_jitter=0.5)
    item = Item(0, 1, 1)
    one, other, again = plain[item], jittered[item], jittered[item]
    assert other.rgb.crop == one.rgb.crop
    assert torch.equal(other.flow.pixels, one.flow.pixels)
    assert not torch.equal(other.rgb.pixels, one.rgb.pixels)
    assert torch.equal(other.rgb.pixels, again.rgb.pixels)
    assert not torch.equal(other.rgb.pixels, jittered[Item(1, 1, 1)].rgb.pixels)


# ------------------------------------------------------------------ order


def test_every_video_appears_factor_times_once_in_each_pass():
    order = epoch_order(7, 4, 3, seed=1, step_index=0, epoch=0)
    for start in range(0, 28, 7):
        assert sorted(order[start : start + 7]) == list(range(7))


@pytest.mark.parametrize(("n", "batch"), [(7, 3), (10, 4), (10, 10), (11, 9), (5, 5), (100, 64)])
def test_a_video_counts_once_in_a_batch(n, batch):
    order = epoch_order(n, 9, batch, seed=1, step_index=0, epoch=0)
    repeats = [len(part) - len(set(part)) for part in np.split(order, range(batch, len(order), batch))]
    # Where two passes share a batch of more than half of the videos, some must come again.
    assert max(repeats) == 0 if n % batch == 0 or 2 * batch <= n else max(repeats) <= max(0, 2 * batch - n)
    assert np.bincount(order).tolist() == [9] * n


def test_a_batch_larger_than_the_data_repeats_as_little_as_it_must():
    order = epoch_order(3, 4, 5, seed=1, step_index=0, epoch=0)
    assert np.bincount(order).tolist() == [4, 4, 4]


def test_orders_differ_between_passes_epochs_steps_and_seeds():
    settings = {"seed": 1, "step_index": 0, "epoch": 0}
    first = epoch_order(50, 2, 10, **settings)
    assert (first[:50] != first[50:]).any()
    for name in settings:
        assert (epoch_order(50, 2, 10, **(settings | {name: 7})) != first).any()


@pytest.mark.parametrize(
    ("sizes", "lengths"),
    [((5, 2, 3), [3, 3, 4]), ((5, 2, 4), [4, 4, 2]), ((4, 1, 4), [4]), ((1, 1, 8), [1]), ((3, 1, 1), [1] * 3)],
)
def test_the_last_batch_of_an_epoch_is_smaller_but_never_a_single_left_over(sizes, lengths):
    sampler = StepSampler(*sizes, seed=1, step_index=0)
    batches = list(itertools.islice(sampler, 2 * len(lengths)))
    assert [len(batch) for batch in batches] == 2 * lengths
    assert [item.i for item in itertools.chain(*batches[: len(lengths)])] == list(range(sizes[0] * sizes[1]))


def test_the_sampler_goes_on_from_any_batch():
    whole = list(itertools.islice(StepSampler(5, 2, 4, seed=1, step_index=0), 9))
    assert [len(batch) for batch in whole] == [4, 4, 2] * 3
    assert whole[3][0][:2] == (1, 0)
    for start in range(9):
        rest = list(itertools.islice(StepSampler(5, 2, 4, seed=1, step_index=0, start=start), 9 - start))
        assert rest == whole[start:]


@pytest.mark.parametrize(
    ("sizes", "message"), [((0, 1, 1), "no training videos"), ((3, 0, 1), "--factor"), ((3, 1, 0), "--batch-size")]
)
def test_a_sampler_needs_videos_and_a_batch(sizes, message):
    with pytest.raises(UsageError, match=message):
        StepSampler(*sizes, seed=0, step_index=0)


# ------------------------------------------------------------------ training samples


def test_a_sample_holds_the_frames_and_stacks_of_its_centers(videos):
    dataset = training(videos, scheme="center")
    index = next(i for i, video in enumerate(videos) if video.frames == 45)
    sample = dataset[Item(3, 8, index)]
    centers = sample_centers(45, TemporalSampling(3, (2, 4)), np.random.default_rng((5, 2, 3, 8)))
    assert sample.rgb.shape == (3, 3, *SIZE)
    assert sample.flow.shape == (3, 20, *SIZE)
    rgb, flow = rgb_bytes(sample)[0], flow_bytes(sample)[0]
    assert (sample.label, sample.index) == (0, index)
    for place, center in enumerate(centers):
        assert abs(int(rgb[place, 0, 16, 30]) - 4 * int(center) % 200) <= 2  # JPEG
        stack = flow_indices(int(center), 44)
        assert flow[place, 0::2, 0, 0].tolist() == stack.tolist()
        assert flow[place, 1::2, 0, 0].tolist() == (100 + stack).tolist()


def test_both_streams_show_the_same_crop_and_are_mirrored_together(videos):
    dataset = training(videos)
    for i in range(12):
        sample = dataset[Item(0, i, 0)]
        row = rgb_bytes(sample)[0, 0, 0, 0]
        bright_left = int(row[0]) > int(row[-1])
        x, y = (int(flow_bytes(sample)[0, 0, channel, 0, 0]) for channel in (0, 1))
        assert y >= 100
        assert x == (y - 100 if bright_left else 255 - (y - 100))


def test_mirrors_can_be_forbidden(videos):
    dataset = training(videos, mirror=False)
    assert all(int(flow_bytes(dataset[Item(0, i, 0)])[0, 0, 0].max()) < 100 for i in range(12))


def test_the_flow_of_a_sample_is_scaled_by_one_factor_that_changes_no_other_draw(videos):
    """Log-uniform, by the next draw of the sample's generator."""
    plain, scaled = (training(videos, scheme="center", flow_scale=scale) for scale in (1.0, 1.5))
    for i in range(20):
        one, other = plain[Item(3, i, 0)], scaled[Item(3, i, 0)]
        rng = np.random.default_rng((5, 2, 3, i))
        sample_centers(videos[0].frames, TemporalSampling(3, (2, 4)), rng)
        assert other.flow.gain == pytest.approx(np.exp(np.log(1.5) * rng.uniform(-1, 1)))
        assert (one.flow.gain, one.rgb.gain, other.rgb.gain) == (1, 1, 1)
        for stream in ("rgb", "flow"):
            first, second = getattr(one, stream), getattr(other, stream)
            assert torch.equal(first.pixels, second.pixels)
            assert (first.frame_index == second.frame_index).all()
    for i in range(8):  # where a crop and its mirror are drawn, too
        one, other = (training(videos, flow_scale=scale)[Item(0, i, 1)] for scale in (1.0, 1.5))
        assert (one.flow.crop, one.rgb.crop) == (other.flow.crop, other.rgb.crop)
        assert torch.equal(one.flow.pixels, other.flow.pixels)


def test_two_processes_scale_the_flow_by_what_one_would(videos):
    def factors(**sampler):
        loaded = batches(training(videos, flow_scale=2.0), batch=5, **sampler)
        return [[clip.gain for clip in batch.flow] for batch in loaded]

    alone = factors()
    first, second = (factors(share=part) for part in (lambda batch: batch[:3], lambda batch: batch[3:]))
    assert [one + other for one, other in zip(first, second, strict=True)] == alone
    every = [factor for of_batch in alone for factor in of_batch]
    assert len(set(every)) == len(every)
    assert 0.5 < min(every) < 0.8
    assert 1.25 < max(every) < 2


@pytest.mark.parametrize(("stream", "absent"), [("appearance", "flow"), ("motion", "rgb")])
def test_a_stream_not_asked_for_is_not_read(workspace, videos, stream, absent):
    kind = {"flow": workspace.flow, "rgb": workspace.frames}[absent]
    for path in kind.rglob("*.h5"):
        path.unlink()
    [batch] = batches(training(videos, streams=[stream]), count=1)
    assert getattr(batch, absent) is None
    assert (batch.rgb if absent == "flow" else batch.flow).shape[:2] == (3, 3)
    assert batch.bad == {}


def test_short_videos_give_whole_samples(videos):
    index = next(i for i, video in enumerate(videos) if video.frames == 6)
    sample = training(videos, scheme="center")[Item(0, 0, index)]
    assert flow_bytes(sample)[0, :, 0::2, 0, 0].tolist() == [flow_indices(t, 5).tolist() for t in (0, 2, 5)]


def test_workers_and_interruptions_change_no_sample(videos):
    dataset = training(videos, scheme="corner-jittered", flow_scale=1.5)
    alone = batches(dataset)
    for first, second in zip(alone, batches(dataset, workers=2), strict=True):
        assert_same(first, second)
    for first, second in zip(alone[3:], batches(dataset, start=3, count=3), strict=True):
        assert_same(first, second)
    assert Counter(torch.cat([batch.indices for batch in alone[:3]]).tolist()) == dict.fromkeys(range(5), 2)


def test_a_damaged_file_is_a_bad_sample_and_the_others_stay(workspace, videos):
    path = workspace.flow_file("a", "clip0")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    cut = workspace.frames_file("b", "clip1")
    whole = cut.read_bytes()
    cut.write_bytes(whole[:300])
    dataset = training(videos)
    batch = batches(dataset, batch=5, factor=1, count=1)[0]
    assert list(batch.bad) == ["b/clip1"]
    assert "damaged" in batch.bad["b/clip1"]
    assert len(batch) == len(batch.rgb) == len(batch.flow) == 4
    cut.write_bytes(whole)
    assert isinstance(dataset[Item(0, 0, next(i for i, v in enumerate(videos) if v.id == "b/clip1"))], Sample)


def test_a_damaged_chunk_is_found_by_its_checksum(workspace, videos):
    index = next(i for i, video in enumerate(videos) if video.id == "a/clip0")
    path = workspace.frames_file("a", "clip0")
    content = path.read_bytes()
    place = content.index(b"\xff\xd8\xff")  # the first JPEG
    path.write_bytes(content[: place + 40] + bytes(40) + content[place + 80 :])
    sample = training(videos)[Item(0, 0, index)]
    assert isinstance(sample, BadSample)
    assert (sample.id, sample.index) == ("a/clip0", index)


@pytest.mark.parametrize("coded", [b"", b"no picture"])
def test_a_frame_that_is_no_jpeg_is_a_bad_sample(workspace, add_video, coded):
    add_video("a", "one", None)
    with new_frames_file(workspace.frames_file("a", "one")) as writer:
        for _ in range(20):
            writer.append(np.frombuffer(coded, dtype=np.uint8))
        writer.finish({"source_frames": 20, "source": "/videos/a/one.avi", "source_sha256": "a-one"})
    sample = training(load_catalogue(workspace).videos)[Item(0, 0, 0)]
    assert isinstance(sample, BadSample)
    assert "not a JPEG" in sample.reason


def test_frames_and_flow_of_different_sizes_are_a_bad_sample(workspace, add_video):
    add_video("a", "one", flow_size=(16, 20))
    sample = training(load_catalogue(workspace).videos)[Item(0, 0, 0)]
    assert isinstance(sample, BadSample)
    assert "16x20 and 32x40" in sample.reason


def test_a_flow_file_shorter_than_it_says_is_a_bad_sample(workspace, add_video):
    add_video("a", "one", length=20, source_frames=60)
    sample = training(load_catalogue(workspace).videos, sampling=TemporalSampling(3, (20, 20)))[Item(0, 0, 0)]
    assert isinstance(sample, BadSample)


def test_a_batch_of_bad_samples_only_is_empty(workspace, videos):
    for path in workspace.frames.rglob("*.h5"):
        path.unlink()
    batch = batches(training(videos), batch=5, factor=1, count=1)[0]
    assert (len(batch), batch.rgb, len(batch.bad)) == (0, None, 5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_comes_in_parts_knows_its_damaged_places(workspace, videos, workers):
    """Parts of four samples: ten places of five videos, of which one is damaged."""
    assert SAMPLES_AT_ONCE == 4
    workspace.flow_file("b", "clip1").unlink()
    order = next(iter(StepSampler(5, 2, 10, seed=5, step_index=2)))
    [batch] = batches(training(videos), batch=10, workers=workers, count=1)
    damaged = [place for place, item in enumerate(order) if videos[item.video].id == "b/clip1"]
    assert list(batch.missing_positions) == damaged
    assert batch.indices.tolist() == [item.video for item in order if item.i not in damaged]
    assert batch.requested == 10
    assert len(batch.rgb) == len(batch) == 10 - len(damaged)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_places_is_empty_and_the_next_one_follows(videos, workers):
    loader = make_loader(training(videos), [[], [Item(0, 0, 3)]], workers)
    assert [batch.requested for batch in loader] == [0, 1]


def test_a_batch_can_be_taken_in_parts(videos):
    [batch] = batches(training(videos), count=1)
    part = batch.part(1, 3).to("cpu")
    assert len(part) == 2
    assert torch.equal(rgb_bytes(part), rgb_bytes(batch)[1:3])
    assert torch.equal(part.labels, batch.labels[1:3])


# ------------------------------------------------------------------ test samples


def test_a_test_video_comes_whole_with_its_mirrors(videos):
    dataset = TestSamples(videos, [0] * 5, size=SIZE, crops=4, reference=1.0)
    sample = dataset[0]
    assert sample.rgb.shape == (2, 4, 3, *SIZE)
    assert sample.flow.shape == (2, 4, 20, *SIZE)
    rgb, flow = rgb_bytes(sample), flow_bytes(sample)
    assert torch.equal(rgb[1], rgb[0].flip(-1))
    expected = flow[0].flip(-1)
    expected[:, 0::2] = 255 - expected[:, 0::2]
    assert torch.equal(flow[1], expected)
    assert sample.flow[0].pixels is sample.flow[1].pixels
    assert flow[0, :, 10, 0, 0].tolist() == [5, 8, 11, 14]  # the centers of 20 frames


def test_views_are_cut_alike_from_both_streams(videos):
    dataset = TestSamples(videos, [0] * 5, size=(16, 16), crops=2, views="5", mirror=False)
    sample = dataset[0]
    assert sample.rgb.shape == (5, 2, 3, 16, 16)
    assert sample.flow.shape == (5, 2, 20, 16, 16)
    rgb = rgb_bytes(sample)
    assert int(rgb[0, 0, 0, 0, 0]) > int(rgb[1, 0, 0, 0, -1])  # left views are bright


def test_the_test_loader_gives_one_video_at_a_time_in_order(workspace, videos):
    workspace.frames_file("a", "clip2").unlink()
    dataset = TestSamples(videos, [3, 4, 5, 6, 7], size=SIZE, crops=2, views="center", mirror=False)
    for workers in (0, 1):
        loaded = list(make_loader(dataset, [4, 1, 0], workers))
        assert [sample.index for sample in loaded] == [4, 1, 0]
        assert [type(sample) for sample in loaded] == [TestSample, BadSample, TestSample]
        assert [sample.label for sample in (loaded[0], loaded[2])] == [7, 3]


# ------------------------------------------------------------------ handles


def test_open_files_are_kept_few_and_cross_no_pickle(workspace, videos):
    handles = OpenArtifactCache(kept=2)
    paths = [video.flow_file for video in videos]
    for path in paths:
        assert handles.open(path, FlowFile) is handles.open(path, FlowFile)
    assert list(handles._open) == paths[-2:]
    copy = pickle.loads(pickle.dumps(handles))
    assert list(copy._open) == []
    assert len(copy.open(paths[0], FlowFile)) == videos[0].flow_fields
    copy.close()
    handles.close()


def test_handles_of_another_process_are_forgotten(videos, monkeypatch):
    handles = OpenArtifactCache()
    before = handles.open(videos[0].flow_file, FlowFile)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert handles.open(videos[0].flow_file, FlowFile) is not before
    handles.close()
    before.close()


def test_loader_processes_get_a_video_with_its_request_and_not_all_of_them(videos, monkeypatch):
    """So that 200,000 videos cost each process no time and no memory."""
    shipped = []

    def loader(dataset, **options):
        shipped.append(len(pickle.dumps(dataset)))
        return DataLoader(dataset, **options)

    monkeypatch.setattr(loading, "DataLoader", loader)
    for some in (videos, videos * 100):
        next(iter(make_loader(training(some), StepSampler(len(some), 1, 3, seed=0, step_index=0))))
        samples = TestSamples(some, [0] * len(some), size=SIZE)
        next(iter(make_loader(samples, range(len(some)))))
    assert shipped[0] == shipped[2]
    assert shipped[1] == shipped[3]


def test_a_loader_whose_process_dies_ends_the_command_with_advice():
    def dying(error):
        yield "batch"
        raise error

    batches = _loaded(dying(RuntimeError("DataLoader worker (pid(s) 17) exited unexpectedly")))
    assert next(batches) == "batch"
    with pytest.raises(MissingError, match=r"out of memory \(DataLoader worker .*fewer --workers"):
        next(batches)
    with pytest.raises(MissingError, match=r"out of memory \(Connection reset .*fewer --workers"):
        list(_loaded(dying(ConnectionResetError("Connection reset by peer"))))
    with pytest.raises(RuntimeError, match="another error"):
        list(_loaded(dying(RuntimeError("another error"))))


# ------------------------------------------------------------------ waiting


class Ones(Dataset):
    """Made in a loader process."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return torch.ones(index)


def test_a_process_that_is_stopped_is_ended_and_so_is_the_command_with_a_sentence(monkeypatch):
    monkeypatch.setattr(loading, "_TICK", 0.1)
    options = {"batch_size": None, "num_workers": 1, "multiprocessing_context": "forkserver"}
    loader = DataLoader(Ones(), worker_init_fn=loading._start_worker, collate_fn=loading._shipped, **options)
    batches = _loaded(loader)
    assert [len(next(batches)), len(next(batches))] == [0, 1]
    [process] = multiprocessing.active_children()
    time.sleep(0.2)  # what is loaded next waits there to be asked for, and nobody waits for it
    os.kill(process.pid, signal.SIGSTOP)

    monkeypatch.setattr(Limits, "patience", 0.3)
    with pytest.raises(MissingError, match=r"loaded nothing for 0.3 s .*the same command continues.*--workers 0"):
        list(batches)
    assert not multiprocessing.active_children()


def test_a_loader_is_slow_as_long_as_something_comes_within_the_patience(monkeypatch):
    monkeypatch.setattr(loading, "_TICK", 0.05)
    monkeypatch.setattr(Limits, "patience", 2.0)
    killed = threading.Event()

    class Slow:
        _workers = (SimpleNamespace(is_alive=lambda: False, kill=killed.set),)
        _shutdown_workers = staticmethod(lambda: None)

        def __iter__(self):
            self.left = 11
            return self

        def __next__(self):
            if not self.left:
                killed.wait(60)
                raise ConnectionResetError
            self.left -= 1
            time.sleep(0.2)
            return self.left

    batches = _loaded(Slow())
    assert [next(batches) for _ in range(11)] == [*range(10, -1, -1)]
    assert not killed.is_set()
    with pytest.raises(MissingError, match="nothing for 2 s"):
        next(batches)


def test_a_dev_shm_that_takes_nothing_is_a_sentence_before_any_process_starts(videos, monkeypatch):
    def lock(context):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(BaseContext, "Lock", lock)
    with pytest.raises(MissingError, match=r"/dev/shm takes no semaphores \(No space.*--shm-size.*--workers 0"):
        make_loader(training(videos), [[Item(0, 0, 3)]], workers=2)


LOADING = """
import pickle, sys
from pipelines.datasets.loading import make_loader
if __name__ == "__main__":
    samples, numbers = pickle.load(open(sys.argv[1], "rb"))
    print(sum(int(sample.rgb[0].pixels.sum()) for sample in make_loader(samples, numbers, workers=2)))
"""


def test_samples_larger_than_dev_shm_arrive(videos, tmp_path):
    """Docker gives it 64 MB. Of what torch's queue cannot put there it says nothing, and the other side waits."""
    samples = TestSamples(videos, [0] * len(videos), size=SIZE, crops=12)
    (tmp_path / "samples").write_bytes(pickle.dumps((samples, [0, 1, 2])))
    (tmp_path / "load.py").write_text(LOADING)
    tiny = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"'  # as much as semaphores and little else
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", tiny, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False, timeout=300).returncode:
        pytest.skip("this user may not mount a /dev/shm of its own")

    loaded = subprocess.run(
        [*command, sys.executable, tmp_path / "load.py", tmp_path / "samples"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert loaded.returncode == 0, loaded.stderr
    assert int(loaded.stdout) == sum(int(samples[number].rgb[0].pixels.sum()) for number in (0, 1, 2))
    assert sum(clips[0].pixels.nbytes for clips in (samples[0].rgb, samples[0].flow)) > 64 * 1024


def test_a_signal_amid_the_start_of_the_processes_is_answered_once_they_can_be_ended():
    ended: list[str] = []

    class Loaded:
        _workers = (SimpleNamespace(is_alive=lambda: True, kill=lambda: ended.append("killed")),)

        def __next__(self):
            raise AssertionError("nothing is asked for any more")

        def _shutdown_workers(self):
            ended.append("shut down")

    class Loader:
        def __iter__(self):
            signal.raise_signal(signal.SIGTERM)
            ended.append("started")
            return Loaded()

    def stop(number, frame):
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Interrupted):
            list(_loaded(Loader()))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == ["started", "shut down", "killed"]


def test_no_loaded_pixel_lies_in_dev_shm(videos):
    """Where no /dev/shm of another size can be had: none of the process's mappings after loading is a file there."""
    loaded = list(make_loader(TestSamples(videos, [0] * len(videos), size=SIZE), [0, 1], workers=1))

    maps = Path("/proc/self/maps").read_text()
    assert "memfd:stres" in maps
    assert "/dev/shm/torch" not in maps
    assert len(loaded) == 2
