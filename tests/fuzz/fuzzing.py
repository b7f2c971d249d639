"""Thousands of damaged inputs through the real code, in processes that may die of it (`make fuzz`).

Each input is a function of the seed and its number. What must not be is a finding: a crash, a hang, a traceback, memory
beyond the bound, an exit code that is not one of those promised, a good video that fails beside bad ones.
"""

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checks
import cv2
import mutations
import numpy as np
import videos
import workspaces

from pipelines.errors import VideoError
from pipelines.runtime.worker_pool import Limits, run_tasks

TIME_LIMIT = 300.0  # seconds, of one input: a report takes 5, on a machine that does ten other things 60
MEMORY_LIMIT = 5 << 30  # bytes that one input may make a process take
_SHARE_OF_VIDEOS = 0.6
_SHARE_OF_PICTURES = 0.1
_BATCH = 50  # videos given to one command
_BATCH_LIMIT = 1200.0  # seconds


@dataclass
class Tally:
    """What came of all inputs."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())

    def add(self, given: checks.Input, outcome: checks.Outcome | VideoError) -> None:
        if isinstance(outcome, VideoError):  # the process died, or was ended
            outcome = checks.Outcome("died", 0.0, 0, str(outcome))
        self.outcomes[given.kind, outcome.result.partition(":")[0]] += 1
        self.slowest = max(self.slowest, (outcome.seconds, given.name))
        self.largest = max(self.largest, (outcome.peak_bytes, given.name))
        if outcome.peak_bytes > MEMORY_LIMIT:
            self.find(given.name, f"took {outcome.peak_bytes >> 20} MiB")
        if outcome.finding:
            self.find(given.name, outcome.finding)

    def find(self, name: str, what: str) -> None:
        self.findings.append(f"{name}: {what}")

    def document(self) -> dict[str, Any]:
        """For `--output`: by kind what its inputs ended as."""
        kinds: dict[str, dict[str, int]] = {}
        for (kind, result), count in sorted(self.outcomes.items()):
            kinds.setdefault(kind, {})[result] = count
        return {
            "inputs": self.inputs,
            "kinds": kinds,
            "findings": self.findings,
            "slowest": self.slowest,
            "peak MiB": (self.largest[0] >> 20, self.largest[1]),
        }


def fuzz(folder: Path, inputs: int, seed: int, *, workers: int = 2, whole: workspaces.Whole | None = None) -> Tally:
    """Damages and checks `inputs` files, most of them videos; without `whole` all of them are."""
    tally = Tally()
    bases = videos.write_bases(folder / "bases")
    number_of_videos = round(_SHARE_OF_VIDEOS * inputs) if whole else inputs
    batches = [videos_batch(folder / "batch")]
    if whole is not None:
        batches.append(predicted_batch(folder / "predicted", whole))
    run(_damaged_videos(folder / "videos", bases, number_of_videos, seed, batches), workers, tally)
    for batch in batches:
        batch.run()
        batch.tell(tally)
    if whole is not None:
        pictures = round(_SHARE_OF_PICTURES * inputs)
        fuzz_pictures(folder / "pictures", pictures, seed, tally)
        run(damaged_files(folder / "files", whole, inputs - number_of_videos - pictures, seed), workers, tally)
    return tally


def run(inputs: Iterator[checks.Input], workers: int, tally: Tally) -> None:
    limits = Limits(patience=TIME_LIMIT, memory=MEMORY_LIMIT)
    with contextlib.closing(run_tasks(checks.check, inputs, workers, limits=limits)) as outcomes:
        for given, outcome in outcomes:
            tally.add(given, outcome)
            if given.folder is not None:
                shutil.rmtree(given.folder)
            else:
                given.path.unlink(missing_ok=True)


# ------------------------------------------------------------------ inputs


def _damaged_videos(
    folder: Path, bases: dict[str, bytes], inputs: int, seed: int, batches: "Sequence[_Batch]"
) -> Iterator[checks.Input]:
    """Every lying header once, as far as there is room for them, then damaged bases; `batches` are given all of them
    too."""
    folder.mkdir(parents=True)
    lies = list(videos.lying_headers(bases))
    random.Random(seed).shuffle(lies)
    contents, names = list(bases.values()), list(bases)
    for number in range(inputs):
        rng = random.Random(f"{seed} video {number}")
        if number < min(len(lies), inputs // 4):
            name, content = lies[number]
        else:
            name = rng.choice(names)
            content = mutations.damaged(bases[name], rng, contents)
        path = folder / f"{number}-{name}"
        path.write_bytes(content)
        for batch in batches:
            batch.add(path)
        yield checks.Input("video", path.name, path)


def damaged_files(folder: Path, whole: workspaces.Whole, inputs: int, seed: int) -> Iterator[checks.Input]:
    """Files of a workspace, by their shares of the inputs."""
    targets = list(whole.targets())
    originals = {file: (whole.root / file).read_bytes() for file, *_ in targets}
    shares = [share for *_, share in targets]
    for number in range(inputs):
        rng = random.Random(f"{seed} file {number}")
        file, kind, how, _ = targets[number] if number < len(targets) else rng.choices(targets, shares)[0]
        original = originals[file]
        damage = mutations.damaged_json if how == "json" else mutations.damaged
        content = damage(original, rng) if how == "json" else damage(original, rng, list(originals.values()))
        place = folder / str(number)
        path = whole.copy(place, file, content)
        yield checks.Input(kind, f"{number}-{file}", path, place)


# ------------------------------------------------------------------ through the commands that store something


class _Batch:
    """Damaged videos side by side with good ones through one command: each bad one is a row, each good one is done.

    `arguments`: of the command, between its name and the workspace's; `{videos}` is the folder of class folders.
    `write_good`: writes one good video at a place without suffix; `done`: the videos that were done, from the workspace
    and the command's document.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        arguments: list[str],
        write_good: Callable[[Path], None],
        done: Callable[[Path, dict[str, Any]], set[str]],
    ) -> None:
        self.videos, self.work = folder / "videos", folder / "work"
        self.place = self.videos / "c"
        self.command, self.arguments, self.write_good, self.done = command, arguments, write_good, done
        self.problems: list[str] = []
        self.number = 0

    def add(self, video: Path) -> None:
        """A copy of it, and the command if there are enough."""
        self.place.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, self.place)
        if self.full():
            self.run()

    def full(self) -> bool:
        return self.place.is_dir() and sum(1 for _ in self.place.iterdir()) >= _BATCH

    def run(self) -> None:
        """Does it, and begins anew."""
        if not self.place.is_dir():
            return
        self.number += 1
        for name in ("good-first", "zz-good-last"):
            self.write_good(self.place / name)
        given = {path.stem for path in self.place.iterdir()}
        arguments = [word.format(videos=self.videos) for word in self.arguments]
        command = [sys.executable, "-m", "stres_cli", self.command, *arguments, "-w", str(self.work), "--json"]
        try:
            self._judge(subprocess.run(command, capture_output=True, text=True, timeout=_BATCH_LIMIT), given)
        except subprocess.TimeoutExpired:
            self._note(f"not done after {_BATCH_LIMIT:.0f} s")
        shutil.rmtree(self.videos)
        shutil.rmtree(self.work, ignore_errors=True)

    def _judge(self, process: "subprocess.CompletedProcess[str]", given: set[str]) -> None:
        if process.returncode not in (0, 1) or "Traceback" in process.stderr:
            self._note(f"exit code {process.returncode}: {process.stderr[-500:]}")
            return
        document = json.loads(process.stdout)
        rows = {row["video"]: row["reason"] for row in document["failures"]}
        done = self.done(self.work, document)
        if not {"good-first", "zz-good-last"} <= done:
            self._note(f"a good video failed: {rows}")
        if rows.keys() & done or rows.keys() | done != given:
            self._note(f"{sorted(given - done - rows.keys())} are neither")
        for video, reason in rows.items():
            if "died" in reason or "unexpected error" in reason:
                self._note(f"{video}: {reason}")

    def _note(self, problem: str) -> None:
        self.problems.append(f"batch {self.number}: {problem}")

    def tell(self, tally: Tally) -> None:
        for problem in self.problems:
            tally.find(self.command, problem)


