"""Tensors on their way to another process, in memory that the two share."""

import io
import itertools
import mmap
import os
import pickle
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any

import torch

_ALIGNED = 64  # bytes: where each array begins


class Parcel:
    """Comes out of a queue or pipe as what was put in, its tensors in memory that the two processes share.

    torch's queue would put them into /dev/shm, of which a container has 64 MB, and in a thread that drops what does not
    fit without a word, so that the other side waits for ever (pytorch/pytorch#5040). A memory file has no such limit,
    and what is refused is an error here, in the thread that sends.
    """

    def __init__(self, content: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        rest = io.BytesIO()
        _Pickler(rest, protocol=5, buffer_callback=buffers.append).dump(content)
        pieces = [buffer.raw() for buffer in buffers]
        file = os.memfd_create("stres", os.MFD_CLOEXEC)
        try:
            with open(file, "wb", closefd=False) as written:
                for piece in pieces:
                    written.write(piece)
                    written.write(bytes(-piece.nbytes % _ALIGNED))
            self._arguments = (DupFd(file), [piece.nbytes for piece in pieces], rest.getvalue())
        finally:
            os.close(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, self._arguments


class _Pickler(pickle.Pickler):
    """Takes tensors as NumPy arrays, whose bytes it leaves to the buffers."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, torch.Tensor) else NotImplemented


def _unpacked(handle: Any, sizes: Sequence[int], rest: bytes) -> Any:
    """What was put into a `Parcel`; the memory is freed with the last of its tensors."""
    file = handle.detach()
    *starts, end = itertools.accumulate((size + -size % _ALIGNED for size in sizes), initial=0)
    try:
        memory = memoryview(mmap.mmap(file, end)) if end else memoryview(bytearray())
    finally:
        os.close(file)
    return pickle.loads(rest, buffers=[memory[start : start + size] for start, size in zip(starts, sizes, strict=True)])
