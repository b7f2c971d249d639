"""What training writes down as it goes: one JSON line every few updates, and TensorBoard where it is installed."""

import contextlib
import json
from pathlib import Path

from pipelines.training.tensorboard_log import TensorBoardLog
from pipelines.workspace import storage_errors, write_text


class MetricsLog:
    """Appends to `runs/<name>/metrics.jsonl` and `runs/<name>/tensorboard/`.

    Opening it for a step that continues at iteration `begin` drops that step's later lines, written after the
    checkpoint that it continues from, so that no update is logged twice.
    """

    def __init__(self, run_folder: Path, step: str, begin: int) -> None:
        self.path = run_folder / "metrics.jsonl"
        self.step = step
        self._keep_lines_before(begin)
        with storage_errors(self.path):
            self._file = self.path.open("a", encoding="utf-8")
        self._board = TensorBoardLog(run_folder / "tensorboard" / step, begin)

    def _keep_lines_before(self, begin: int) -> None:
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not self._is_later(line, begin)]
        if kept != lines:
            write_text(self.path, "".join(kept))

    def _is_later(self, line: str, begin: int) -> bool:
        try:
            record = json.loads(line)
        except ValueError:  # the power went while this line was being written
            return True
        return record.get("step") == self.step and record.get("iteration", 0) > begin

    def write(self, iteration: int, values: dict[str, float]) -> None:
        """One line; `iteration` counts finished updates. Raises `StorageError`."""
        with storage_errors(self.path):
            self._file.write(json.dumps({"step": self.step, "iteration": iteration, **values}) + "\n")
            self._file.flush()
        self._board.write(iteration, values)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of what `write` has told it could not write
            self._file.close()
        self._board.close()
