"""The two HDF5 artifacts, frames and flow: written whole, read in pieces, trusted only after a look.

Letters: T frames, F flow fields, H W pixels.

`frames/<class>/<video>.h5`  `jpeg`: uint8 [bytes], the JPEGs of all RGB frames end to end; `offsets`: int64 [T+1].
`flow/<class>/<video>.h5`    `flow`: uint8 [F, 2, H, W], x then y, quantised by
                             `optical_flow.quantise`; one field a chunk.
Both                         `times`: float64 [T], when each frame of the source is shown, in seconds from the first.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from pipelines import __version__
from pipelines.errors import MissingError
from pipelines.hdf5_heap import SoundHeaps
from pipelines.unfailing_file import UnfailingFile
from pipelines.workspace import atomic_file, storage_errors

if TYPE_CHECKING:
    import h5py
    import numpy as np

FRAMES_SCHEMA = "stres/frames/1"
FLOW_SCHEMA = "stres/flow/1"
JPEG_QUALITY = 95  # the paper's frames are JPEGs too (paper.md 1.1)

MOST_PIXELS = 1 << 26  # of a picture: 8192x8192; 8K video has half as many
# What the system says where a file may well be whole.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE)
_MOST_LINKS = 1000  # in a file: each is looked at
_CHUNK_CACHE = 1 << 18  # bytes a data set: one flow field of 341x256, of which readers keep hundreds of files open

Compression = Literal["zstd", "gzip"]


class ArtifactError(MissingError):
    """An artifact is absent, damaged or not what its name says."""


class SchemaError(ArtifactError):
    """An artifact is of another kind, or of another version of stres."""


# ------------------------------------------------------------------ writing


class _ArtifactWriter:
    """Shared by both writers: hashing of the content, attributes, and errors of the disk named as such."""

    schema: str

    def __init__(self, path: Path, file: "h5py.File", check: Callable[[], None]) -> None:
        self.path = path
        self.file = file
        self.check = check
        self.digest = hashlib.sha256()

    def finish(self, attributes: Mapping[str, Any], times: "np.ndarray | None" = None) -> None:
        """Writes all attributes and, if given, when each frame is shown. Raises `StorageError`.

        `content_sha256` is not of the times: the same frames in another container are still the same.
        """
        with storage_errors(self.path):
            if times is not None:
                self.file.create_dataset("times", data=times.astype("<f8"), fletcher32=True, chunks=times.shape)
            complete = {
                "schema": self.schema,
                "stres_version": __version__,
                "content_sha256": self.digest.hexdigest(),
                **attributes,
            }
            for name, value in sorted(complete.items()):
                self.file.attrs[name] = value


class FrameWriter(_ArtifactWriter):
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


class FlowWriter(_ArtifactWriter):
    """Appends quantised flow fields to a flow artifact. Made by `new_flow_file`."""

    schema = FLOW_SCHEMA

    def __init__(
        self, path: Path, file: "h5py.File", compression: Compression, check: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(path, file, check)
        self.compression = compression
        self.flow: h5py.Dataset | None = None

    def append(self, fields: "np.ndarray") -> None:
        """Adds uint8 [n, 2, H, W]. Raises `StorageError`."""
        with storage_errors(self.path):
            if self.flow is None:
                self.flow = self.file.create_dataset(
                    "flow",
                    shape=(0, *fields.shape[1:]),
                    maxshape=(None, *fields.shape[1:]),
                    chunks=(1, *fields.shape[1:]),
                    dtype="u1",
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
    from pipelines.hdf5_plugins import hdf5plugin

    return dict(hdf5plugin.Zstd(clevel=3))


@contextlib.contextmanager
def new_frames_file(path: Path) -> Iterator[FrameWriter]:
    """A `FrameWriter` whose file takes its final name only when the block ends without an exception."""
    with _new_checked_file(path) as (file, check):
        yield FrameWriter(path, file, check)


@contextlib.contextmanager
def new_flow_file(path: Path, compression: Compression = "zstd") -> Iterator[FlowWriter]:
    """A `FlowWriter` whose file takes its final name only when the block ends without an exception."""
    with _new_checked_file(path) as (file, check):
        yield FlowWriter(path, file, compression, check)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator["h5py.File"]:
    """An HDF5 file to write, which takes its final name only when the block ends without an exception.

    Raises `StorageError` where writing fails, at the end of the block.
    """
    with _new_checked_file(path) as (file, _):
        yield file


@contextlib.contextmanager
def _new_checked_file(path: Path) -> Iterator[tuple["h5py.File", Callable[[], None]]]:
    """The new file and a function that raises the `OSError` of a write that has failed, for those who cannot wait."""
    import h5py

    with atomic_file(path) as temporary:
        with storage_errors(path):
            disk = UnfailingFile(temporary)
        with contextlib.closing(disk):
            with h5py.File(disk, "w") as file:
                yield file, disk.check
            with storage_errors(path):
                disk.check()


# ------------------------------------------------------------------ reading


class _ArtifactFile:
    """An open artifact. Open it in the process that reads it: HDF5 handles do not survive a fork."""

    schema: str
    datasets: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        kind: Any = type(self)  # for mypy, which does not know that classes can be hashed
        _examine(path, kind, _state(path))
        self.file = _opened(path)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """All attributes. Read on demand: they take longer than opening the file, and training needs none."""
        return read_attributes(self.file, self.path, self.schema)

    @cached_property
    def times(self) -> "np.ndarray":
        """When each frame of the source is shown, in seconds from the first: float64 [T]. Files of stres 0.1.0 do not
        hold it: there it follows from their rate, or from 25 frames a second where that is unknown."""
        from pipelines.video.timing import even_times

        with damaged(self.path):
            frames = int(self.attributes["source_frames"])
            if "times" not in self.file:
                return even_times(frames, float(self.attributes.get("fps", 0)))
            times = self.file["times"][:]
            if len(times) != frames:
                raise ValueError(f"it has times of {len(times)} frames, but was made from {frames}")
            return times

    @classmethod
    def check(cls, file: "h5py.File") -> None:
        """Raises what `damaged` turns into an `ArtifactError` where the data sets are not what readers rely on."""
        raise NotImplementedError

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FrameFile(_ArtifactFile):
    """Reads a frames artifact. Raises `ArtifactError` where it is absent, damaged or of another kind."""

    schema = FRAMES_SCHEMA
    datasets = ("jpeg", "offsets")

    @classmethod
    def check(cls, file: "h5py.File") -> None:
        for name, kind in (("jpeg", "u1"), ("offsets", "i8")):
            _require_plain_vector(file, name, kind)
        if len(file["offsets"]) == 0:
            raise ValueError("'offsets' is empty")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with damaged(path):
            self.offsets = self.file["offsets"][:]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, indices: Sequence[int]) -> list["np.ndarray"]:
        """The RGB frames of these indices, each uint8 [H, W, 3]."""
        return [self.read_one(int(index)) for index in indices]

    def read_jpeg(self, index: int) -> "np.ndarray":
        """One frame as it is coded, uint8 [bytes]."""
        with damaged(self.path):
            if not 0 <= index < len(self):
                raise IndexError(f"frame {index} of {len(self)}")
            start, stop = self.offsets[index : index + 2]
            if not 0 <= start <= stop <= len(self.file["jpeg"]):
                raise ValueError(f"frame {index} is said to lie at bytes {start} to {stop}")
            return self.file["jpeg"][start:stop]

    def read_one(self, index: int) -> "np.ndarray":
        """One RGB frame, uint8 [H, W, 3]."""
        from pipelines.video.jpeg import decode_jpeg

        jpeg = self.read_jpeg(index)
        with damaged(self.path):
            picture = decode_jpeg(jpeg)
            if picture is None:
                raise ValueError(f"frame {index} is not a JPEG")
            return picture


class FlowFile(_ArtifactFile):
    """Reads a flow artifact. Raises `ArtifactError` where it is absent, damaged or of another kind."""

    schema = FLOW_SCHEMA
    datasets = ("flow",)

    @classmethod
    def check(cls, file: "h5py.File") -> None:
        flow = file["flow"]
        if flow.dtype != "u1" or flow.ndim != 4 or flow.shape[1] != 2:
            raise ValueError(f"'flow' is {flow.dtype} {flow.shape}, not uint8 [F, 2, H, W]")
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

    def __len__(self) -> int:
        return self.file["flow"].shape[0]

    def read(self, start: int, stop: int) -> "np.ndarray":
        """The quantised fields start..stop-1: uint8 [stop-start, 2, H, W]."""
        with damaged(self.path):
            fields = self.file["flow"][start:stop]
            if len(fields) != stop - start:
                raise IndexError(f"fields {start}..{stop - 1} of {len(self)}")
            return fields


def _require_plain_vector(file: "h5py.File", name: str, kind: str) -> None:
    """Raises `ValueError` unless the data set is one-dimensional, of that type and all in the file."""
    dataset = file[name]
    if dataset.dtype != kind or dataset.ndim != 1:
        raise ValueError(f"{name!r} is {dataset.dtype} {dataset.shape}")
    # It is not compressed, so that what is not in the file is only claimed.
    if dataset.id.get_storage_size() < dataset.nbytes:
        raise ValueError(f"{name!r} claims {dataset.nbytes} bytes and has {dataset.id.get_storage_size()}")


def _state(path: Path) -> tuple[int, int, int]:
    """By what a changed file shows. Raises `ArtifactError` where there is none."""
    with _openable(path):
        status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=1 << 17)  # training opens the same ones again and again; about 100 MB of so many
def _examine(path: Path, kind: Any, state: tuple[int, int, int]) -> None:
    """Raises `ArtifactError` where the file, in this state, is not what the class `kind` reads, or not safe to read."""
    with open_file(path) as file:
        check_schema(file, path, kind.schema)
        with damaged(path):
            times = ("times",) if "times" in set(file) else ()  # `in file` would follow a link out
        require_own_data(file, (*kind.datasets, *times), path)
        with damaged(path):
            kind.check(file)
            for name in times:
                _require_plain_vector(file, name, "f8")


@contextlib.contextmanager
def open_file(path: Path) -> "Iterator[h5py.File]":
    """The HDF5 file, open for reading with care. Raises `ArtifactError` where it is absent or damaged."""
    with _openable(path):
        raw = SoundHeaps(path)
    # In this order: HDF5 ends the process when it closes a file after what it reads from.
    with raw, _opened(path, raw) as file:
        yield file


def _opened(path: Path, raw: SoundHeaps | None = None) -> "h5py.File":
    """The file at `path`, read through `raw` if given."""
    from pipelines.hdf5_plugins import h5py

    options: dict[str, Any] = {} if raw else {"locking": False}
    with _openable(path):
        return h5py.File(raw or path, "r", rdcc_nbytes=_CHUNK_CACHE, **options)


@contextlib.contextmanager
def _openable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run the stage that makes it again") from None
    except OSError as error:
        if error.errno in _REFUSED:
            raise ArtifactError(
                f"{path} cannot be read ({os.strerror(error.errno)}): see to that and run the same command again; the "
                "file itself may be whole"
            ) from error
        raise ArtifactError(f"{path} is damaged ({error}): delete it and run the stage that makes it again") from error


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turns whatever HDF5 raises while it reads a broken file into an `ArtifactError`."""
    try:
        yield
    except (OSError, KeyError, ValueError, IndexError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): delete it and run the stage that makes it again") from error


