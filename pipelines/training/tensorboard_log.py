"""TensorBoard's event files, written at once.

TensorBoard's own writer keeps records back for two minutes, which a killed training would lose, and reports a full disk
from a thread of its own.
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.workspace import storage_errors


class TensorBoardLog:
    """Appends to a new event file in `folder`. Where TensorBoard, an optional extra, is not installed, does nothing.

    What earlier files say of updates after number `begin` no longer counts.
    """

    def __init__(self, folder: Path, begin: int) -> None:
        self._records: Any = None
        try:
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            return
        # TensorBoard reads the files of a folder in the order of their names.
        self.path = folder / f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        with storage_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            self._records = RecordWriter(self.path.open("ab"))
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._add(file_version="brain.Event:2")
        self._add(step=begin + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, iteration: int, values: Mapping[str, float]) -> None:
        """One point of each curve. Raises `StorageError`."""
        if self._records is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step=iteration, summary=Summary(value=points))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # of what `write` has told it could not write
            if self._records is not None:
                self._records.close()

    def _add(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        with storage_errors(self.path):
            self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
            self._records.flush()
