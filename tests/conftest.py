"""What tests of several rooms are given: small workspaces, and clips made at run time."""

import gc
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as stres_cli/__main__.py; pytest-xdist's processes share cores
# The networks here are tiny: more threads would only wait for one another, in the processes started here too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pipelines.runtime import worker_pool
from pipelines.storage.workspace import Workspace
from pipelines.video.synthetic import write_video
from tests.helpers.workspaces import Trained, train_on_videos, write_workspace

WriteClip = Callable[..., np.ndarray]

gc.disable()  # until all tests are loaded (`pytest_collection_finish`)
# Hundreds of worker processes start here, most for a fraction of a second: loading the same modules in each would take
# longer than their work. Commands that tests start as processes of their own have the product's list.
worker_pool._PRELOAD += [
    "numba",
    "pipelines.datasets.loading",
    "pipelines.jobs.frames",
    "pipelines.optical_flow.farneback",
    "pipelines.optical_flow.store",
    "pipelines.optical_flow.tvl1.kernels.pair",
    "pipelines.optical_flow.tvl1.numba_engine",
    "pipelines.video.isolation",
]

# What a shell's background jobs inherit, or those of nohup, and what these tests send.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The marker `cuda`: skipped without a GPU, unless STRES_REQUIRE_CUDA=1 says there must be one. The markers
    `compiler` and `emulate`: run only where STRES_TEST_COMPILER=1 and STRES_EMULATE=1 ask for them."""
    if item.get_closest_marker("emulate") and os.environ.get("STRES_EMULATE") != "1":
        pytest.skip("minutes of emulating: `make emulate` runs it")
    if item.get_closest_marker("compiler") and os.environ.get("STRES_TEST_COMPILER") != "1":
        pytest.skip("minutes of compiling: STRES_TEST_COMPILER=1 runs it")
    if item.get_closest_marker("cuda") is None or os.environ.get("STRES_REQUIRE_CUDA") == "1":
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")


LONG = {
    "test_torchrun.py", "test_faults.py", "test_tvl1_processes.py", "test_fuzz.py", "test_doctor.py", "test_signals.py",
}  # fmt: skip
"""The modules that start many processes, for ten seconds to half a minute each, most of them in a fixture."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long modules first. Near the end of the run pytest-xdist's processes take each other's last tests: of a long
    module both would make the fixture, and one would wait for the other. Tests of milliseconds are shared evenly."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """Garbage is looked for again, but not among half a million objects of modules and tests, which a process would
    otherwise go through for a tenth of its time."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)  # an exception before the fixtures are torn down would break the tests that follow
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """No test leaves the process in a real-time class, in which it could stop everything else on its core, or changes
    a workspace that others read."""
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        pytest.fail(f"{item.name} left its process in a real-time class")
    for root, before in _READ_ONLY.items():
        now = _READ_ONLY[root] = _files(root)
        if changed := sorted({path for path, _ in now ^ before}):
            pytest.fail(f"{item.name} changed {changed[:5]} in a workspace that tests share: it needs a copy")


_READ_ONLY: dict[Path, set[tuple[str, int]]] = {}


def _files(root: Path) -> set[tuple[str, int]]:
    """Every file below a folder, and when it was written. By `os.scandir`, since it is asked after every test."""
    found, folders = set(), [str(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    found.add((entry.path, entry.stat().st_mtime_ns))
    return found


@pytest.fixture(scope="session")
def trained_on_videos(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Only to be read."""
    made = train_on_videos(tmp_path_factory.mktemp("videos"))
    _READ_ONLY[made.workspace.root] = _files(made.workspace.root)
    return made


@pytest.fixture
def own_trained_on_videos(trained_on_videos: Trained, tmp_path: Path) -> Trained:
    """The same videos with a copy of the workspace."""
    root = shutil.copytree(trained_on_videos.workspace.root, tmp_path / "own-work")
    return Trained(Workspace(root), trained_on_videos.videos)


@pytest.fixture(scope="session")
def random_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Only to be read."""
    made = write_workspace(tmp_path_factory.mktemp("random") / "work")
    _READ_ONLY[made.root] = _files(made.root)
    return made


@pytest.fixture
def workspace(random_workspace: Workspace, tmp_path: Path) -> Workspace:
    """A workspace of random artifacts of one's own."""
    return Workspace(Path(shutil.copytree(random_workspace.root, tmp_path / "work")))


@pytest.fixture
def write_clip() -> WriteClip:
    """`write_clip(path, frames=6, height=48, width=64)` writes a clip and returns its frames [T, H, W, 3]; with
    `times=`, those seconds are when they are shown."""

    def write(
        path: Path, frames: int = 6, height: int = 48, width: int = 64, times: Sequence[float] | None = None
    ) -> np.ndarray:
        noise = np.random.default_rng(len(path.name)).integers(
            0, 256, (height // 4, (width + frames) // 4 + 1, 3), dtype=np.uint8
        )
        texture = noise.repeat(4, 0).repeat(4, 1)
        clip = np.stack([texture[:, t : t + width] for t in range(frames)])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip, codec="ffv1", pixels="bgr0", times=times)
        return clip

    return write
