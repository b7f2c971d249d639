"""Files that are complete under their final name, even after a power failure; and locks on folders."""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import MissingError, StorageError
from pipelines.storage.placeholders import placeholder_in

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "your disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "the file would grow too large: raise the limit (ulimit -f) and run the same command again",
    errno.EROFS: "the file system is read-only: choose another --workspace",
    errno.EACCES: "permission denied: choose another --workspace or change its permissions",
    errno.EPERM: "permission denied: choose another --workspace or change its permissions",
    errno.ENOENT: "the folder is not there, or no longer: run the same command again, or choose another place",
    errno.ENOTDIR: "a part of this path is a file: choose another place",
    errno.EEXIST: "a part of this path is a file: choose another place",
}
_LOCK_PATIENCE = 600.0  # seconds
_GLANCE = 0.05  # seconds
_TEMPORARY_NAMES = ".*.tmp-*"
_TEMPORARY = re.compile(r"^\..+\.tmp-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}$")


# ------------------------------------------------------------------ writing


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal to write `path` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        # h5py has the system's errno only in its text.
        found = re.search(r"errno = (\d+)", str(error))
        number = error.errno or (int(found[1]) if found else 0)
        reason = f"{error.strerror or error}: choose another place, or fix that and run the same command again"
        raise StorageError(f"cannot write {path}: {_ADVICE.get(number, reason)}") from error


def require_writable(*folders: Path, files: Sequence[Path] = (), room: int = 0) -> None:
    """Checks, before hours of work, that files can be written. Really writes one: permissions do not account for
    quotas, full disks and network disks.

    Args:
        folders: Where to write; a folder that does not exist is looked for above.
        files: To be written, too; each folder of theirs is checked as `folders` are.
        room: Bytes that have to be free there.

    Raises:
        StorageError: A folder cannot be written to, or what has the name of one of `files` is none.
    """
    for file in files:
        _require_file(file)
    folders += tuple(file.parent for file in files)
    places = {_place_of(folder): folder for folder in folders}
    for place, folder in places.items():
        with storage_errors(folder):
            if not place.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            attempt = temporary_name(place / "attempt")
            try:
                attempt.write_bytes(bytes(4096))
            finally:
                attempt.unlink(missing_ok=True)
        free = shutil.disk_usage(place).free
        if free < room:
            raise StorageError(
                f"cannot write {folder}: {room / 1e6:.1f} MB are needed there, but only {free / 1e6:.1f} MB are free: "
                "free some space and run the same command again"
            )


def require_place(folder: Path) -> None:
    """Checks that a folder can be made or written to, as far as that shows without writing. Raises `StorageError`."""
    place = _place_of(folder)
    with storage_errors(folder):
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _require_file(path: Path) -> None:
    """Raises `StorageError` where a folder has the name, or a device or pipe, which the superuser would replace."""
    if path.absolute().parent == Path("/dev") or (os.path.exists(path) and not os.path.isfile(path)):
        raise StorageError(f"cannot write {path}: that is a folder, a device or a pipe: name a file")


def free_gigabytes(folder: Path) -> float:
    """What is free on the disk of a folder, or of where it is to be made; 0 where the system does not say."""
    try:
        return shutil.disk_usage(_place_of(folder)).free / 1e9
    except OSError:
        return 0.0


def _place_of(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    return next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))


def create_folder(path: Path) -> None:
    """Creates a folder and those above it. Raises `StorageError`."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to; on success that file is fsynced and renamed to `path`.

    On any exception the temporary file is removed and `path` is left as it was.

    Raises:
        StorageError: The system refuses the folder, the fsync or the renaming, or what has this name is no file. What
            the caller writes in between, the caller has to wrap (`storage_errors`).
    """
    _require_file(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        with storage_errors(path):
            _fsync(temporary)
            os.replace(temporary, path)
            _fsync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def temporary_name(path: Path) -> Path:
    """A unique name beside `path` that `remove_left_over_temporary_files` recognizes."""
    # A name of 255 bytes is legal: what is added to it must not make it longer than that.
    stem = path.name.encode("utf-8", "surrogateescape")[:120].decode("utf-8", "ignore")
    return path.parent / f".{stem}.tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file atomically. Raises `StorageError`."""
    with atomic_file(path) as temporary, storage_errors(path):
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 file atomically. Raises `StorageError`."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def json_text(document: Any, **layout: Any) -> str:
    """Returns `document` as JSON. Raises `ValueError` where it holds NaN or infinity, which JSON lacks."""
    return json.dumps(document, allow_nan=False, **layout)


def write_json(path: Path, document: Any) -> None:
    """Writes an indented JSON file atomically. Raises `StorageError`."""
    write_text(path, json_text(document, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file. Raises `MissingError` where it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        other = placeholder_in(path)
        told = f": {other}" if other else f" ({error}): restore it, or make it again"
        raise MissingError(f"{path} cannot be read as JSON{told}") from error


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True, shared: bool = False) -> Iterator[bool]:
    """Locks a folder, or a file, for the block; the system releases the lock with the process.

    Args:
        shared: Whether others may lock it at the same time that share it, too.
        wait: Whether to wait while another process has it locked; no longer than a glance (`is_locked`) otherwise.

    Yields:
        Whether the lock was taken; always true with `wait`.

    Raises:
        StorageError: There is no such folder.
        MissingError: The other process keeps the lock for `_LOCK_PATIENCE` seconds: it hangs, or is stopped, since
            what is done under such a lock takes seconds.
    """
    with storage_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        free = take_lock(descriptor, _LOCK_PATIENCE if wait else _GLANCE, shared=shared)
        if wait and not free:
            raise MissingError(
                f"another command has kept {folder} locked for {_LOCK_PATIENCE:g} s, and seems to hang: end it, or "
                "wait for it, and run the same command again"
            )
        yield free
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether another process has a folder or file locked, seen by taking the lock for less than `_GLANCE` seconds."""
    with contextlib.suppress(StorageError), locked(folder, wait=False) as free:
        return not free
    return False


def take_lock(descriptor: int, patience: float, *, shared: bool = False) -> bool:
    """Whether the open file or folder could be locked within `patience` seconds. If it cannot be locked at all (folders
    on NFS and others) it counts as locked: then only two commands at once can clash."""
    pause, waited = 0.005, 0.0
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if waited >= patience:
                return False
        except OSError:
            return True
        else:
            return True
        time.sleep(pause)
        waited += pause  # not by the clock: this process may have been stopped for hours as well
        pause = min(2 * pause, 0.25)


def remove_left_over_temporary_files(folder: Path, *, below: bool = True) -> int:
    """Removes temporary files and folders in `folder`, and in all folders `below` it, whose process (of this host) is
    gone; returns how many."""
    removed = 0
    for path in list(left_over_temporary_files(folder, below=below)):  # found before any is removed
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            removed += 1
    return removed


def left_over_temporary_files(folder: Path, *, below: bool = True) -> Iterator[Path]:
    """The temporary files and folders in `folder`, and in all folders `below` it, whose process (of this host) is
    gone."""
    for path in folder.rglob(_TEMPORARY_NAMES) if below else folder.glob(_TEMPORARY_NAMES):
        match = _TEMPORARY.match(path.name)
        if match and match["host"] == _host() and not _alive(int(match["pid"])):
            yield path


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


def _alive(pid: int) -> bool:
    # A zombie counts as dead: in containers its parent may never wait for it.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
