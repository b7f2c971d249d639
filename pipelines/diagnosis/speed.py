"""TV-L1: whether its kernels are compiled and kept, and how fast it is here, decoding and storing included."""

import functools
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.diagnosis.check import Check, Place, can_import, failure, in_words, ok, warning
from pipelines.interface.wording import duration, plural
from pipelines.storage.flow_settings import DEFAULT_BOUND, DEFAULT_STEP, FlowSettings
from pipelines.storage.flow_settings import DEFAULT_METHOD as METHOD

if TYPE_CHECKING:
    import numpy as np

UCF101_FIELDS = 2_469_975
"""Flow fields of UCF101's 13,320 videos at step 1: frames - 1 of each, summed over the videos as they decode."""
_WIDTH, _HEIGHT = 320, 240  # UCF101's, which is stored at 340x256
_FRAMES = 100


def check(place: Place) -> list[Check]:
    if not can_import("av", "cv2", "h5py", "hdf5plugin", "numba", "torch"):
        return []
    return [_check_cache(), *_check_speed(place)]


def _check_cache() -> Check:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        found = "NUMBA_DISABLE_JIT is set: TV-L1 has to be compiled"
        return failure("Numba cache", found, "unset NUMBA_DISABLE_JIT")

    from pipelines.optical_flow.tvl1.compilation import cache_folder, compiled_kernel

    folder = cache_folder()
    if folder is None:
        found = "no folder for compiled kernels is writable: every process compiles for half a minute"
        return warning("Numba cache", found, "export NUMBA_CACHE_DIR=/a/folder/of/yours")
    started = time.perf_counter()
    kernel = compiled_kernel()
    seconds = time.perf_counter() - started
    hits = sum(kernel.stats.cache_hits.values())  # type: ignore[attr-defined]  # Numba's dispatcher
    found = f"loaded from {folder}" if hits else f"compiled into {folder}, once for this machine"
    return ok("Numba cache", f"{found}, in {duration(seconds)}", folder=str(folder), hit=bool(hits), seconds=seconds)


def _check_speed(place: Place) -> list[Check]:
    """As many processes as `extract-flow` would start, each on a clip of its own."""
    from pipelines.errors import StresError, VideoError
    from pipelines.jobs.dry_run import probe_task
    from pipelines.optical_flow.probing import probe
    from pipelines.optical_flow.store import FlowTask
    from pipelines.optical_flow.workers import growth_on
    from pipelines.runtime.devices import resolve_device
    from pipelines.runtime.worker_pool import run_tasks
    from pipelines.sources.videos import VideoSource
    from pipelines.storage.workspace import UNLABELLED
    from pipelines.video.synthetic import write_video

    try:
        device = str(resolve_device(place.device))
    except StresError as error:
        return [failure("flow", str(error), "give --device cpu")]
    workers, pairs = growth_on(device).steps[-1], 0.0
    settings = FlowSettings.of(METHOD, {}, DEFAULT_BOUND, DEFAULT_STEP, "video")
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "clip.avi"
            write_video(path, textured_clip())
            task = FlowTask(VideoSource(UNLABELLED, "clip", path), path.with_suffix(".h5"), settings, device=device)
            for _, outcome in run_tasks(functools.partial(probe_task, probe), [(task, 0.0)] * workers, workers):
                if isinstance(outcome, VideoError):
                    raise outcome
                pairs += (outcome.frames - 1) / outcome.seconds
    except Exception as error:
        return [failure("flow", f"does not compute: {in_words(error)}", "see the lines above")]
    hours = UCF101_FIELDS / pairs / 3600
    found = (
        f"{pairs:.3g} pairs/s with {METHOD} at 340x256 on {device}, {plural(workers, 'process')}: UCF101's "
        f"{UCF101_FIELDS / 1e6:.2f} million fields would take {duration(3600 * hours)}"
    )
    return [ok("flow", found, pairs_per_second=pairs, hours_for_ucf101=hours, device=device, workers=workers)]


def textured_clip() -> "np.ndarray":
    """A texture that moves in front of another one: uint8 RGB [T, H, W, 3]. TV-L1 takes about as long for it as for
    UCF101's clips: its iterations end when nothing changes, so noise or a still picture would take another time."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)

    def texture(sigma: float) -> "np.ndarray":
        noise = cv2.GaussianBlur(rng.normal(0, 1, (2 * _HEIGHT, 2 * _WIDTH, 3)), (0, 0), sigma)
        return 128 + 40 * noise / noise.std()

    behind, front = texture(6.0), texture(3.0)
    y, x = np.mgrid[:_HEIGHT, :_WIDTH]
    frames = []
    for t in range(_FRAMES):
        shifted, moving = (
            cv2.warpAffine(layer, np.array([[1, 0, dx], [0, 1, dy]]), (_WIDTH, _HEIGHT))
            for layer, dx, dy in ((behind, -0.3 * t, -0.1 * t), (front, -20 - 1.2 * t, -10.0))
        )
        inside = (np.hypot(x - 100 - 1.2 * t, y - 120 - 20 * np.sin(t / 8)) < 50)[..., None]
        frames.append(np.where(inside, moving, shifted) + rng.normal(0, 2, (_HEIGHT, _WIDTH, 1)))
    return np.clip(np.rint(np.stack(frames)), 0, 255).astype(np.uint8)