def videos_batch(folder: Path) -> _Batch:
    """Through `extract-frames`."""
    return _Batch(folder, "extract-frames", ["{videos}", "--patience", "60", *_TWO], write_good_video, stored("frames"))


def predicted_batch(folder: Path, whole: workspaces.Whole) -> _Batch:
    """Through `predict`, by the whole workspace's run."""

    def predicted(work: Path, document: dict[str, Any]) -> set[str]:
        return {Path(row["video"]).stem for row in document["predictions"]}

    run_ = str(whole.root / "runs" / "split1")
    arguments = ["{videos}", "--run", run_, "--crops", "5", "--device", "cpu"]
    return _Batch(folder, "predict", arguments, write_good_video, predicted)


def write_good_video(place: Path) -> None:
    videos.write(place.with_suffix(".avi"), "mpeg4", "yuv420p")


def stored(folder: str) -> Callable[[Path, dict[str, Any]], set[str]]:
    """The artifacts in the workspace's folder of that name."""

    def videos_of(work: Path, document: dict[str, Any]) -> set[str]:
        return {path.stem for path in work.glob(f"{folder}/c/*.h5")}

    return videos_of


_TWO = ("--workers", "2")


def fuzz_pictures(folder: Path, inputs: int, seed: int, tally: Tally) -> None:
    """Folders of JPEGs as other tools leave them, one of each video damaged, through `import-frames` and
    `import-flow`."""
    batches = (
        (
            _Batch(folder / "frames", "import-frames", ["{videos}", *_TWO], write_frame_pictures, stored("frames")),
            write_frame_pictures,
        ),
        (
            _Batch(folder / "flow", "import-flow", ["{videos}", *_FLOW_OPTIONS], write_flow_pictures, stored("flow")),
            write_flow_pictures,
        ),
    )
    for number in range(inputs):
        rng = random.Random(f"{seed} pictures {number}")
        batch, write = batches[number % 2]
        write(batch.place / str(number))
        pictures = sorted((batch.place / str(number)).iterdir())
        damaged = rng.choice(pictures)
        damaged.write_bytes(mutations.damaged(damaged.read_bytes(), rng, [path.read_bytes() for path in pictures]))
        tally.outcomes[batch.command, "in a batch"] += 1
        if batch.full():
            batch.run()
    for batch, _ in batches:
        batch.run()
        batch.tell(tally)


