"""Tensors on their way to another process, in memory that the two share."""

import contextlib
import io
import itertools
import mmap
import os
import pickle
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd, recv_handle, send_handle
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
        with _packed(content) as (file, sizes, rest):
            self._arguments = (DupFd(file), sizes, rest)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, self._arguments


def send_parcel(connection: Connection, content: Any) -> None:
    """Sends what `receive_parcel` gives at the other end of a socket between two processes of this machine.

    The memory goes with it, so that nothing is left where the other end dies: a `Parcel` would wait in the process
    that made it until it is fetched.
    """
    with _packed(content) as (file, sizes, rest):
        connection.send((sizes, rest))
        send_handle(connection, file, 0)  # to whichever process


def receive_parcel(connection: Connection) -> Any:
    sizes, rest = connection.recv()
    return _unpacked(recv_handle(connection), sizes, rest)


@contextlib.contextmanager
def _packed(content: Any) -> Iterator[tuple[int, list[int], bytes]]:
    """A memory file with the tensors, open within the block; their sizes in bytes; and all else, pickled."""
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
        yield file, [piece.nbytes for piece in pieces], rest.getvalue()
    finally:
        os.close(file)


class _Pickler(pickle.Pickler):
    """Takes tensors as NumPy arrays, whose bytes it leaves to the buffers."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, torch.Tensor) else NotImplemented


def _received(handle: Any, sizes: Sequence[int], rest: bytes) -> Any:
    return _unpacked(handle.detach(), sizes, rest)


def _unpacked(file: int, sizes: Sequence[int], rest: bytes) -> Any:
    """What `_packed` was given; closes the file. The memory is freed with the last of the tensors."""
    *starts, end = itertools.accumulate((size + -size % _ALIGNED for size in sizes), initial=0)
    try:
        memory = memoryview(mmap.mmap(file, end)) if end else memoryview(bytearray())
    finally:
        os.close(file)
    return pickle.loads(rest, buffers=[memory[start : start + size] for start, size in zip(starts, sizes, strict=True)])
