"""Open artifacts of one process: a few are kept, none crosses a fork or a pickle."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any, TypeVar

from pipelines.storage.flow_file import FlowFile
from pipelines.storage.frames_file import FrameFile

File = TypeVar("File", FrameFile, FlowFile)
KEPT = 256  # files; each open HDF5 data set may hold 256 KiB of chunk cache (`artifacts.open_file`)


class OpenArtifactCache:
    """Opens artifacts where they are first read and keeps the last used open.

    HDF5 handles opened before a fork are shared with the child and corrupt what both read: a process that finds
    another's handles forgets them, and pickling carries none along.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._process = os.getpid()
        self._open: OrderedDict[Path, FrameFile | FlowFile] = OrderedDict()

    def open(self, path: Path, kind: type[File]) -> File:
        """The open artifact, which is of this kind. Raises `ArtifactError`."""
        if self._process != os.getpid():
            self._process, self._open = os.getpid(), OrderedDict()
        if path not in self._open:
            self._open[path] = kind(path)
            if len(self._open) > self._kept:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        file = self._open[path]
        assert isinstance(file, kind)
        return file

    def discard(self, path: Path | None) -> None:
        """Closes `path` if it is open: what was damaged may have been made again when it is next read."""
        file = self._open.pop(path, None) if path is not None else None
        if file is not None:
            file.close()

    def close(self) -> None:
        """Closes everything."""
        while self._open:
            self._open.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        return {"_kept": self._kept, "_process": os.getpid(), "_open": OrderedDict()}
