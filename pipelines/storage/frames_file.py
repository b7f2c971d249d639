"""The frames artifact, `frames/<class>/<video>.h5`.

Letters: T frames, H W pixels.

`jpeg`: uint8 [bytes], the JPEGs of all RGB frames end to end; `offsets`: int64 [T+1].
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.storage.atomic import storage_errors
from pipelines.storage.hdf5 import HDF5Artifact, HDF5ArtifactWriter, damaged, new_file, require_plain_vector
from pipelines.storage.jpeg import JPEG_QUALITY

if TYPE_CHECKING:
    import h5py
    import numpy as np

FRAMES_SCHEMA = "stres/frames/1"


class FrameWriter(HDF5ArtifactWriter):
    """Appends JPEG-coded frames to a frames artifact. Made by `new_frames_file`."""

    schema = FRAMES_SCHEMA

    def __init__(self, path: Path, file: "h5py.File", check: Callable[[], None] = lambda: None) -> None:
        super().__init__(path, file, check)
        self.offsets = [0]
        with storage_errors(path):
            self.jpeg = file.create_dataset(
                "jpeg", shape=(0,), maxshape=(None,), dtype="u1", chunks=(1 << 16,), fletcher32=True
            )

    def append(self, jpeg: "np.ndarray") -> None:
        """Adds one coded frame: uint8 [bytes]. Raises `StorageError`."""
        start = self.offsets[-1]
        self.offsets.append(start + jpeg.size)
        self.digest.update(jpeg.tobytes())
        with storage_errors(self.path):
            self.jpeg.resize((self.offsets[-1],))
            self.jpeg[start:] = jpeg
            self.check()

    def finish(self, attributes: Mapping[str, Any], times: "np.ndarray | None" = None) -> None:
        """Writes the offsets, all attributes and the times. Raises `StorageError`."""
        import numpy as np

        offsets = np.array(self.offsets, dtype="<i8")
        self.digest.update(offsets.tobytes())
        with storage_errors(self.path):
            self.file.create_dataset("offsets", data=offsets, fletcher32=True, chunks=offsets.shape)
        super().finish({"jpeg_quality": JPEG_QUALITY, **attributes}, times)


@contextlib.contextmanager
def new_frames_file(path: Path) -> Iterator[FrameWriter]:
    """A `FrameWriter` whose file takes its final name only when the block ends without an exception."""
    with new_file(path) as (file, check):
        yield FrameWriter(path, file, check)


class FrameFile(HDF5Artifact):
    """Reads a frames artifact. Raises `ArtifactError` where it is absent, damaged or of another kind."""

    schema = FRAMES_SCHEMA
    datasets = ("jpeg", "offsets")

    @classmethod
    def check(cls, file: "h5py.File") -> None:
        for name, kind in (("jpeg", "u1"), ("offsets", "i8")):
            require_plain_vector(file, name, kind)
        if len(file["offsets"]) == 0:
            raise ValueError("'offsets' is empty")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with damaged(path):
            self.offsets = self.file["offsets"][:]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, indices: Sequence[int], long_side: int | None = None) -> list["np.ndarray"]:
        """The RGB frames of these indices, each uint8 [H, W, 3]; with `long_side` made smaller as by `decode_jpeg`."""
        from pipelines.storage.jpeg import decode_jpeg

        pictures = []
        with damaged(self.path):
            stored = self.file["jpeg"]  # as long as it is open, HDF5 keeps the pieces in which frames lie
            for index in map(int, indices):
                picture = decode_jpeg(self._coded(stored, index), long_side)
                if picture is None:
                    raise ValueError(f"frame {index} is not a JPEG")
                pictures.append(picture)
        return pictures

    def read_one(self, index: int) -> "np.ndarray":
        """One RGB frame, uint8 [H, W, 3]."""
        return self.read([index])[0]

    def read_jpeg(self, index: int) -> "np.ndarray":
        """One frame as JPEG, uint8 [bytes]."""
        with damaged(self.path):
            return self._coded(self.file["jpeg"], index)

    def _coded(self, stored: "h5py.Dataset", index: int) -> "np.ndarray":
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        start, stop = self.offsets[index : index + 2]
        if not 0 <= start <= stop <= len(stored):
            raise ValueError(f"frame {index} is said to lie at bytes {start} to {stop}")
        return stored[start:stop]
