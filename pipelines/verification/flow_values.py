"""Whether the values of a flow artifact are what motion looks like: not constant, not clipped, no field twice.

Such flow can be right: of a still picture, of one that repeats. Where there are frames they decide.

Letters: F fields, H W pixels.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from pipelines.artifacts import FlowFile, FrameFile
from pipelines.optical_flow.grey import to_grey
from pipelines.optical_flow.quantise import dequantise
from pipelines.percentages import percent
from pipelines.verification.faults import Broken
from pipelines.verification.flow_file import FlowContent, is_constant
from pipelines.verification.warping import warp

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
        vector = dequantise(flow.read(index, index + 1)[0, :, 0, 0], content.bound)
        if not _moved_by(vector, frames.read_one(index), frames.read_one(index + content.step)):
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
        pair = _pair(frames, first, content.step)
        twice += [(first, other) for other in others if _pair(frames, other, content.step) != pair]
    if twice and np.unique(flow.read(twice[0][0], twice[0][0] + 1)).size >= _FEWEST_VALUES:
        first, other = twice[0]
        more = f", and {len(twice) - 1} more" if len(twice) > 1 else ""
        raise Broken("repeated flow", f"fields {first} and {other} are the same{more}, though their frames are not")


def _pair(frames: FrameFile, index: int, step: int) -> tuple[bytes, bytes]:
    """The two frames of a field, as they are coded."""
    return frames.read_jpeg(index).tobytes(), frames.read_jpeg(index + step).tobytes()
