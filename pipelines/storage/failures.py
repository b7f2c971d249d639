"""`failures.csv`: the videos that a stage could not process, and why."""

import contextlib
import csv
import io
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from typing import Self

from pipelines.errors import MissingError, StorageError
from pipelines.storage.atomic import create_folder, locked, storage_errors, write_text
from pipelines.storage.workspace import Workspace

FAILURE_COLUMNS = ("stage", "class", "video", "path", "reason", "time")
_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "'")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")


@dataclass(frozen=True)
class Failure:
    """One row of `failures.csv`: a video a stage could not process, and why."""

    stage: str
    class_name: str
    video: str
    path: str
    reason: str
    time: str = ""

    @property
    def id(self) -> str:
        """The video as lists and messages name it."""
        return f"{self.class_name}/{self.video}"

    @property
    def key(self) -> "Key":
        """What identifies a row: the name under which the video is stored; for `predict`, which stores nothing and may
        be given two videos of one name, its path."""
        if self.stage == "predict":
            return self.stage, "", self.path
        return self.stage, self.class_name, self.video


def read_failures(workspace: Workspace) -> list[Failure]:
    """All rows of `failures.csv`; none where there is no such file."""
    try:
        text = workspace.failures_file.read_text(encoding="utf-8", errors="backslashreplace")
    except FileNotFoundError:
        return []
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return [Failure(*(typed_text(row.get(column) or "") for column in FAILURE_COLUMNS)) for row in rows]
    except csv.Error as error:
        raise MissingError(
            f"{workspace.failures_file} cannot be read as CSV ({error}): delete it, the next run of each stage lists "
            "its failures again"
        ) from error


def record_outcomes(
    workspace: Workspace, *, failed: Iterable[Failure] = (), succeeded: Iterable[tuple[str, str, str]] = ()
) -> None:
    """Updates `failures.csv`: the one place where rows of it are written, whichever stage a video failed in.

    The file is rewritten atomically under a lock on the workspace's folder, so that two commands at once lose no row;
    it is removed with its last row.

    Args:
        failed: Rows to add, or to replace those of the same key.
        succeeded: `Failure.key` of rows to remove.

    Raises:
        StorageError: Writing fails.
    """
    create_folder(workspace.root)
    with locked(workspace.root):
        rows = {failure.key: failure for failure in read_failures(workspace)}
        before = dict(rows)
        for stage, class_name, video in succeeded:
            rows.pop((_printable(stage), _printable(class_name), _printable(video)), None)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for failure in failed:
            row = Failure(*map(_printable, astuple(failure)))
            rows[row.key] = replace(row, time=row.time or now)
        if rows == before:
            return
        if not rows:
            with storage_errors(workspace.failures_file):
                workspace.failures_file.unlink()
            return
        ordered = sorted(rows.values(), key=lambda row: (row.stage, row.class_name, row.video, row.path))
        write_text(workspace.failures_file, csv_text(FAILURE_COLUMNS, map(astuple, ordered)))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV, with comma and line feed; every text in it is a `spreadsheet_text`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for row in (header, *rows):
        writer.writerow([spreadsheet_text(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def spreadsheet_text(text: str) -> str:
    """A CSV cell that no spreadsheet takes for a formula: a name such as `=cmd|...` gets an apostrophe."""
    return f"'{text}" if text.startswith(_BEGINS_A_FORMULA) and not _NUMBER.fullmatch(text) else text


def typed_text(cell: str) -> str:
    """The text that `spreadsheet_text` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_BEGINS_A_FORMULA) else cell


def _printable(text: str) -> str:
    """`text` on one line and in valid UTF-8 (file names may hold other bytes)."""
    return re.sub(r"[\r\n]", " ", text.encode("utf-8", "backslashreplace").decode("utf-8"))


_SHARE = 0.05  # of the time, at most, goes into writing
Key = tuple[str, str, str]


class FailureLog:
    """Records failures and successes, several at once if they come fast: the whole file is written and synced each
    time, which for every one of 100,000 failed videos would take days. The rest is written when the block ends, however
    it ends; what a killed process had not written is tried again by the next."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._waiting: dict[Key, Failure | None] = {}  # the last outcome of each video; None: it succeeded
        self._due = time.monotonic()

    def fail(self, failure: Failure) -> None:
        self._waiting[failure.key] = failure
        self.write_when_due()

    def succeed(self, key: Key) -> None:
        """Records a success. `key` is that of the failure it would have been."""
        self._waiting[key] = None
        self.write_when_due()

    def write_when_due(self) -> None:
        """Writes what is waiting, at most 5 % of the time. To be called now and then, so that a failure is recorded
        while the next video is still being processed."""
        if time.monotonic() >= self._due:
            self._write()

    def _write(self) -> None:
        if not self._waiting:
            return
        started = time.monotonic()
        failed = [failure for failure in self._waiting.values() if failure is not None]
        succeeded = [key for key, failure in self._waiting.items() if failure is None]
        record_outcomes(self.workspace, failed=failed, succeeded=succeeded)
        self._waiting = {}
        now = time.monotonic()
        self._due = now + (now - started) * (1 / _SHARE - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with contextlib.suppress(StorageError) if error else contextlib.nullcontext():
            self._write()
