"""Made-up artifacts of UCF101's size, by the real writers, and the rate at which training samples come from them."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from pipelines.datasets.catalogue import Video, load_catalogue
from pipelines.datasets.clips import Clips
from pipelines.datasets.loading import make_loader
from pipelines.datasets.open_files import OpenArtifactCache
from pipelines.datasets.preparation import Prepare
from pipelines.datasets.sampler import Item, StepSampler
from pipelines.datasets.samples import Batch, TrainingSamples
from pipelines.datasets.sampling import TemporalSampling
from pipelines.interface.options import Compression
from pipelines.storage.flow_file import new_flow_file
from pipelines.storage.frames_file import new_frames_file
from pipelines.storage.quantise import quantise
from pipelines.storage.workspace import Workspace

HEIGHT, WIDTH, FRAMES, VIDEOS = 256, 340, 120, 12
SAMPLING = TemporalSampling(5, (5, 15), 10)


def make_artifacts(folder: Path, compression: Compression = "zstd") -> tuple[list[Video], str]:
    """Videos of a texture that drifts, with noise; also says how large a frame and a flow field are on disk."""
    if importlib.util.find_spec("hdf5plugin") is None:  # the reader registers its filters; gzip needs none of them
        stand_in = folder / "packages"
        stand_in.mkdir()
        (stand_in / "hdf5plugin.py").touch()
        sys.path.append(str(stand_in))  # which the loader's processes are told too
    workspace = Workspace(folder)
    about = {"fps": 25.0, "source_frames": FRAMES, "short_side": HEIGHT, "width": WIDTH, "height": HEIGHT}
    flow_about = {"method": "made up", "method_parameters": json.dumps({}), "bound": 20.0, "step": 1}
    for number in range(VIDEOS):
        name = f"v{number}"
        source = about | {"source": f"{name}.avi", "source_sha256": name}
        jpegs, fields = made_up_video(number)
        with new_frames_file(workspace.frames_file("class", name)) as frames_file:
            for jpeg in jpegs:
                frames_file.append(jpeg)
            frames_file.finish(source)
        with new_flow_file(workspace.flow_file("class", name), compression) as flow_file:
            flow_file.append(fields)
            flow_file.finish(source | flow_about | {"flow_input": "video"})
    sizes = [sum(f.stat().st_size for f in d.rglob("*.h5")) / VIDEOS for d in (workspace.frames, workspace.flow)]
    text = f"{sizes[0] / FRAMES / 1e3:.0f} kB a frame, {sizes[1] / (FRAMES - 1) / 1e3:.0f} kB a field"
    return load_catalogue(workspace).videos, text


def made_up_video(seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """JPEGs of all frames, and quantised flow [F, 2, H, W]: still but for a third of the picture, as in UCF101."""
    import cv2

    rng = np.random.default_rng(seed)
    octaves = (cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH + FRAMES, 3)), (0, 0), s) * s for s in (1, 3, 9, 27))
    texture = cv2.normalize(sum(octaves), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    jpegs = [cv2.imencode(".jpg", texture[:, t : t + WIDTH], [cv2.IMWRITE_JPEG_QUALITY, 95])[1] for t in range(FRAMES)]
    fields = np.empty((FRAMES - 1, 2, HEIGHT, WIDTH), dtype=np.uint8)
    for t, component in np.ndindex(fields.shape[:2]):
        moving = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
        moving[60:220, 60 + t % 40 : 220 + t % 40] = 1
        smooth = cv2.resize(
            rng.normal(0, 3, (12, 16)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC
        )
        fields[t, component] = quantise(smooth * cv2.GaussianBlur(moving, (0, 0), 6), 20.0)
    return jpegs, fields


def samples(videos: list[Video], size: tuple[int, int]) -> TrainingSamples:
    """Those of the joint step."""
    return TrainingSamples(
        videos, [0] * len(videos), sampling=SAMPLING, scheme="corner-jittered", size=size, seed=0, step_index=2
    )


def samples_a_second(videos: list[Video], size: tuple[int, int], workers: int, count: int, batch: int = 4) -> float:
    """From the loader's first batch on; its start is no part of it."""
    sampler = StepSampler(len(videos), 1, batch, seed=0, step_index=2)
    batches: Iterator[Batch] = iter(make_loader(samples(videos, size), sampler, workers))
    # Whatever waits ready when the clock starts must be few beside what is counted.
    for _ in range(1 + 3 * workers):
        next(batches)
    started, done = time.perf_counter(), 0
    while done < count:
        done += len(next(batches))
    return done / (time.perf_counter() - started)


def parts(videos: list[Video], size: tuple[int, int], count: int) -> dict[str, float]:
    """Milliseconds of each part of a sample, on one thread; `all` is the loader's whole, `prepare` the device's."""
    dataset, handles, prepare, rng = samples(videos, size), OpenArtifactCache(), Prepare(), np.random.default_rng(0)
    loaded = [dataset[Item(0, i, i % len(videos))] for i in range(count)]
    frames = [[int(t) for t in rng.integers(0, FRAMES, 5)] for _ in range(count)]
    spans = [len(np.unique(sample.flow.frame_index)) for sample in loaded]

    def decode(i: int) -> None:
        handles.frames(videos[i % len(videos)].frames_file).read(frames[i])

    def decompress(i: int) -> None:
        handles.flow(videos[i % len(videos)].flow_file).read(0, spans[i])

    def on_device(i: int) -> None:
        prepare(Clips([loaded[i].rgb]), Clips([loaded[i].flow]))

    def whole(i: int) -> None:
        dataset[Item(0, i, i % len(videos))]

    found = {
        name: _milliseconds(part, count)
        for name, part in (("decode", decode), ("decompress", decompress), ("all", whole), ("prepare", on_device))
    }
    found["cut"] = found["all"] - found["decode"] - found["decompress"]
    found["fields"] = float(np.mean(spans))
    found["bytes"] = float(np.mean([sample.rgb.pixels.nbytes + sample.flow.pixels.nbytes for sample in loaded]))
    return found


def _milliseconds(part: Callable[[int], None], count: int) -> float:
    for i in range(3):
        part(i)
    started = time.process_time()
    for i in range(count):
        part(i)
    return 1e3 * (time.process_time() - started) / count


def one_thread() -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
