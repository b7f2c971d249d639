"""The bytes of a dataset as they are in its file, each chunk compared with its Fletcher-32 checksum.

HDF5 checks a chunk when it reads it, but then decompresses it too. A flow field of 340x256 takes 0.1 ms here and 0.5 ms
there, which decides whether a workspace is read through in minutes or in an hour (docs/verify.md).
"""

from collections.abc import Iterator
from functools import lru_cache
from math import ceil, prod
from pathlib import Path

import h5py
import numpy as np

from pipelines.verification.faults import FaultFound

_CHECKSUM_BYTES = 4
_LARGEST_CHUNK = 1 << 24  # bytes stored, up to which the sums of `fletcher32` stay below 2^63


def stored_chunks(dataset: h5py.Dataset, name: str, file_bytes: int) -> list[h5py.h5d.StoreInfo]:
    """Where the chunks of a dataset are, in the order of their elements; none if it is stored in one piece. Checksums
    count to their `size`.

    Raises:
        FaultFound: Chunks are missing (HDF5 would read zeros there), overlap or extend beyond the end of the file.
    """
    if dataset.chunks is None:
        if dataset.id.get_storage_size() < dataset.nbytes:
            raise FaultFound("inconsistent", f"{name!r} is not all there")
        return []
    chunks: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(chunks.append)
    expected = prod(ceil(extent / side) for extent, side in zip(dataset.shape, dataset.chunks, strict=True))
    if len(chunks) != expected:
        raise FaultFound("inconsistent", f"{name!r} has {len(chunks)} of its {expected} chunks")
    if any(chunk.byte_offset + chunk.size > file_bytes for chunk in chunks):
        raise FaultFound("truncated", f"chunks of {name!r} extend beyond the end of the file")
    if sum(chunk.size for chunk in chunks) > file_bytes:
        raise FaultFound("inconsistent", f"chunks of {name!r} overlap")
    return sorted(chunks, key=lambda chunk: chunk.chunk_offset)


def has_checksums(dataset: h5py.Dataset, chunks: list[h5py.h5d.StoreInfo]) -> bool:
    """Whether every chunk ends with its Fletcher-32 checksum, as in every file that stres writes."""
    filters = dataset.id.get_create_plist()
    last = filters.get_nfilters() - 1
    return (
        len(chunks) > 0
        and last >= 0
        and filters.get_filter(last)[0] == h5py.h5z.FILTER_FLETCHER32
        and all(chunk.filter_mask == 0 and _CHECKSUM_BYTES <= chunk.size <= _LARGEST_CHUNK for chunk in chunks)
    )


def checked_bytes(path: Path, chunks: list[h5py.h5d.StoreInfo], name: str) -> Iterator[bytes]:
    """What each chunk holds, still compressed if it is, without its checksum. Raises `FaultFound` at the first one that
    does not match its checksum."""
    with path.open("rb", buffering=0) as file:
        for number, chunk in enumerate(chunks):
            file.seek(chunk.byte_offset)
            stored = file.read(chunk.size)
            content, checksum = stored[:-_CHECKSUM_BYTES], stored[-_CHECKSUM_BYTES:]
            computed, expected = fletcher32(content), int.from_bytes(checksum, "little")
            # Either half is a sum modulo 65535, of which HDF5 may store 65535 for 0.
            if any((computed >> shift & 0xFFFF) != (expected >> shift & 0xFFFF) % 65535 for shift in (0, 16)):
                raise FaultFound("checksum", f"chunk {number} of {name!r} does not match its checksum")
            yield content


def fletcher32(content: bytes) -> int:
    """HDF5's Fletcher-32 checksum of up to 16 MiB: of big-endian 16-bit words, an odd last byte filled up by zero.

    Either half may also be 65535 where this gives 0: sums are modulo 65535.
    """
    words = np.frombuffer(content + b"\0" * (len(content) % 2), dtype=">u2").astype(np.int64)
    plain = int(words.sum()) % 65535
    weighted = int(words @ _weights(len(words).bit_length())[-len(words) :]) % 65535 if len(words) else 0
    return weighted << 16 | plain


@lru_cache(maxsize=2)
def _weights(bits: int) -> np.ndarray:
    """2^bits, ..., 2, 1: the last n of them are how often each of n words is in the sum of sums."""
    return np.arange(1 << bits, 0, -1, dtype=np.int64)
