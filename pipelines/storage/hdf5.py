"""HDF5 files, written atomically and checked before they are read."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import __version__
from pipelines.errors import MissingError, VideoError
from pipelines.interface.wording import plural
from pipelines.runtime.closing import Closing
from pipelines.storage.atomic import atomic_file, storage_errors
from pipelines.storage.hdf5_guards import DeferredErrorFile, HeapCheckedFile
from pipelines.storage.placeholders import placeholder_in

if TYPE_CHECKING:
    import h5py
    import numpy as np

# Errors of the system that say nothing of the file itself.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE)
USUAL_FPS = 25.0
"""Assumed where neither timestamps nor the container give a rate."""
_MOST_LINKS = 1000  # in a file: each is looked at
_CHUNK_CACHE = 1 << 18  # bytes a data set: one flow field of 341x256, of which readers keep hundreds of files open


class ArtifactError(MissingError):
    """An artifact is absent, damaged or not what its name says."""


class SchemaError(ArtifactError):
    """An artifact is of another kind, or of another version of stres."""


# ------------------------------------------------------------------ writing


class HDF5ArtifactWriter:
    """Base of both writers: hashes the content, writes attributes, and names errors of the disk as such."""

    schema: str

    def __init__(self, path: Path, file: "h5py.File", check: Callable[[], None]) -> None:
        self.path = path
        self.file = file
        self.check = check
        self.digest = hashlib.sha256()

    def finish(self, attributes: Mapping[str, Any], times: "np.ndarray | None" = None) -> None:
        """Writes all attributes and, if given, when each frame is shown. Raises `StorageError`.

        The times are not part of `content_sha256`: the same frames in another container are still the same.
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


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[tuple["h5py.File", Callable[[], None]]]:
    """An HDF5 file to write, which takes its final name only when the block ends without an exception, and what raises
    the `OSError` of a failed write before that. Raises `StorageError` at the end of the block where writing failed."""
    import h5py

    with atomic_file(path) as temporary:
        with storage_errors(path):
            disk = DeferredErrorFile(temporary)
        with contextlib.closing(disk):
            with h5py.File(disk, "w") as file:
                yield file, disk.check
            with storage_errors(path):
                disk.check()


# ------------------------------------------------------------------ reading


class HDF5Artifact(Closing):
    """An open artifact. Open it in the process that reads it: HDF5 handles do not survive a fork."""

    schema: str
    datasets: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
        except OSError as error:
            raise _not_opened(path, error) from error
        kind: Any = type(self)  # for mypy, which does not know that classes can be hashed
        _examine(path, kind, (status.st_ino, status.st_size, status.st_mtime_ns))
        self.file = _opened(path)

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """All attributes. Read on demand: they take longer than opening the file, and training needs none."""
        return read_attributes(self.file, self.path, self.schema)

    @cached_property
    def times(self) -> "np.ndarray":
        """When each frame of the source is shown, in seconds from the first: float64 [T]. Files of stres 0.1.0 lack
        it: there it follows from their rate, or from 25 frames a second where that is unknown."""
        import numpy as np

        with damaged(self.path):
            frames = int(self.attributes["source_frames"])
            if "times" not in self.file:
                return even_times(frames, float(self.attributes.get("fps", 0)))
            times = self.file["times"][:]
            if len(times) != frames:
                raise ValueError(f"it has times of {plural(len(times), 'frame')}, but was made from {frames}")
            if not np.isfinite(times).all() or (times[:1] != 0).any() or (np.diff(times) < 0).any():
                raise ValueError("its times are not seconds from 0 that never go back")
            return times

    @classmethod
    def check(cls, file: "h5py.File") -> None:
        """Raises what `damaged` turns into an `ArtifactError` if the data sets are not what readers rely on."""
        raise NotImplementedError

    def close(self) -> None:
        self.file.close()


def require_plain_vector(file: "h5py.File", name: str, kind: str) -> None:
    """Raises `ValueError` unless the data set is one-dimensional, of that type and all in the file."""
    dataset = file[name]
    if dataset.dtype != kind or dataset.ndim != 1:
        raise ValueError(f"{name!r} is {dataset.dtype} {dataset.shape}")
    # It is not compressed, so that what is not in the file is only claimed.
    if dataset.id.get_storage_size() < dataset.nbytes:
        raise ValueError(f"{name!r} claims {dataset.nbytes} bytes and has {dataset.id.get_storage_size()}")


@lru_cache(maxsize=1 << 17)  # training opens the same ones again and again; about 100 MB of so many
def _examine(path: Path, kind: Any, state: tuple[int, int, int]) -> None:
    """Raises `ArtifactError` if the file, in this state, is not what the class `kind` reads, or not safe to read."""
    with open_file(path) as file:
        with damaged(path):
            schema = _attribute(file, "schema") if "schema" in file.attrs else None
        _require_schema(schema, path, kind.schema)
        with damaged(path):
            times = ("times",) if "times" in set(file) else ()  # `in file` would follow a link out
        require_own_data(file, (*kind.datasets, *times), path)
        with damaged(path):
            kind.check(file)
            for name in times:
                require_plain_vector(file, name, "f8")


