"""Compiling the CPU kernels once per machine: where the result is kept, and what happens if it cannot be."""

import contextlib
import functools
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.errors import MissingError, StorageError
from pipelines.storage.atomic import take_lock, write_text

_PATIENCE = 300.0  # seconds for another process that compiles, which takes half a minute
_LOCK, _SEAL = "lock", "sha256"
_KERNELS = Path(__file__).parent / "kernels"
_log = logging.getLogger("stres")
_ELSEWHERE = ("NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS")  # of Numba's variables, those that do not change what is compiled
_COMPILING = "compiling TV-L1 (about half a minute{})"
_in_this_process = threading.Lock()
_kernels: list[Callable[..., None]] = []


def compiled_kernel() -> Callable[..., None]:
    """`kernels.pair.pair_flow`, compiled: one kernel for frames of all sizes.

    It is loaded from the cache folder, or compiled and stored there while other processes wait. What is stored there is
    loaded only as it was written: damaged machine code is thrown away and compiled again, since it would crash the
    process or compute something else. If no folder is writable, every process compiles for itself.

    Raises:
        MissingError: Numba has been told not to compile.
    """
    import numba

    if numba.config.DISABLE_JIT:
        raise MissingError("NUMBA_DISABLE_JIT is set, and TV-L1 on the CPU has to be compiled: unset it")
    with _in_this_process:
        if not _kernels:
            _kernels.append(_load_or_compile())
    return _kernels[0]


def _load_or_compile() -> Callable[..., None]:
    folder = cache_folder()
    if folder is None:
        _log.warning(_COMPILING.format("; no cache folder is writable, so every process does"))
        return _ready(_kernel(None))
    with contextlib.ExitStack() as held:
        try:
            # What is whole needs no lock: a process that gets no core must not keep all others waiting.
            if not _is_whole(folder):
                # One process compiles while the others wait, but not for one that hangs, nor where files cannot be
                # locked (some network disks).
                take_lock(held.enter_context(open(folder / _LOCK, "ab")).fileno(), _PATIENCE)
                if not _is_whole(folder):  # nor has another process stored it meanwhile
                    damaged = f"; what {folder} held is damaged or out of date" if _emptied(folder) else ""
                    _log.warning(_COMPILING.format(f", once on this machine{damaged}"))
            kernel = _kernel(folder)
            stats = kernel.stats  # type: ignore[attr-defined]  # Numba's dispatcher
            if not Path(stats.cache_path).is_relative_to(folder):  # where nobody looks at what is stored
                raise PermissionError(f"Numba cannot write there, and would take {stats.cache_path}")
            kernel = _ready(kernel)
            if not kernel.stats.cache_hits:  # type: ignore[attr-defined]
                with contextlib.suppress(StorageError):  # the next process compiles again
                    write_text(folder / _SEAL, _digest(folder))
            return kernel
        except Exception as error:  # a full disk, a folder that cannot be read: whatever it is, it is only a cache
            _log.warning("the compiled TV-L1 kernels in %s cannot be used (%s): compiling without", folder, error)
            return _ready(_kernel(None))


def _kernel(folder: Path | None) -> Callable[..., None]:
    """The uncompiled kernel, with `folder` for its cache."""
    import numba

    from pipelines.optical_flow.tvl1.kernels.pair import pair_flow
    from pipelines.optical_flow.tvl1.kernels.rows import EXACT

    if folder is None:
        return numba.njit(**EXACT)(pair_flow)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)  # read by the decorator, for this function alone
    try:
        return numba.njit(cache=True, **EXACT)(pair_flow)
    finally:
        numba.config.CACHE_DIR = before


def _ready(kernel: Callable[..., None]) -> Callable[..., None]:
    """Makes Numba compile or load the kernel, by calling it on a pair of one pixel."""
    from pipelines.optical_flow.tvl1.buffers import kernel_arguments
    from pipelines.optical_flow.tvl1.parameters import TVL1Parameters

    kernel(*kernel_arguments(1, 1, TVL1Parameters(warps=1)))
    return kernel


# ------------------------------------------------------------------ what is stored


def _is_whole(folder: Path) -> bool:
    """Whether the folder holds what was stored there, of the present source, and nothing of it has changed since."""
    with contextlib.suppress(OSError):
        return (folder / _SEAL).read_bytes() == _digest(folder).encode()
    return False


def _digest(folder: Path) -> str:
    """SHA-256 of Numba's files, and of what they are out of date by: the source's size and time. Raises `OSError`."""
    source = (_KERNELS / "pair.py").stat()
    digest = hashlib.sha256(f"{source.st_size} {source.st_mtime_ns}".encode())
    for file in sorted(folder.rglob("*.nb[ic]")):  # the index and the machine code
        digest.update(f" {file.relative_to(folder)} ".encode() + file.read_bytes())
    return digest.hexdigest()


def _emptied(folder: Path) -> bool:
    """Removes all but the lock; whether there was anything. Raises `OSError`."""
    stored = [path for path in folder.iterdir() if path.name != _LOCK]
    for path in stored:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return bool(stored)


# ------------------------------------------------------------------ the folder


def cache_folder() -> Path | None:
    """A writable folder of our own for exactly this kernel on this kind of processor; None if there is none."""
    return writable_folder(f"tvl1-{_identity()}")


def writable_folder(name: str) -> Path | None:
    """A writable folder of that name for what has been compiled, made if missing; None if none can be written to."""
    for parent in _candidates():
        with contextlib.suppress(OSError):
            folder = parent / name
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / _LOCK, "ab"):
                return folder
    return None


def _candidates() -> Iterator[Path]:
    """`NUMBA_CACHE_DIR`, the user's cache folder, and a private one among the temporary files."""
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(chosen)
    with contextlib.suppress(RuntimeError):  # no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stres"
    temporary = Path(tempfile.gettempdir()) / f"stres-{os.getuid()}"
    if _is_private(temporary):
        yield temporary


def _is_private(folder: Path) -> bool:
    """Makes the folder if there is none. What is cached is executed: in a shared place it must be ours alone."""
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        return not folder.is_symlink() and status.st_uid == os.getuid() and status.st_mode & 0o077 == 0
    return False


@functools.cache
def _identity() -> str:
    """Changes with everything that decides what is compiled and where Numba looks for it: the kernels' source and
    where it lies, Python, Numba, the processor and Numba's environment variables. Numba itself checks less."""
    import llvmlite.binding
    import numba

    digest = hashlib.sha256()
    for source in sorted(_KERNELS.glob("*.py")):
        digest.update(source.read_bytes())
    host = f"{llvmlite.binding.get_host_cpu_name()} {llvmlite.binding.get_host_cpu_features().flatten()}"
    digest.update(
        f"{_KERNELS} {sys.implementation.cache_tag} {numba.__version__} {llvmlite.__version__} {host}".encode()
    )
    for option in sorted(name for name in os.environ if name.startswith("NUMBA_") and name not in _ELSEWHERE):
        digest.update(f" {option}={os.environ[option]}".encode())
    return digest.hexdigest()[:16]
