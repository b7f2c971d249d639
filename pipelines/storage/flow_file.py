"""The flow artifact, `flow/<class>/<video>.h5`.

Letters: F flow fields, H W pixels.

`flow`: `LEVEL_TYPE` [F, 2, H, W], x then y, quantised by `storage.quantise`; one field a chunk.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.interface.options import Compression
from pipelines.storage.atomic import storage_errors
from pipelines.storage.flow_settings import FlowSettings
from pipelines.storage.hdf5 import HDF5Artifact, HDF5ArtifactWriter, damaged, new_file
from pipelines.storage.jpeg import MOST_PIXELS

if TYPE_CHECKING:
    import h5py
    import numpy as np

FLOW_SCHEMA = "stres/flow/1"


class FlowWriter(HDF5ArtifactWriter):
    """Appends quantised flow fields to a flow artifact. Made by `new_flow_file`."""

    schema = FLOW_SCHEMA

    def __init__(
        self, path: Path, file: "h5py.File", compression: Compression, check: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(path, file, check)
        self.compression = compression
        self.flow: h5py.Dataset | None = None

    def append(self, fields: "np.ndarray") -> None:
        """Adds levels [n, 2, H, W]. Raises `StorageError`."""
        from pipelines.storage.quantise import LEVEL_TYPE  # loads NumPy, which `status` can do without

        with storage_errors(self.path):
            if self.flow is None:
                self.flow = self.file.create_dataset(
                    "flow",
                    shape=(0, *fields.shape[1:]),
                    maxshape=(None, *fields.shape[1:]),
                    chunks=(1, *fields.shape[1:]),
                    dtype=LEVEL_TYPE,
                    fletcher32=True,
                    **_filter(self.compression),
                )
            start = self.flow.shape[0]
            self.flow.resize(start + len(fields), axis=0)
            self.flow[start:] = fields
            self.check()
        self.digest.update(fields.tobytes())


def _filter(compression: Compression) -> dict[str, Any]:
    if compression == "gzip":
        return {"compression": "gzip", "compression_opts": 4}
    from pipelines.storage.hdf5_plugins import hdf5plugin

    return dict(hdf5plugin.Zstd(clevel=3))


@contextlib.contextmanager
def new_flow_file(path: Path, compression: Compression = "zstd") -> Iterator[FlowWriter]:
    """A `FlowWriter` whose file takes its final name only when the block ends without an exception."""
    with new_file(path) as (file, check):
        yield FlowWriter(path, file, compression, check)


class FlowFile(HDF5Artifact):
    """Reads a flow artifact. Raises `ArtifactError` where it is absent, damaged or of another kind."""

    schema = FLOW_SCHEMA
    datasets = ("flow",)

    @classmethod
    def check(cls, file: "h5py.File") -> None:
        from pipelines.storage.quantise import LEVEL_TYPE  # loads NumPy, which `status` can do without

        flow = file["flow"]
        if flow.dtype != LEVEL_TYPE or flow.ndim != 4 or flow.shape[1] != 2:
            raise ValueError(f"'flow' is {flow.dtype} {flow.shape}, not {LEVEL_TYPE} [F, 2, H, W]")
        height, width = flow.shape[2:]
        if not 1 <= height * width <= MOST_PIXELS:
            raise ValueError(f"'flow' is of {width}x{height} pixels")
        if flow.chunks is None:
            stored, claimed = flow.id.get_storage_size(), flow.nbytes
        else:  # a piece that is not in the file would be read as zeros
            if math.prod(flow.chunks) > 4 * MOST_PIXELS:
                raise ValueError(f"'flow' is stored in pieces of {flow.chunks}")
            stored = flow.id.get_num_chunks()
            claimed = math.prod(-(-side // piece) for side, piece in zip(flow.shape, flow.chunks, strict=True))
        if stored < claimed:
            raise ValueError(f"'flow' of {flow.shape} is not all in the file")

    @property
    def settings(self) -> FlowSettings:
        """How its flow was made."""
        with damaged(self.path):
            return FlowSettings.from_attributes(self.attributes)

    def __len__(self) -> int:
        return self.file["flow"].shape[0]

    def read(self, start: int, stop: int) -> "np.ndarray":
        """The quantised fields start..stop-1: levels [stop-start, 2, H, W]."""
        with damaged(self.path):
            fields = self.file["flow"][start:stop]
            if len(fields) != stop - start:
                raise IndexError(f"fields {start}..{stop - 1} of {len(self)}")
            return fields
