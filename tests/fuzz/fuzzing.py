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
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import h5py
import hdf5plugin  # noqa: F401  (registers the Zstandard filter)
import numpy as np
from typer.testing import CliRunner

from pipelines.errors import VideoError
from pipelines.runtime.worker_pool import Limits, run_tasks
from stres_cli.app import app
from tests.fuzz import checks, layouts, mutations, videos, workspaces
from tests.helpers.processes import run_patiently
from tests.helpers.workspaces import train_on_videos

TIME_LIMIT = 300.0  # seconds, of one input: a report takes 5, on a machine that does ten other things 60
MEMORY_LIMIT = 5 << 30  # bytes that one input may make a process take
_SHARE_OF_VIDEOS = 0.6
_SHARE_OF_PICTURES = 0.1
_SHARE_OF_LAYOUTS = 0.05
_BATCH = 50  # videos given to one command
_BATCH_LIMIT = 1200.0  # seconds, as `Patience` counts them


@dataclass
class Tally:
    """What came of all inputs."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")
    compared: int = 0
    """Flow files that were compared with those of one width computed alone."""

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
        sys.stderr.write(f"{self.inputs} inputs, {name}: {what}\n")

    def document(self) -> dict[str, Any]:
        """For `--output`: by kind what its inputs ended as."""
        kinds: dict[str, dict[str, int]] = {}
        for (kind, result), count in sorted(self.outcomes.items()):
            kinds.setdefault(kind, {})[result] = count
        return {
            "inputs": self.inputs,
            "kinds": kinds,
            "flow files compared": self.compared,
            "findings": self.findings,
            "slowest": self.slowest,
            "peak MiB": (self.largest[0] >> 20, self.largest[1]),
        }


def fuzz(
    folder: Path, inputs: int, seed: int, *, workers: int = 2, whole: workspaces.Whole | None = None, tally: Tally
) -> None:
    """Damages and checks `inputs` files, most of them videos; without `whole` all of them are. Counts in `tally`."""
    bases, wide = videos.write_bases(folder / "bases"), videos.write_wide_bases(folder / "wide")
    number_of_videos = round(_SHARE_OF_VIDEOS * inputs) if whole else inputs
    flow = FlowBatch(folder / "flow", tally)
    batches = [videos_batch(folder / "batch", tally)]
    if whole is not None:
        batches.append(predicted_batch(folder / "predicted", tally, whole))
    damaged = _damaged_videos(folder / "videos", bases, wide, number_of_videos, seed, batches, flow)
    run(damaged, workers, tally)
    for batch in (*batches, flow):
        batch.run()
    if whole is not None:
        pictures = round(_SHARE_OF_PICTURES * inputs)
        fuzz_pictures(folder / "pictures", pictures, seed, tally)
        layouts_ = round(_SHARE_OF_LAYOUTS * inputs)
        run(damaged_layouts(folder / "layouts", layouts_, seed), workers, tally)
        files = inputs - number_of_videos - pictures - layouts_
        run(damaged_files(folder / "files", whole, files, seed), workers, tally)


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
    folder: Path,
    bases: dict[str, videos.Base],
    wide: dict[str, videos.Base],
    inputs: int,
    seed: int,
    batches: "Sequence[_Batch]",
    flow: "_Batch",
) -> Iterator[checks.Input]:
    """Every lying header once, as far as there is room for them, then damaged bases. `batches` are given all of them
    too, and `flow` those of several widths."""
    folder.mkdir(parents=True)
    lies = list(videos.lying_headers(bases))
    random.Random(seed).shuffle(lies)
    every = bases | wide
    contents = [base.content for base in every.values()]
    for number in range(inputs):
        rng = random.Random(f"{seed} video {number}")
        kind, original = "video", ""
        if number < min(len(lies), inputs // 4):
            name, content = lies[number]
        else:
            name = rng.choice(list(wide if rng.random() < _SHARE_OF_WIDE else bases))
            kind, content = _damaged(every[name], rng, contents)
            original = every[name].shown if kind.startswith("payload") else ""
        path = folder / f"{number}-{name}"
        path.write_bytes(content)
        for batch in (*batches, flow) if name in wide else batches:
            batch.add(path)
        yield checks.Input(kind, path.name, path, original=original)


_SHARE_OF_WIDE = 0.12
_SHARE_OF_PAYLOADS, _SHARE_OF_TIMES = 0.3, 0.1


def _damaged(base: videos.Base, rng: random.Random, contents: list[bytes]) -> tuple[str, bytes]:
    """The kind of damage, and what it leaves."""
    how = rng.random()
    if how < _SHARE_OF_PAYLOADS and base.shown:
        return f"payload of {base.codec}", mutations.damaged_payload(base.content, rng, base.pictures)
    if how > 1 - _SHARE_OF_TIMES:
        return "times", mutations.damaged_times(base.content, rng, base.pictures)
    return "video", mutations.damaged(base.content, rng, contents)


def damaged_layouts(folder: Path, inputs: int, seed: int) -> Iterator[checks.Input]:
    """Folders of videos, read as VIDEOS."""
    for number in range(inputs):
        place = folder / str(number)
        layouts.write(place, random.Random(f"{seed} layout {number}"))
        yield checks.Input("layout", f"layout {number}", place, place)


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
        tally: Tally,
        command: str,
        arguments: list[str],
        write_good: Callable[[Path], None],
        done: Callable[[Path, dict[str, Any]], set[str]],
    ) -> None:
        self.videos, self.work = folder / "videos", folder / "work"
        self.place = self.videos / "c"
        self.tally, self.command, self.arguments, self.write_good, self.done = (
            tally,
            command,
            arguments,
            write_good,
            done,
        )
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
        try:
            self._judge(_stres(self.command, *arguments, "-w", str(self.work), "--json"), given)
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
        self.tally.find(self.command, f"batch {self.number}: {problem}")


def _stres(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_patiently([sys.executable, "-m", "stres_cli", *arguments], _BATCH_LIMIT)


class FlowBatch(_Batch):
    """Videos of several widths through one `extract-flow`, by TV-L1 and Farneback in turn: the stored fields are those
    that a process computes which has seen no other width."""

    def __init__(self, folder: Path, tally: Tally) -> None:
        super().__init__(folder, tally, "extract-flow", [], _write_good_wide_video, stored("flow"))

    def run(self) -> None:
        method = ("tvl1", "farneback")[self.number % 2]
        self.arguments = ["{videos}", "--method", method, "--bound", "20", *_TWO]
        super().run()

    def _judge(self, process: "subprocess.CompletedProcess[str]", given: set[str]) -> None:
        super()._judge(process, given)
        files = {path.stem: path for path in self.place.iterdir()}
        of_width = defaultdict(list)
        for path in sorted(self.work.glob("flow/c/*.h5")):
            with h5py.File(path) as file:
                of_width[int(file.attrs["width"])].append(path)
        if len(of_width) < 2:
            self._note(f"videos of {list(of_width)} are not several widths")
        for width, paths in of_width.items():
            alone, listed = self.work / f"alone-{width}", self.work / f"{width}.txt"
            listed.write_text("".join(f"{files[path.stem]} c\n" for path in paths))
            # From this process, which computes no flow itself: its worker is a new one for each width.
            command = ["extract-flow", str(listed), *self.arguments[1:-1], "1", "-w", str(alone)]
            computed = CliRunner().invoke(app, command, prog_name="stres")
            if computed.exit_code:
                self._note(f"alone {width} pixels wide: exit code {computed.exit_code}: {computed.output[-300:]}")
                continue
            for path in paths:
                self.tally.compared += 1
                if _data(path) != _data(alone / "flow" / "c" / path.name):
                    self._note(f"{path.stem}, {width} pixels wide: other flow than alone")


def _data(path: Path) -> dict[str, bytes]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def _write_good_wide_video(place: Path) -> None:
    """The first of them is narrower than the last."""
    width = videos.WIDTHS[0 if "first" in place.name else -1]
    videos.write(place.with_suffix(".avi"), "mpeg4", "yuv420p", 96, width, frames=4)


def videos_batch(folder: Path, tally: Tally) -> _Batch:
    """Through `extract-frames`."""
    return _Batch(
        folder, tally, "extract-frames", ["{videos}", "--patience", "60", *_TWO], write_good_video, stored("frames")
    )


def predicted_batch(folder: Path, tally: Tally, whole: workspaces.Whole) -> _Batch:
    """Through `predict`, by the whole workspace's run."""

    def predicted(work: Path, document: dict[str, Any]) -> set[str]:
        return {Path(row["video"]).stem for row in document["predictions"]}

    run_ = str(whole.root / "runs" / "split1")
    arguments = ["{videos}", "--run", run_, "--crops", "5", "--device", "cpu"]
    return _Batch(folder, tally, "predict", arguments, write_good_video, predicted)


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
            _Batch(
                folder / "frames", tally, "import-frames", ["{videos}", *_TWO], write_frame_pictures, stored("frames")
            ),
            write_frame_pictures,
        ),
        (
            _Batch(
                folder / "flow", tally, "import-flow", ["{videos}", *_FLOW_OPTIONS], write_flow_pictures, stored("flow")
            ),
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
    """Prints what came of it, or on Ctrl-C of those so far; exit code 1 where there are findings."""
    parser = argparse.ArgumentParser(description="Damaged inputs through the real code.")
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    started, tally = time.monotonic(), Tally()
    with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="stres-fuzz-") as folder:
        trained = train_on_videos(Path(folder) / "trained")
        whole = workspaces.write_whole(Path(folder) / "whole", trained.workspace, trained.video("jump/jump2"))
        fuzz(Path(folder), options.inputs, options.seed, workers=options.workers, whole=whole, tally=tally)
    document = tally.document() | {"seed": options.seed, "minutes": round((time.monotonic() - started) / 60, 1)}
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    sys.exit(1 if tally.findings else 0)


if __name__ == "__main__":
    main()
