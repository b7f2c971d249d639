"""A file for HDF5 and PyTorch to write to on a disk that may be full."""

import io
from pathlib import Path
from typing import Any


class UnfailingFile(io.RawIOBase):
    """Never tells the library that writes of a write that failed, or came too late, but its owner, through `check`.

    HDF5 holds data back for later, cannot let go of it when writing fails, reports that from where nothing can catch
    it, and then ends the process with a segmentation fault (h5py 3.16 on a full disk). So each video would fail as
    "the worker process died", instead of the command ending with "the disk is full". PyTorch's zip writer raises an
    error that does not say why. Either may still hold the file, and write to it, after an interruption has made its
    owner close it: that is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        """Raises the first `OSError` that writing has met."""
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        """Takes all of `data`, whether the disk does or not."""
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while len(view) and self._error is None and not self._file.closed:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return (size or 0) if self._file.closed else self._file.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        """Fills `buffer`, with zeros where a write was lost."""
        view = memoryview(buffer).cast("B")
        size = len(view)
        while len(view) and not self._file.closed and (count := self._file.readinto(view)):
            view = view[count:]
        view[:] = bytes(len(view))
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return offset if self._file.closed else self._file.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._file.closed else self._file.tell()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """Lets go of the file on the disk. Not of `io`'s own state, in which every call would be an error."""
        self._file.close()
