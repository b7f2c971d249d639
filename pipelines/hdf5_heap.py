"""A file for HDF5 to read from that keeps a broken heap from it.

HDF5 (2.0) walks through the entries of a heap, where strings of variable length lie, without looking whether they get
it any further: one flipped bit or a forged entry, and it never returns, deaf to Ctrl-C.
"""

import errno
import io
import os

# "GCOL", version 1, three bytes of nothing: what each collection of such strings begins with. Then its size.
_SIGNATURE = b"GCOL\x01\0\0\0"
_HEADER = 16  # bytes of a collection's header, and of an entry's


class SoundHeaps(io.FileIO):
    """Reads a file; of a heap that HDF5 would not come out of, it gives out no signature, so that HDF5 refuses it."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes there. Raises `OSError`, as for every place that there cannot be, where no file is that long."""
        try:
            return super().seek(offset, whence)
        except OverflowError as error:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL)) from error

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
