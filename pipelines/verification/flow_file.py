"""Whether a flow artifact is whole: its fields fit its attributes, and its bytes their checksums.

Letters: T frames, F = T - step fields, H W pixels.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.optical_flow.grey import to_grey
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.quantise import dequantise
from pipelines.verification.faults import Broken, Depth
from pipelines.verification.orientation import warp
from pipelines.verification.stored_bytes import checked_bytes, has_checksums, stored_chunks
from pipelines.wording import percent

# A constant field of 340x256 takes 40 bytes by Zstandard and 190 by gzip, of 174,080; one with any motion in it takes
# thousands.
_SMALL_SHARE, _SMALL_BYTES = 1 / 500, 64


@dataclass(frozen=True)
class FlowContent:
    """What a sound flow artifact holds: `fields` of them, F, `width` pixels wide, W. `digests` tells equal fields, none
    unless read; `small`: the fields that are constant or close to it, by the room they take."""

    settings: FlowSettings
    fields: int
    width: int
    digests: list[bytes]
    small: list[int]

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
    shape = _checked_shape(file)
    if depth == "quick":
        return FlowContent(file.settings, shape[0], shape[3], [], [])
    dataset = file.file["flow"]
    chunks = stored_chunks(dataset, "flow", file.path.stat().st_size)
    if dataset.chunks == (1, *shape[1:]) and has_checksums(dataset, chunks):
        stored = list(_digests(checked_bytes(file.path, chunks, "flow")))
        if depth == "full":
            _check_content(file)
        return _content(file.settings, stored, shape)
    # Not as stres writes it: HDF5 itself has to read it.
    _check_content(file)
    fields = (file.read(index, index + 1) for index in range(shape[0]))
    digests = [(_digest(field.tobytes()), 0 if is_constant(field[0]) else field.size) for field in fields]
    return _content(file.settings, digests, shape)


def _checked_shape(file: FlowFile) -> tuple[int, ...]:
    dataset, attributes = file.file["flow"], file.attributes
    shape = dataset.shape
    if dataset.dtype != np.uint8 or len(shape) != 4 or shape[1] != 2 or 0 in shape:
        raise Broken("inconsistent", f"`flow` is {dataset.dtype} {shape}, not uint8 [F, 2, H, W]")
    frames, step = attributes["source_frames"], file.settings.step
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


def _check_content(file: FlowFile) -> None:
    content = hashlib.sha256()
    for index in range(len(file)):
        content.update(file.read(index, index + 1).tobytes())
    if content.hexdigest() != file.attributes.get("content_sha256"):
        raise Broken("checksum", "its content does not match its content_sha256")


def _digests(stored: Iterator[bytes]) -> Iterator[tuple[bytes, int]]:
    return ((_digest(content), len(content)) for content in stored)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _content(settings: FlowSettings, stored: list[tuple[bytes, int]], shape: tuple[int, ...]) -> FlowContent:
    limit = max(_SMALL_BYTES, int(np.prod(shape[1:])) * _SMALL_SHARE)
    small = [index for index, (_, size) in enumerate(stored) if size <= limit]
    return FlowContent(settings, len(stored), shape[3], [digest for digest, _ in stored], small)


def is_constant(field: np.ndarray) -> bool:
    """Whether both planes of a field [2, H, W] hold one value each."""
    return bool((field == field[:, :1, :1]).all())


_SATURATED = 0.5  # of all vectors
_LOOKED_AT = 8  # constant fields of a video
_CONTRAST = 10.0  # grey levels: in frames with less (black, fading) no method finds motion
_DIFFERS, _PART = 25, 0.01  # grey levels, and part of the pixels, by which frames differ visibly
_FEWEST_VALUES = 8  # distinct bytes of a field that tells something when it comes twice


def check_saturation(fields: Mapping[int, np.ndarray]) -> None:
    """Raises `Broken` where most vectors of the sampled `fields` (index -> uint8 [2, H, W]) are at the bound."""
    clipped = [((field == 0) | (field == 255)).any(axis=0).mean() for field in fields.values()]
    share = float(np.mean(clipped))
    if share > _SATURATED:
        raise Broken("saturated flow", f"{percent(share, 0)} % of its vectors are clipped to the bound")


def check_constant(flow: FlowFile, content: FlowContent, frames: FrameFile | None) -> None:
    """Raises `Broken` where a field is constant though its two frames differ by more than that motion; without frames,
    where all fields are constant."""
    some = content.small[:: max(1, len(content.small) // _LOOKED_AT)][:_LOOKED_AT]
    constant = [index for index in some if is_constant(flow.read(index, index + 1)[0])]
    if frames is None:
        if constant and len(content.small) == content.fields and constant == some:
            raise Broken("constant flow", f"all {content.fields} fields are constant")
        return
    for index in constant:
        vector = dequantise(flow.read(index, index + 1)[0, :, 0, 0], content.settings.bound)
        if not _moved_by(vector, frames.read_one(index), frames.read_one(index + content.settings.step)):
            raise Broken("constant flow", f"field {index} is constant, though its frames differ by other motion")


def _moved_by(vector: np.ndarray, frame0: np.ndarray, frame1: np.ndarray) -> bool:
    """Whether RGB frames [H, W, 3] could differ by this one motion [2], pixels, of everything, or show too little to
    tell."""
    greys = [to_grey(frame).astype(np.float32) for frame in (frame0, frame1)]
    if min(float(grey.std()) for grey in greys) < _CONTRAST:
        return True
    height, width = greys[0].shape
    places = np.mgrid[:height, :width][::-1].astype(np.float32)
    x, y = places + vector[:, None, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    differences = np.abs(warp(greys[1], places, vector[:, None, None]) - greys[0])
    return bool(inside.any() and (differences[inside] > _DIFFERS).mean() <= _PART)


def check_repeated(flow: FlowFile, content: FlowContent, frames: FrameFile | None) -> None:
    """Raises `Broken` where two fields are the same, byte for byte, though their frames are not; judged by frames only:
    a picture that comes again has the same flow again."""
    if frames is None:
        return
    places = defaultdict(list)
    for index, digest in enumerate(content.digests):
        places[digest].append(index)
    small = set(content.small)
    twice = []
    for first, *others in places.values():
        if not others or first in small:
            continue
        pair = _pair(frames, first, content.settings.step)
        twice += [(first, other) for other in others if _pair(frames, other, content.settings.step) != pair]
    if twice and np.unique(flow.read(twice[0][0], twice[0][0] + 1)).size >= _FEWEST_VALUES:
        first, other = twice[0]
        more = f", and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise Broken("repeated flow", f"fields {first} and {other} are the same{more}, though their frames are not")


def _pair(frames: FrameFile, index: int, step: int) -> tuple[bytes, bytes]:
    """The two frames of a field, as they are coded."""
    return frames.read_jpeg(index).tobytes(), frames.read_jpeg(index + step).tobytes()
