"""The disk under the workspace, and HDF5 on it."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.diagnosis.check import Check, Place, can_import, failure, in_words, ok, pip_install, warning
from pipelines.interface.wording import plural

if TYPE_CHECKING:
    import numpy as np

# UCF101 at 340x256, measured on five clips: 23.1 kB a flow field with `tvl1` (docs/extraction.md), 29.5 kB a frame.
UCF101_GIGABYTES = 57 + 73
UCF101_FILES = 2 * 13_320
_LEAST, _LITTLE = 0.5, 20.0  # GB


def check(place: Place) -> list[Check]:
    if not os.access(place.folder, os.W_OK | os.X_OK):
        fix = "name another --workspace, or change the permissions: " + f"chmod u+rwx {place.folder}"
        return [failure("workspace", f"{place.folder} cannot be written to", fix)]
    return [_check_space(place), _check_files(place), *_check_locks(place), _check_plugin_path(), *_check_hdf5(place)]


def _check_space(place: Place) -> Check:
    usage = shutil.disk_usage(place.folder)
    free = usage.free / 1e9
    found = f"{free:.0f} GB free at {place.folder} (UCF101 takes about {UCF101_GIGABYTES})"
    values = {"free_bytes": usage.free, "total_bytes": usage.total, "folder": str(place.folder)}
    fix = "name a --workspace on a larger disk"
    if free < _LEAST:
        return failure("disk", found, fix, **values)
    return warning("disk", found, fix, **values) if free < _LITTLE else ok("disk", found, **values)


def _check_files(place: Place) -> Check:
    status = os.statvfs(place.folder)
    if not status.f_files:
        return ok("inodes", "made as needed", free=None)
    found, fix = f"{plural(status.f_favail, 'file')} can still be made", "name a --workspace on another disk"
    if status.f_favail < 100:
        return failure("inodes", found, fix, free=status.f_favail)
    if status.f_favail < UCF101_FILES:
        return warning("inodes", f"{found} (UCF101 takes {UCF101_FILES})", fix, free=status.f_favail)
    return ok("inodes", found, free=status.f_favail)


def _check_locks(place: Place) -> list[Check]:
    """Without locks two commands at once may lose a row of failures.csv (`failures.record_outcomes`)."""
    descriptor = os.open(place.folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # held by another command: so locks work
        pass
    except OSError as error:
        fix = "start only one command at a time on this workspace, or use torchrun"
        return [warning("locks", f"{place.folder} cannot be locked ({error.strerror})", fix)]
    finally:
        os.close(descriptor)
    return []


def _check_plugin_path() -> Check:
    """HDF5 runs any library it finds there when a file asks for its filter; stres does not let it look there."""
    chosen = os.environ.get("HDF5_PLUGIN_PATH")
    if chosen:
        return warning(
            "HDF5 plugins", f"HDF5_PLUGIN_PATH={chosen}: other programs load code from there", "unset HDF5_PLUGIN_PATH"
        )
    return ok("HDF5 plugins", "only those of hdf5plugin")


def _check_hdf5(place: Place) -> list[Check]:
    """Each of two processes writes an artifact with one of the filters; the other process reads it."""
    if not can_import("h5py", "hdf5plugin", "numpy"):
        return []
    from pipelines.errors import VideoError
    from pipelines.runtime.worker_pool import run_tasks

    fix = pip_install("--force-reinstall", "h5py", "hdf5plugin")
    with tempfile.TemporaryDirectory(prefix=".stres-doctor-", dir=place.folder) as folder:
        files = [(Path(folder) / "a.h5", "zstd"), (Path(folder) / "b.h5", "gzip")]
        try:
            for function, order in ((write_artifact, files), (read_artifact, files[::-1])):
                for (path, compression), outcome in run_tasks(function, order, 2):
                    if isinstance(outcome, VideoError):
                        return [failure(f"HDF5 filter {compression}", f"{path.name}: {outcome}", fix)]
        except Exception as error:
            return [failure("HDF5 filters", in_words(error), fix)]
        sizes = {compression: path.stat().st_size for path, compression in files}
    return [ok("HDF5 filters", "zstd and gzip: written and read by two worker processes", bytes=sizes)]


def write_artifact(task: tuple[Path, str], report: object) -> str:
    from pipelines.storage.flow_file import new_flow_file

    path, compression = task
    with new_flow_file(path, compression) as writer:  # type: ignore[arg-type]  # one of both
        writer.append(_fields())
        writer.finish({})
    return ""


def read_artifact(task: tuple[Path, str], report: object) -> str:
    """Raises `VideoError` where another content comes back."""
    import numpy as np

    from pipelines.errors import VideoError
    from pipelines.storage.flow_file import FlowFile

    with FlowFile(task[0]) as file:
        if not np.array_equal(file.read(0, len(file)), _fields()):
            raise VideoError("what was read is not what was written")
    return ""


def _fields() -> "np.ndarray":
    import numpy as np

    from pipelines.storage.quantise import LEVEL_TYPE, LEVELS

    return np.random.default_rng(0).integers(0, LEVELS, (4, 2, 64, 80), dtype=LEVEL_TYPE)
