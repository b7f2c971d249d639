"""The outcomes of a stage's videos on their way to `failures.csv`."""

import contextlib
import time
from types import TracebackType
from typing import Self

from pipelines.errors import StorageError
from pipelines.workspace import Failure, Workspace, record_outcomes

_SHARE = 0.05  # of the time, at most, goes into writing
Key = tuple[str, str, str]


class Outcomes:
    """Records failures and successes, together where they come fast: each time the whole file is written and synced,
    which for every one of 100,000 failed videos would be days. The rest is written when the block ends, however it
    does; what a killed process had not written is tried again by the next."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._waiting: dict[Key, Failure | None] = {}  # the last outcome of each video; None: it succeeded
        self._due = time.monotonic()

    def fail(self, failure: Failure) -> None:
        self._waiting[failure.key] = failure
        self.write_when_due()

    def succeed(self, key: Key) -> None:
        """`key`: stage, class, video."""
        self._waiting[key] = None
        self.write_when_due()

    def write_when_due(self) -> None:
        """To be called now and then, so that a failure is told while the next video still takes its time."""
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

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(StorageError) if value else contextlib.nullcontext():
            self._write()
