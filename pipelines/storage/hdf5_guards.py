"""Files that HDF5 is given in place of real ones: they catch what it would not survive, or not report."""

import contextlib
import errno
import io
import os
from pathlib import Path
from typing import Any


class DeferredErrorFile(io.RawIOBase):
    """A file that reports failed writes to its owner, through `check`, and not to the library that writes.

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
        """Closes the file on the disk, but does not enter `io`'s closed state, in which every call is an error."""
        self._file.close()


# "GCOL", version 1, three bytes of nothing: what each collection of such strings begins with. Then its size.
_SIGNATURE = b"GCOL\x01\0\0\0"
_HEADER = 16  # bytes of a collection's header, and of an entry's


class HeapCheckedFile(io.FileIO):
    """A file whose damaged heaps, in which HDF5 would loop forever, lack their signature, so that HDF5 refuses them."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a position. Raises `OSError` also for one that no file can have."""
        with contextlib.suppress(OverflowError):  # and not as a cause, whose frames an error would hold, and h5py's
            return super().seek(offset, whence)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fills `buffer` from here on; returns the number of bytes."""
        position = self.tell()
        count = super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        # A signature may lie across the end of what is read.
        seen = bytes(view[:count]) + os.pread(self.fileno(), len(_SIGNATURE) - 1, position + count)
        at = seen.find(_SIGNATURE)
        while at >= 0:
            if not self._is_sound(position + at):
                hidden = min(len(_SIGNATURE), count - at)
                view[at : at + hidden] = bytes(hidden)
            at = seen.find(_SIGNATURE, at + 1)
        return count

    def _is_sound(self, address: int) -> bool:
        """Whether the entries of the collection at `address` lead to its end."""
        size = _number(os.pread(self.fileno(), 8, address + 8))
        content = os.pread(self.fileno(), min(size, os.fstat(self.fileno()).st_size), address)
        if len(content) < size:
            return False
        at = _HEADER
        while size - at >= _HEADER:
            index, length = _number(content[at : at + 2]), _number(content[at + 8 : at + 16])
            # Entry 0 is what is free, its header included; others are padded to eight bytes.
            step = _HEADER + -(-length // 8) * 8 if index else length
            if not _HEADER <= step <= size - at:
                return False
            at += step
        return True


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