_FLOW_OPTIONS = ("--method", "tvl1", "--bound", "20", *_TWO)


def write_frame_pictures(folder: Path) -> None:
    """Three frames as denseflow leaves them."""
    _write_pictures(folder, ["img_{:05d}.jpg"], channels=3)


def write_flow_pictures(folder: Path) -> None:
    """The flow of three pairs of frames as denseflow leaves it."""
    _write_pictures(folder, ["flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"], channels=1)


def _write_pictures(folder: Path, patterns: list[str], channels: int) -> None:
    folder.mkdir(parents=True)
    for number in range(1, 4):
        texture = np.random.default_rng(number).integers(0, 256, (32, 48, channels), dtype=np.uint8)
        for pattern in patterns:
            cv2.imwrite(str(folder / pattern.format(number)), texture)


def main() -> None:
    """Prints what came of it; exit code 1 where there are findings."""
    from conftest import train_on_videos  # tests/conftest.py, where `make fuzz` says it is

    parser = argparse.ArgumentParser(description="Damaged inputs through the real code.")
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stres-fuzz-") as folder:
        trained = train_on_videos(Path(folder) / "trained")
        whole = workspaces.write_whole(Path(folder) / "whole", trained.workspace, trained.video("jump/jump2"))
        tally = fuzz(Path(folder), options.inputs, options.seed, workers=options.workers, whole=whole)
    document = tally.document() | {"seed": options.seed, "minutes": round((time.monotonic() - started) / 60, 1)}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    sys.exit(1 if tally.findings else 0)


if __name__ == "__main__":
    main()
