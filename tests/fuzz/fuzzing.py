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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checks
import mutations
import videos
import workspaces

from pipelines.errors import VideoError
from pipelines.workers import Limits, run_tasks

TIME_LIMIT = 60.0  # seconds, of one input
MEMORY_LIMIT = 5 << 30  # bytes that one input may make a process take
_SHARE_OF_VIDEOS = 0.5
_BATCH = 50  # videos given to one command


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
    """Damages and checks `inputs` files, of which half are videos; without `whole` all of them are."""
    tally = Tally()
    bases = videos.write_bases(folder / "bases")
    number_of_videos = round(_SHARE_OF_VIDEOS * inputs) if whole else inputs
    batch = _Batch(folder / "batch")
    run(_damaged_videos(folder / "videos", bases, number_of_videos, seed, batch), workers, tally)
    batch.finish(tally)
    if whole is not None:
        run(damaged_files(folder / "files", whole, inputs - number_of_videos, seed), workers, tally)
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
    folder: Path, bases: dict[str, bytes], inputs: int, seed: int, batch: "_Batch"
) -> Iterator[checks.Input]:
    """Every lying header once, as far as there is room for them, then damaged bases; all are given to `batch` too."""
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


# ------------------------------------------------------------------ videos through the command


class _Batch:
    """Damaged videos side by side with good ones through `stres extract-frames`: each bad one is a row, each good one
    is stored."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number, self.problems = folder, 0, list[str]()
        self.folder.mkdir(parents=True)
        self._count = 0

    def add(self, path: Path) -> None:
        place = self.folder / "videos" / "c"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
        self._count += 1
        if self._count == _BATCH:
            self._extract()

    def finish(self, tally: Tally) -> None:
        if self._count:
            self._extract()
        for problem in self.problems:
            tally.find("extract-frames", problem)

    def _extract(self) -> None:
        self._count, self.number = 0, self.number + 1
        place, work = self.folder / "videos", self.folder / "work"
        for name in ("good-first", "zz-good-last"):
            videos.write(place / "c" / f"{name}.avi", "mpeg4", "yuv420p")
        given = {path.stem for path in (place / "c").iterdir()}
        command = [sys.executable, "-m", "stres_cli", "extract-frames", str(place), "-w", str(work), "--json"]
        done = subprocess.run([*command, "--workers", "2", "--patience", "60"], capture_output=True, text=True)
        self._judge(done, given, {path.stem for path in work.glob("frames/c/*.h5")})
        shutil.rmtree(place)
        shutil.rmtree(work, ignore_errors=True)

    def _judge(self, done: "subprocess.CompletedProcess[str]", given: set[str], stored: set[str]) -> None:
        if done.returncode not in (0, 1) or "Traceback" in done.stderr:
            self.problems.append(f"batch {self.number}: exit code {done.returncode}: {done.stderr[-500:]}")
            return
        rows = {row["video"]: row["reason"] for row in json.loads(done.stdout)["failures"]}
        if not {"good-first", "zz-good-last"} <= stored:
            self.problems.append(f"batch {self.number}: a good video failed: {rows}")
        if rows.keys() & stored or rows.keys() | stored != given:
            self.problems.append(f"batch {self.number}: {sorted(given - stored - rows.keys())} are neither")
        for video, reason in rows.items():
            if "died" in reason or "unexpected error" in reason:
                self.problems.append(f"batch {self.number}: {video}: {reason}")


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
