"""Whether a flow artifact is sound: its fields fit its attributes, its bytes their checksums, and its values are flow.

Letters: T frames, F = T - step fields, H W pixels.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipelines.interface.wording import percent, plural
from pipelines.optical_flow.grey import to_grey
from pipelines.storage.flow_file import FlowFile
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.frames_file import FrameFile
from pipelines.storage.quantise import dequantise, is_clipped
from pipelines.verification.faults import CheckLevel, FaultFound
from pipelines.verification.orientation import warp
from pipelines.verification.stored_bytes import checked_bytes, has_checksums, stored_chunks

# A constant field of 340x256 takes 40 bytes by Zstandard and 190 by gzip, of 174,080; one with any motion in it takes
# thousands.
_SMALL_SHARE, _SMALL_BYTES = 1 / 500, 64


@dataclass(frozen=True)
class FlowContent:
    """What a sound flow artifact holds."""

    settings: FlowSettings
    fields: int
    """F."""
    width: int
    """W."""
    digests: list[bytes]
    """Of each field, to find equal ones; none unless read."""
    small: list[int]
    """The fields that are constant or close to it, judged by their stored size."""

    @property
    def digest(self) -> str:
        """Of all fields: equal for flow files of equal content and compression; empty unless read, and for flow without
        any motion, which does not identify a video."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest() if len(self.small) < len(self.digests) else ""


def check_flow(file: FlowFile, depth: CheckLevel) -> FlowContent:
    """Checks an open flow artifact.

    Raises:
        FaultFound: The file contradicts itself or its checksums.
        ArtifactError: HDF5 cannot read it.
    """
    dataset, attributes = file.file["flow"], file.attributes
    shape = dataset.shape
    if not shape[0]:
        raise FaultFound("inconsistent", "holds no fields")
    frames, step = attributes["source_frames"], file.settings.step
    if shape[0] != frames - step:
        detail = f"holds {plural(shape[0], 'field')}, but {frames} frames at step {step} make {frames - step}"
        raise FaultFound("inconsistent", detail)
    recorded = attributes.get("height", shape[2]), attributes.get("width", shape[3])
    if shape[2:] != recorded:
        detail = f"its fields are {shape[3]}x{shape[2]}, but its size is {recorded[1]}x{recorded[0]}"
        raise FaultFound("inconsistent", detail)
    if depth == "quick":
        return FlowContent(file.settings, shape[0], shape[3], [], [])

    digests: list[bytes] = []
    small: list[int] = []
    limit = max(_SMALL_BYTES, int(np.prod(shape[1:])) * dataset.dtype.itemsize * _SMALL_SHARE)
    chunks = stored_chunks(dataset, "flow", file.path.stat().st_size)
    if dataset.chunks == (1, *shape[1:]) and has_checksums(dataset, chunks):
        for index, stored in enumerate(checked_bytes(file.path, chunks, "flow")):
            digests.append(_digest(stored))
            if len(stored) <= limit:
                small.append(index)
        if depth == "full":
            _check_content(file)
    else:  # not as stres writes it: HDF5 itself has to read it
        _check_content(file)
        for index in range(shape[0]):
            field = file.read(index, index + 1)
            digests.append(_digest(field.tobytes()))
            if is_constant(field[0]) or field.nbytes <= limit:
                small.append(index)
    return FlowContent(file.settings, len(digests), shape[3], digests, small)


def _check_content(file: FlowFile) -> None:
    content = hashlib.sha256()
    for index in range(len(file)):
        content.update(file.read(index, index + 1).tobytes())
    if content.hexdigest() != file.attributes.get("content_sha256"):
        raise FaultFound("checksum", "its content does not match its content_sha256")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def is_constant(field: np.ndarray) -> bool:
    """Whether each plane of a field [2, H, W] holds one value only."""
    return bool((field == field[:, :1, :1]).all())


# ------------------------------------------------------------------ what the values mean

_SATURATED = 0.5  # of all vectors
_SAMPLED_CONSTANT = 8  # constant fields of a video
_CONTRAST = 10.0  # grey levels: in frames with less (black, fading) no method finds motion
_DIFFERS, _PART = 25, 0.01  # grey levels, and part of the pixels, by which frames differ visibly
_FEWEST_VALUES = 8  # distinct bytes of a field whose repetition means something


def check_saturation(fields: Mapping[int, np.ndarray]) -> None:
    """Raises `FaultFound` if most vectors of the sampled `fields` (index -> levels [2, H, W]) are at the bound."""
    clipped = [is_clipped(field).mean() for field in fields.values()]
    share = float(np.mean(clipped))
    if share > _SATURATED:
        raise FaultFound("saturated flow", f"{percent(share, 0)} % of its vectors are clipped to the bound")


def check_constant(flow: FlowFile, content: FlowContent, frames: FrameFile | None) -> None:
    """Raises `FaultFound` if a field is constant though its two frames differ by more than that motion; without frames,
    if all fields are constant."""
    sampled = content.small[:: max(1, len(content.small) // _SAMPLED_CONSTANT)][:_SAMPLED_CONSTANT]
    constant = [index for index in sampled if is_constant(flow.read(index, index + 1)[0])]
    if frames is None:
        if constant and len(content.small) == content.fields and constant == sampled:
            every = "its only field is" if content.fields == 1 else f"all {content.fields} fields are"
            raise FaultFound("constant flow", f"{every} constant")
        return
    for index in constant:
        vector = dequantise(flow.read(index, index + 1)[0, :, 0, 0], content.settings.bound)
        if not _moved_by(vector, frames.read_one(index), frames.read_one(index + content.settings.step)):
            raise FaultFound("constant flow", f"field {index} is constant, though its frames differ by other motion")


def _moved_by(vector: np.ndarray, frame0: np.ndarray, frame1: np.ndarray) -> bool:
    """Whether everything in RGB frames [H, W, 3] may have moved by this one vector [2], pixels; also True if the frames
    show too little to tell."""
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
    """Raises `FaultFound` if two fields are the same, byte for byte, though their frames are not. Without frames it
    checks nothing: the same picture again has the same flow again."""
    if frames is None:
        return
    step = content.settings.step

    def coded_pair(index: int) -> tuple[bytes, bytes]:
        return frames.read_jpeg(index).tobytes(), frames.read_jpeg(index + step).tobytes()

    by_digest = defaultdict(list)
    for index, digest in enumerate(content.digests):
        by_digest[digest].append(index)
    small = set(content.small)
    repeated = []
    for first, *others in by_digest.values():
        if others and first not in small:
            pair = coded_pair(first)
            repeated += [(first, other) for other in others if coded_pair(other) != pair]
    if repeated and np.unique(flow.read(repeated[0][0], repeated[0][0] + 1)).size >= _FEWEST_VALUES:
        first, other = repeated[0]
        more = f", and {len(repeated) - 1} more" if len(repeated) > 1 else ""
        raise FaultFound("repeated flow", f"fields {first} and {other} are the same{more}, though their frames are not")
