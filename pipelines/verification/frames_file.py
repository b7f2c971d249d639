"""Whether a frames artifact is sound: its datasets fit each other, its bytes their checksums, its pictures their size.

Letters: T frames, H W pixels.
"""

import hashlib
from collections.abc import Iterator

import numpy as np

from pipelines.interface.wording import plural
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.hdf5 import damaged
from pipelines.storage.jpeg import decode_jpeg
from pipelines.verification.faults import CheckLevel, FaultFound
from pipelines.verification.stored_bytes import checked_bytes, has_checksums, stored_chunks

_PIECE = 1 << 20  # bytes read at once where HDF5 itself has to check them


def check_frames(file: FrameFile, depth: CheckLevel) -> None:
    """Checks an open frames artifact.

    Raises:
        FaultFound: The file contradicts itself or its checksums.
        ArtifactError: HDF5 cannot read it.
    """
    attributes, offsets, size = file.attributes, file.offsets, file.file["jpeg"].size
    if file.file["jpeg"].dtype != np.uint8 or offsets.ndim != 1 or offsets.dtype.kind != "i" or len(offsets) < 2:
        raise FaultFound("inconsistent", "its datasets are not `jpeg` uint8 [bytes] and `offsets` int64 [T+1]")
    if offsets[0] != 0 or (np.diff(offsets) <= 0).any() or offsets[-1] != size:
        raise FaultFound("inconsistent", f"its offsets do not divide the {size} bytes of its JPEGs into frames")
    if len(file) != attributes["source_frames"]:
        raise FaultFound(
            "inconsistent", f"holds {plural(len(file), 'frame')}, but was made from {attributes['source_frames']}"
        )
    if depth == "quick":
        return
    content = hashlib.sha256()
    for index, jpeg in enumerate(_jpegs(file)):
        if not jpeg.startswith(b"\xff\xd8"):
            raise FaultFound("damaged", f"frame {index} is not a JPEG")
        if index == 0 or depth == "full":
            picture = decode_jpeg(np.frombuffer(jpeg, dtype=np.uint8))
            if picture is None:
                raise FaultFound("damaged", f"frame {index} does not decode")
            height, width = picture.shape[:2]
            recorded = attributes.get("width", width), attributes.get("height", height)
            if (width, height) != recorded:
                detail = f"frame {index} is {width}x{height}, but its size is {recorded[0]}x{recorded[1]}"
                raise FaultFound("inconsistent", detail)
        content.update(jpeg)
    content.update(offsets.astype("<i8").tobytes())
    if content.hexdigest() != attributes.get("content_sha256"):
        raise FaultFound("checksum", "its content does not match its content_sha256")


def _jpegs(file: FrameFile) -> Iterator[bytes]:
    """The T JPEGs, from bytes that match their checksums; a long video is never in memory as a whole."""
    held = b""
    pieces = _pieces(file)
    for length in np.diff(file.offsets).tolist():
        parts, size = [held], len(held)
        while size < length:
            parts.append(next(pieces))
            size += len(parts[-1])
        joined = b"".join(parts)
        yield joined[:length]
        held = joined[length:]
    for _ in pieces:  # chunks behind the last frame have checksums too
        pass


def _pieces(file: FrameFile) -> Iterator[bytes]:
    """The content of `jpeg` in order; the last piece may be longer, filled up to a whole chunk."""
    dataset = file.file["jpeg"]
    chunks = stored_chunks(dataset, "jpeg", file.path.stat().st_size)
    if has_checksums(dataset, chunks) and dataset.id.get_create_plist().get_nfilters() == 1:
        yield from checked_bytes(file.path, chunks, "jpeg")
        return
    for start in range(0, dataset.size, _PIECE):
        with damaged(file.path):
            piece = dataset[start : start + _PIECE].tobytes()
        yield piece
