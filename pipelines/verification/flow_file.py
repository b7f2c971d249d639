"""Whether a flow artifact is whole: its fields fit its attributes, and its bytes their checksums.

Letters: T frames, F = T - step fields, H W pixels.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.artifacts import FlowFile, method_parameters
from pipelines.verification.depth import Depth
from pipelines.verification.faults import Broken
from pipelines.verification.stored_bytes import checked_bytes, has_checksums, stored_chunks

# A constant field of 340x256 takes 40 bytes by Zstandard and 190 by gzip, of 174,080; one with any motion in it takes
# thousands.
_SMALL_SHARE, _SMALL_BYTES = 1 / 500, 64


@dataclass(frozen=True)
class FlowContent:
    """What a sound flow artifact holds: `fields` of them, F, `width` pixels wide, W. `digests` tells equal fields, none
    unless read; `small`: the fields that are constant or close to it, by the room they take."""

    attributes: dict[str, Any]
    fields: int
    width: int
    digests: list[bytes]
    small: list[int]

    @property
    def step(self) -> int:
        return self.attributes["step"]

    @property
    def bound(self) -> float:
        return self.attributes["bound"]

    @property
    def has_motion(self) -> bool:
        """Whether any field is more than constant; False unless read."""
        return len(self.small) < len(self.digests)

    @property
    def digest(self) -> str:
        """Of all fields: equal for flow files of equal content and compression; empty unless read."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest() if self.digests else ""


def check_flow(file: FlowFile, depth: Depth) -> FlowContent:
    """Checks an open flow artifact. Raises `Broken`, `ArtifactError`."""
    attributes = file.attributes
    shape = _checked_shape(file, attributes)
    if depth == "quick":
        return FlowContent(attributes, shape[0], shape[3], [], [])
    dataset = file.file["flow"]
    chunks = stored_chunks(dataset, "flow", file.path.stat().st_size)
    if dataset.chunks == (1, *shape[1:]) and has_checksums(dataset, chunks):
        stored = list(_digests(checked_bytes(file.path, chunks, "flow")))
        if depth == "full":
            _check_content(file, attributes)
        return _content(attributes, stored, shape)
    # Not as stres writes it: HDF5 itself has to read it.
    _check_content(file, attributes)
    fields = (file.read(index, index + 1) for index in range(shape[0]))
    digests = [(_digest(field.tobytes()), 0 if is_constant(field[0]) else field.size) for field in fields]
    return _content(attributes, digests, shape)


def _checked_shape(file: FlowFile, attributes: dict[str, Any]) -> tuple[int, ...]:
    dataset = file.file["flow"]
    shape = dataset.shape
    if dataset.dtype != np.uint8 or len(shape) != 4 or shape[1] != 2 or 0 in shape:
        raise Broken("inconsistent", f"`flow` is {dataset.dtype} {shape}, not uint8 [F, 2, H, W]")
    frames, step, bound = attributes["source_frames"], attributes["step"], attributes["bound"]
    if not isinstance(step, int) or step < 1 or not 0 < bound < float("inf"):
        raise Broken("inconsistent", f"its step is {step!r} and its bound {bound!r}")
    if not isinstance(method_parameters(attributes), dict):
        raise Broken("inconsistent", "its method_parameters are no JSON object")
    if shape[0] != frames - step:
        raise Broken(
            "inconsistent", f"holds {shape[0]} fields, but {frames} frames at step {step} make {frames - step}"
        )
    recorded = attributes.get("height", shape[2]), attributes.get("width", shape[3])
    if shape[2:] != recorded:
        raise Broken(
            "inconsistent", f"its fields are {shape[3]}x{shape[2]}, but its size is {recorded[1]}x{recorded[0]}"
        )
    return shape


def _check_content(file: FlowFile, attributes: dict[str, Any]) -> None:
    content = hashlib.sha256()
    for index in range(len(file)):
        content.update(file.read(index, index + 1).tobytes())
    if content.hexdigest() != attributes.get("content_sha256"):
        raise Broken("checksum", "its content does not match its content_sha256")


def _digests(stored: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    return ((_digest(content), len(content)) for content in stored)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _content(attributes: dict[str, Any], stored: list[tuple[bytes, int]], shape: tuple[int, ...]) -> FlowContent:
    limit = max(_SMALL_BYTES, int(np.prod(shape[1:])) * _SMALL_SHARE)
    small = [index for index, (_, size) in enumerate(stored) if size <= limit]
    return FlowContent(attributes, len(stored), shape[3], [digest for digest, _ in stored], small)


def is_constant(field: np.ndarray) -> bool:
    """Whether both planes of a field [2, H, W] hold one value each."""
    return bool((field == field[:, :1, :1]).all())