def check_schema(file: "h5py.File", path: Path, schema: str) -> None:
    """Raises `ArtifactError` where the file is of another schema."""
    with damaged(path):
        found = _attribute(file, "schema") if "schema" in file.attrs else None
    _require_schema(found, path, schema)


def _require_schema(found: Any, path: Path, schema: str) -> None:
    if found != schema:
        raise SchemaError(f"{path} has the schema {found!r}, not {schema!r}: make it again with this version of stres")


def read_attributes(file: "h5py.File", path: Path, schema: str, names: Collection[str] | None = None) -> dict[str, Any]:
    """The attributes, or those of `names` that there are, as plain Python values. Raises `ArtifactError` where the
    schema is another."""
    from h5py import h5a

    with damaged(path):
        stored: list[bytes] = []
        h5a.iterate(file.id, stored.append)
        wanted = None if names is None else {"schema", *names}
        attributes = {
            name: _attribute(file, name) for name in map(os.fsdecode, stored) if wanted is None or name in wanted
        }
    _require_schema(attributes.get("schema"), path, schema)
    return attributes


def _attribute(file: "h5py.File", name: str) -> Any:
    """One attribute as a plain Python value.

    Whole numbers, floats and text as we write them are read by h5py's lower layer, in half the time of `file.attrs`: a
    catalogue may begin with 400,000 files of a dozen each.
    """
    import numpy as np
    from h5py import h5a, h5t, string_dtype

    attribute = h5a.open(file.id, os.fsencode(name))
    kind = attribute.get_type()
    if attribute.shape == ():
        for ours, here, buffer in (
            (h5t.STD_I64LE, h5t.NATIVE_INT64, np.int64),
            (h5t.IEEE_F64LE, h5t.NATIVE_DOUBLE, np.float64),
        ):
            if kind.equal(ours):
                number = np.empty((), buffer)
                attribute.read(number, here)
                return number.item()
        if kind == _text_type():
            text = np.empty((), string_dtype())
            attribute.read(text)
            return text.item().decode("utf-8", "surrogateescape")
    _require_plain_type(kind, name)
    value = file.attrs[name]
    return value.tolist() if hasattr(value, "tolist") else value


