"""What a workspace of very many videos costs: seconds and memory of the real commands, at several sizes.

    python benchmarks/large.py [--videos 2000 20000 200000] [--folder DIR] [--only EXPRESSION] [--keep]

Each command runs as a process of its own on a made-up workspace (`large_workspace.py`): real metadata, tiny files, 400
classes. "CPU s" is the processor time of the process and all its descendants, which other work on the machine changes
least; "MB" the peak resident memory of the process, "MB of a child" that of the largest of its descendants (loader and
worker processes). 50 kB of disk a video are needed, and given back at the end.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from large_workspace import make_scores, make_workspace

from pipelines.storage.workspace import Workspace

_POLL = 0.02  # seconds
STRES = [sys.executable, "-m", "stres_cli"]
CATALOGUE = """
import sys, pathlib
from pipelines.datasets.catalogue import load_catalogue
from pipelines.storage.workspace import Workspace
load_catalogue(Workspace(pathlib.Path(sys.argv[1])))
"""
SPLITS = """
import sys, pathlib
from pipelines.datasets.catalogue import load_catalogue
from pipelines.datasets.splits import prepare_splits, resolve
from pipelines.storage.workspace import Workspace
workspace = Workspace(pathlib.Path(sys.argv[1]))
catalogue = load_catalogue(workspace)
resolve(prepare_splits(workspace, catalogue)[0], catalogue)
"""
TRAIN = (
    *("train", "--recipe", "small", "--steps", "appearance", "--iterations", "1", "--batch-size", "4"),
    *("--micro-batch", "4", "--depth", "26", "--width", "4", "--size", "32", "--overwrite", "--device", "cpu"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, nargs="+", default=[2000, 20_000, 200_000])
    parser.add_argument("--folder", type=Path, help="where to make the workspaces; default: the system's for temporary")
    parser.add_argument("--only", default="", help="only what this regular expression is found in the name of")
    parser.add_argument("--keep", action="store_true", help="leave the workspaces, or use those that are there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        for videos in arguments.videos:
            folder = (arguments.folder if arguments.keep else Path(temporary)) / str(videos)
            if not folder.exists():
                make_workspace(folder, videos)
            print(f"\n| {videos:,} videos | s | CPU s | MB | MB of a child |\n|---|---|---|---|---|", flush=True)
            for name, run in measurements(folder, videos):
                if re.search(arguments.only, name):
                    print(f"| {name} | {run().row()} |", flush=True)
            if not arguments.keep:
                shutil.rmtree(folder)


def measurements(folder: Path, videos: int) -> Iterator[tuple[str, Callable[[], "Cost"]]]:
    """What is measured, in an order in which each finds what it needs."""
    workspace, sources = Workspace(folder / "work"), str(folder / "videos")
    here = ("-w", str(workspace.root))

    def forgetting(run: Callable[[], Cost]) -> Callable[[], Cost]:
        def forget() -> Cost:
            workspace.dataset_file.unlink(missing_ok=True)
            return run()

        return forget

    def stres(*arguments: str, until: str = "") -> Callable[[], Cost]:
        return lambda: cost([*STRES, *arguments], folder / "log", until)

    def python(code: str) -> Callable[[], Cost]:
        return lambda: cost([sys.executable, "-c", code, str(workspace.root)], folder / "log")

    def report() -> Cost:
        make_scores(workspace, videos)
        return cost([*STRES, "report", "--run", "made-up", *here], folder / "log")

    flow = ("extract-flow", sources, "--method", "farneback", "--bound", "5")
    yield "`extract-frames`, all done, no `dataset.json`", forgetting(stres("extract-frames", sources, *here))
    yield "`extract-frames`, all done", stres("extract-frames", sources, *here)
    yield "`extract-flow`, all done", stres(*flow, *here)
    yield "`extract-flow --dry-run`, nothing done", stres(*flow, "--dry-run", "-w", str(folder / "empty"))
    yield "catalogue, no `dataset.json`", forgetting(python(CATALOGUE))
    yield "catalogue", python(CATALOGUE)
    shutil.rmtree(workspace.splits, ignore_errors=True)
    yield "catalogue, splits made", python(SPLITS)
    yield "catalogue, splits read", python(SPLITS)
    yield "`train` to its first update, no `dataset.json`", forgetting(stres(*TRAIN, *here))
    yield "`train` to its first update", stres(*TRAIN, *here)
    yield "the same with 2 loader processes", stres(*TRAIN, "--workers", "2", *here)
    yield "`evaluate` to its first video", stres("evaluate", "--workers", "1", *here, until="evaluate: ")
    yield "`verify --quick`", stres("verify", "--quick", *here)
    yield "`verify`", stres("verify", *here)
    yield "`report`", report
    yield "`extract-frames`, every video broken", lambda: _all_broken(folder, videos)


def _all_broken(folder: Path, videos: int) -> "Cost":
    broken = folder / "broken"
    if not broken.exists():
        for number in range(videos):
            path = broken / f"Class{number % 400:03}" / f"{number:06}.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not a video")
    return cost([*STRES, "extract-frames", str(broken), "-w", str(folder / "empty")], folder / "log", accepted=(0, 1))


# ------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Cost:
    """Seconds, processor seconds of all processes, and peak resident bytes of the process and of the largest other."""

    seconds: float
    processor_seconds: float
    own: int
    largest_child: int

    def row(self) -> str:
        child = f"{self.largest_child / 1e6:,.0f}" if self.largest_child else "–"
        return f"{self.seconds:,.1f} | {self.processor_seconds:,.1f} | {self.own / 1e6:,.0f} | {child}"


def cost(command: list[str], log: Path, until: str = "", accepted: tuple[int, ...] = (0,)) -> Cost:
    """Runs `command` to its end, or until its output has a line that begins with `until`, and stops it then.

    Raises `RuntimeError` with its output where it fails.
    """
    seen: dict[int, _Use] = {}
    with log.open("w+b") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=output)
        reached = False
        while process.poll() is None and not reached:
            for pid in (process.pid, *_descendants(process.pid)):
                seen[pid] = _use(pid) or seen.get(pid, _Use(0, 0))
            time.sleep(_POLL)
            reached = bool(until) and f"\n{until}" in "\n" + log.read_text(errors="replace")
        seconds = time.monotonic() - started
        if reached:
            process.send_signal(signal.SIGTERM)
        code = process.wait()
    if code not in accepted and not reached:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{log.read_text(errors='replace')[-2000:]}")
    processor_seconds = sum(use.processor_seconds for use in seen.values())
    own = seen.pop(process.pid).peak_memory
    return Cost(seconds, processor_seconds, own, max((use.peak_memory for use in seen.values()), default=0))


def _descendants(pid: int) -> Iterator[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        children = [c for t in threads for c in Path(f"/proc/{pid}/task/{t}/children").read_text().split()]
    except OSError:  # it has ended
        return
    for child in children:
        yield int(child)
        yield from _descendants(int(child))


@dataclass(frozen=True)
class _Use:
    """What a process has used so far."""

    processor_seconds: float
    peak_memory: int


def _use(pid: int) -> _Use | None:
    """None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    peak = [int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")]
    if not peak:
        return None
    user_and_system = int(numbers[11]) + int(numbers[12])
    return _Use(user_and_system / os.sysconf("SC_CLK_TCK"), peak[0])


if __name__ == "__main__":
    main()
