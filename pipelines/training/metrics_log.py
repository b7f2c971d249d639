"""What training writes down as it goes: one JSON line every few updates, and TensorBoard where it is installed."""

import contextlib
import functools
import json
import math
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.storage.atomic import json_text, storage_errors, write_text
from pipelines.training.recipes import STEPS
from pipelines.training.run_config import RunConfig

_LAST_LINES = 1 << 16  # bytes, in which there is more than one
_NOT_DRAWN = ("videos", "updates", "validation_videos")  # of which each line is the mean


def of_today(values: Mapping[str, float], terms: int | None) -> dict[str, float]:
    """What was logged, by today's names: stres 0.1 called the sum of a video's cross-entropies `loss`.

    Args:
        terms: Cross-entropies of a video; where that is not known, there is no mean.
    """
    if "loss" not in values or "summed_loss" in values:
        return dict(values)
    mean = {"loss": values["loss"] / terms} if terms else {}
    return {name: value for name, value in values.items() if name != "loss"} | mean | {"summed_loss": values["loss"]}


def accuracy_name(metrics: Mapping[str, float], prefix: str = "") -> str:
    """Of the accuracies in a log line the one to show: of both streams, where there are two; "" for none."""
    streams = ("fused", "motion", "appearance")
    return next((name for each in streams if (name := f"{prefix}{each}_accuracy") in metrics), "")


def held_out_accuracy(metrics: Mapping[str, float]) -> float | None:
    """The accuracy to show of what was measured on videos held out."""
    return metrics.get(accuracy_name(metrics, "validation_"))


def read_records(run_folder: Path, config: RunConfig | None) -> dict[str, list[dict[str, float]]]:
    """What a run logged: of each step that has any, its lines in order, by today's names; a line that is damaged or of
    no number is left out, and so is all of a log that cannot be read.

    Args:
        config: Of the run; None where it is not known.
    """
    try:
        text = (run_folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    # How many cross-entropies a video's loss added up in each step: older logs hold their sum.
    terms = {str(step): of.step.terms for step, of in config.steps.items()} if config else {}
    steps: dict[str, list[dict[str, float]]] = {step: [] for step in STEPS}
    for line in text.splitlines():
        record = _record(line)
        step = record.get("step")
        if step in steps and "iteration" in record:
            values = {key: float(x) for key, x in record.items() if isinstance(x, int | float) and math.isfinite(x)}
            steps[step].append(of_today(values, terms.get(step)))
    return {step: records for step, records in steps.items() if records}


def last_update(run_folder: Path) -> tuple[str, int]:
    """Of which step a run's last line is, and how many updates it had; ("", 0) where there is no log."""
    for record in _last_records(run_folder):
        step, done = record.get("step"), record.get("iteration")
        if isinstance(step, str) and isinstance(done, int):
            return step, done
    return "", 0


def divergence(run_folder: Path, steps: Collection[str]) -> str:
    """What was said of the one of these steps that diverged last and was not continued since; "" where none was."""
    told = (record["diverged"] for record in _last_records(run_folder, steps) if "diverged" in record)
    return str(next(told, ""))


def _last_records(run_folder: Path, steps: Collection[str] = STEPS) -> Iterator[dict[str, Any]]:
    """The last lines of these steps, the last one first; none where there is no log."""
    try:
        with (run_folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_LINES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return
    for record in map(_record, reversed(lines)):
        if isinstance(step := record.get("step"), str) and step in steps:
            yield record


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


class MetricsLog:
    """Appends to `runs/<name>/metrics.jsonl` and `runs/<name>/tensorboard/`.

    Opening it for a step that continues at iteration `begin` drops that step's later lines, written after the
    checkpoint that it continues from, so that no update is logged twice, and the line that says that it diverged.
    """

    def __init__(self, run_folder: Path, step: str, begin: int) -> None:
        self.path = run_folder / "metrics.jsonl"
        self.step = step

        def is_later(line: str) -> bool:
            record = _record(line)  # none: the power went while this line was being written
            return not record or (record.get("step") == step and record.get("iteration", math.inf) > begin)

        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if not is_later(line)]
            if kept != lines:
                write_text(self.path, "".join(kept))
        with storage_errors(self.path):
            self._file = self.path.open("a", encoding="utf-8")
        self._board = TensorBoardLog(run_folder / "tensorboard" / step, begin)

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """One line; `iteration` counts finished updates. Raises `StorageError`."""
        self._write_line({"iteration": iteration, **values})
        curves = {}
        for name, value in values.items():
            of_training = name.endswith(("loss", "accuracy")) and not name.startswith("validation_")
            if name not in _NOT_DRAWN:
                curves[f"training_{name}" if of_training else name] = value
        self._board.write(iteration, curves)

    def write_divergence(self, told: str) -> None:
        """The line that tells `divergence` what was said of the step. Raises `StorageError`."""
        self._write_line({"diverged": told})

    def _write_line(self, values: Mapping[str, Any]) -> None:
        with storage_errors(self.path):
            self._file.write(json_text({"step": self.step, **values}) + "\n")
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of what `write` has told it could not write
            self._file.close()
        self._board.close()


class TensorBoardLog:
    """Writes the curves of a step to a new event file in `folder`; nothing where TensorBoard, an extra, is missing.

    What earlier files tell of updates after number `begin` no longer counts.
    """

    def __init__(self, folder: Path, begin: int) -> None:
        self.folder = folder
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        _hide_tracebacks_of_writing()
        with storage_errors(folder):
            self._writer = SummaryWriter(str(folder), purge_step=begin + 1)

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """One point of each curve. Raises `StorageError`, at the latest when the next line is written: TensorBoard
        writes in a thread."""
        if self._writer is None:
            return
        with storage_errors(self.folder):
            for name, value in values.items():
                self._writer.add_scalar(name, value, iteration)
            self._writer.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of what `write` has told it could not write
            if self._writer is not None:
                self._writer.close()


@functools.cache
def _hide_tracebacks_of_writing() -> None:
    """Where TensorBoard's thread cannot write, `flush` raises the error; it would print a traceback besides."""
    before = threading.excepthook

    def hook(ended: threading.ExceptHookArgs, /) -> None:
        if not type(ended.thread).__module__.startswith("tensorboard.") or not isinstance(ended.exc_value, OSError):
            before(ended)

    threading.excepthook = hook
