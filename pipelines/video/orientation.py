"""How a player rotates and mirrors a video's pictures, by the matrix in its container or codec.

Letters: H W pixels.
"""

import struct
from typing import NamedTuple, Self

import av
import numpy as np

from pipelines.errors import VideoError

_UPRIGHT = 0.02  # of the larger number of a row, up to which the other counts as 0; FFmpeg's player forgives a degree


class Orientation(NamedTuple):
    """What is done to a decoded picture, in this order: rows become columns, left becomes right, top becomes bottom."""

    transposed: bool = False
    mirrored: bool = False
    upended: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Self:
        """The orientation of a decoded frame. Raises `VideoError` unless the rotation is a multiple of 90 degrees."""
        matrix = frame.side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls()
        # Column p and row q of what is decoded are shown in column a*p + c*q and row b*p + d*q, up to a shift.
        a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))  # type: ignore[call-overload]
        straight, across = (abs(a), abs(d)), (abs(b), abs(c))
        if max(across) <= _UPRIGHT * min(straight):
            return cls(False, a < 0, d < 0)
        if max(straight) <= _UPRIGHT * min(across):
            return cls(True, c < 0, b < 0)
        raise VideoError("its rotation is not a multiple of 90 degrees: unsupported")

    def applied(self, picture: np.ndarray) -> np.ndarray:
        """[H, W, 3] as it is shown, a view."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.upended else 1, :: -1 if self.mirrored else 1]

    def __str__(self) -> str:
        done = [name for name, value in self._asdict().items() if value]
        return " and ".join(done) or "upright"