def _require_plain_type(kind: "h5py.h5t.TypeID", name: str) -> None:
    """Refuses all types but numbers and text: HDF5 (2.0) crashes while it converts some damaged ones, and there are
    references to other things."""
    from h5py import h5t

    is_number = kind.get_class() in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM)
    is_fixed_text = isinstance(kind, h5t.TypeStringID) and not kind.is_variable_str()
    if not (is_number or is_fixed_text or kind == _text_type()):
        raise ValueError(f"{name!r} is neither of numbers nor of text")


@lru_cache(maxsize=1)
def _text_type() -> "h5py.h5t.TypeID":
    """Of the text that we write: UTF-8 of any length."""
    from h5py import h5t, string_dtype

    return h5t.py_create(string_dtype("utf-8"), logical=True)


def peek(path: Path, schema: str, names: Collection[str] | None = None) -> dict[str, Any]:
    """The attributes of an artifact, or those of `names`, without its data. Raises `ArtifactError`."""
    with open_file(path) as file:
        return read_attributes(file, path, schema, names)


def require_own_data(file: "h5py.File", names: Collection[str], path: Path) -> None:
    """Refuses a file unless `names` are data sets of its own, of numbers or text; and one with anything, be it never
    read, that could make HDF5 read another file: links out, external storage, virtual data sets."""
    with damaged(path):
        if set(file) - set(names):
            everything: list[str] = []
            file.visit_links(everything.append)  # an exception in what it calls would be lost
            if len(everything) > _MOST_LINKS:
                raise ValueError(f"{len(everything)} groups and data sets are in it, where 3 are enough")
            for name in everything:
                _require_kept_inside(file, name)
        for name in names:
            _require_own_dataset(file, name)


def _require_own_dataset(file: "h5py.File", name: str) -> None:
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise KeyError(f"no data set {name!r} of its own")
    _require_kept_inside(file, name)
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name!r} is no data set")
    _require_plain_type(dataset.id.get_type(), name)


def _require_kept_inside(file: "h5py.File", name: str) -> None:
    import h5py

    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise ValueError(f"{name!r} is a link into another file")
    found = file[name] if isinstance(link, h5py.HardLink) else None
    if isinstance(found, h5py.Dataset) and (found.external is not None or found.is_virtual):
        raise ValueError(f"{name!r} does not hold its data itself")


def method_parameters(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The `method_parameters` attribute of a flow file, parsed."""
    return json.loads(attributes.get("method_parameters", "{}"))