@contextlib.contextmanager
def open_file(path: Path) -> "Iterator[h5py.File]":
    """Opens an HDF5 file that may be damaged. Raises `ArtifactError` where it is absent or damaged."""
    try:
        raw = HeapCheckedFile(path)
    except OSError as error:
        raise _not_opened(path, error) from error
    # In this order: HDF5 ends the process when it closes a file after what it reads from.
    with raw, _opened(path, raw) as file:
        yield file


def _opened(path: Path, raw: HeapCheckedFile | None = None) -> "h5py.File":
    """The file at `path`, read through `raw` if given."""
    from pipelines.storage.hdf5_plugins import h5py

    options: dict[str, Any] = {} if raw else {"locking": False}
    try:
        return h5py.File(raw or path, "r", rdcc_nbytes=_CHUNK_CACHE, **options)
    except OSError as error:
        # Frames of h5py hold what HDF5 calls Python for as it ends itself: if an error that is kept, as others name it,
        # held them beyond Python's end, that would crash the process. A `with` statement's would keep them, too.
        raise _not_opened(path, error) from error.with_traceback(None)


def _not_opened(path: Path, error: OSError) -> ArtifactError:
    """What to raise where the file cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"{path} is missing: run the stage that makes it again")
    if error.errno in _REFUSED:
        return ArtifactError(
            f"{path} cannot be read ({os.strerror(error.errno)}): fix that and run the same command again; the "
            "file itself may be intact"
        )
    if told := placeholder_in(path):
        return ArtifactError(f"{path} cannot be read: {told}")
    return ArtifactError(f"{path} is damaged ({error}): delete it and run the stage that makes it again")


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Turns anything that HDF5 raises while it reads a broken file into an `ArtifactError`."""
    try:
        yield
    except (OSError, KeyError, ValueError, IndexError, TypeError, RuntimeError, OverflowError, MemoryError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): delete it and run the stage that makes it again") from error


def _require_schema(found: Any, path: Path, schema: str) -> None:
    if found != schema:
        raise SchemaError(f"{path} has the schema {found!r}, not {schema!r}: make it again with this version of stres")


def read_attributes(file: "h5py.File", path: Path, schema: str, names: Collection[str] | None = None) -> dict[str, Any]:
    """The attributes, or those of `names` that there are, as plain Python values. Raises `ArtifactError` for another
    schema."""
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
    """Refuses all types but numbers and text: HDF5 (2.0) crashes while it converts some damaged ones, and others are
    references."""
    from h5py import h5t

    is_number = kind.get_class() in (h5t.INTEGER, h5t.FLOAT, h5t.ENUM)
    is_fixed_text = isinstance(kind, h5t.TypeStringID) and not kind.is_variable_str()
    if not (is_number or is_fixed_text or kind == _text_type()):
        raise ValueError(f"{name!r} holds neither numbers nor text")


@lru_cache(maxsize=1)
def _text_type() -> "h5py.h5t.TypeID":
    """Of the text that we write: UTF-8 of any length."""
    from h5py import h5t, string_dtype

    return h5t.py_create(string_dtype("utf-8"), logical=True)


def peek(path: Path, schema: str, names: Collection[str] | None = None) -> dict[str, Any]:
    """The attributes of an artifact, or those of `names`, without its data. Raises `ArtifactError`."""
    with open_file(path) as file:
        return read_attributes(file, path, schema, names)


def peek_if_sound(path: Path, schema: str, names: Collection[str]) -> dict[str, Any]:
    """As `peek`; {} for an artifact that is absent or damaged."""
    with contextlib.suppress(ArtifactError):
        return peek(path, schema, names)
    return {}


@contextlib.contextmanager
def damage_fails_the_video() -> Iterator[None]:
    """Turns an `ArtifactError`, which ends a command, into a `VideoError`, for which one video fails."""
    try:
        yield
    except ArtifactError as error:
        raise VideoError(str(error)) from error


def require_own_data(file: "h5py.File", names: Collection[str], path: Path) -> None:
    """Raises `ArtifactError` unless `names` are data sets of the file's own, of numbers or text, and nothing in it,
    even if it is never read, could make HDF5 read another file: links out, external storage, virtual data sets."""
    import h5py

    with damaged(path):
        if set(file) - set(names):
            everything: list[str] = []
            file.visit_links(everything.append)  # an exception in what it calls would be lost
            if len(everything) > _MOST_LINKS:
                raise ValueError(f"{len(everything)} groups and data sets are in it, where 3 are enough")
            for name in everything:
                _require_kept_inside(file, name)
        for name in names:
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise KeyError(f"no data set {name!r} of its own")
            _require_kept_inside(file, name)
            dataset = file[name]
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(f"{name!r} is not a data set")
            _require_plain_type(dataset.id.get_type(), name)


def _require_kept_inside(file: "h5py.File", name: str) -> None:
    import h5py

    link = file.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise ValueError(f"{name!r} is a link into another file")
    found = file[name] if isinstance(link, h5py.HardLink) else None
    if isinstance(found, h5py.Dataset) and (found.external is not None or found.is_virtual):
        raise ValueError(f"{name!r} does not hold its data itself")


def even_times(frames: int, fps: float) -> "np.ndarray":
    """The times of frames at an even rate, 25 a second where `fps` is 0 (unknown): float64 [T]."""
    import numpy as np

    return np.arange(frames) / (fps or USUAL_FPS)
