"""Cores, memory, limits and the environment."""

import os
import platform
import resource
from pathlib import Path

from pipelines.diagnosis.check import Check, Place, ok, warning
from pipelines.runtime.devices import available_cores

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_WAIT_POLICY")
_WORKER_BYTES = 600 * 10**6  # a process with torch, OpenCV and HDF5, at work on a video of 340x256
# The loader keeps 256 artifacts open in each process (datasets/open_files.py); torch's shared memory takes files too.
_OPEN_FILES = 1024
_SHARED_MEMORY = 10**9  # bytes: some batches of 128 clips on their way from the loaders


def check(place: Place) -> list[Check]:
    system = platform.platform()
    models = [line for line in _text("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    processor = models[0].partition(":")[2].strip() if models else platform.machine()
    return [
        ok("system", f"{system}, {processor}", platform=system, processor=processor),
        _check_cores(),
        _check_memory(),
        _check_threads(),
        _check_open_files(),
        _check_shared_memory(),
    ]


def _check_cores() -> Check:
    """The kernel may give a container less time than it shows cores."""
    usable, present = available_cores(), os.cpu_count() or 1
    quota = cpu_quota()
    values = {"usable": usable, "present": present, "quota": quota}
    found = f"{usable} usable of {present}"
    if quota is not None and quota < usable:
        fix = f"give --workers {max(1, round(quota))}, or the container more (docker run --cpus {usable})"
        return warning("cores", f"{found}, but this container is limited to the time of {quota:g}", fix, **values)
    return ok("cores", found, **values)


def cpu_quota() -> float | None:
    """How many cores' worth of time the control group may use; None without a limit."""
    quota, _, period = _text("/sys/fs/cgroup/cpu.max").partition(" ")
    if not quota:  # version 1
        quota = _text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
        period = _text("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except ValueError:  # "max", or nothing there
        return None


def _check_memory() -> Check:
    """The memory of the machine, within the control group's limit."""
    lines = dict(line.split(":", 1) for line in _text("/proc/meminfo").splitlines() if ":" in line)
    free = int(lines.get("MemAvailable", "0").split()[0]) * 1024
    limit, used = _text("/sys/fs/cgroup/memory.max").strip(), _text("/sys/fs/cgroup/memory.current").strip()
    if limit.isdecimal() and used.isdecimal():
        free = min(free, int(limit) - int(used))
    needed = available_cores() * _WORKER_BYTES
    found = f"{free / 1e9:.1f} GB free for {available_cores()} worker processes"
    if free < needed:
        fix = f"give --workers {max(1, free // _WORKER_BYTES)}"
        return warning("memory", f"{found}, which take about {_WORKER_BYTES / 1e9} GB each", fix, free_bytes=free)
    return ok("memory", found, free_bytes=free)


def _check_threads() -> Check:
    given = {name: os.environ[name] for name in _THREADS if name in os.environ}
    found = ", ".join(f"{name}={value}" for name, value in given.items()) or "the libraries' defaults"
    if given.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE":
        fix = "unset OMP_WAIT_POLICY"
        return warning("threads", f"{found}: spinning threads take the cores from the loaders", fix, **given)
    asked = given.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > available_cores():
        fix = f"export OMP_NUM_THREADS={available_cores()}"
        return warning("threads", f"{found}: more threads than cores slow each other down", fix, **given)
    return ok("threads", found, **given)


def _check_open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"a process may open {'any number' if soft == resource.RLIM_INFINITY else soft}"
    if soft != resource.RLIM_INFINITY and soft < _OPEN_FILES:
        return warning("open files", found, f"ulimit -n {max(soft, min(hard, 4096))}", limit=soft)
    return ok("open files", found, limit=soft)


def _check_shared_memory() -> Check:
    """Batches come through it from the loaders' processes."""
    try:
        status = os.statvfs("/dev/shm")
    except OSError as error:
        return warning("shared memory", f"there is no /dev/shm ({error.strerror})", "mount -t tmpfs tmpfs /dev/shm")
    free = status.f_bavail * status.f_frsize
    found = f"{free / 1e9:.1f} GB free in /dev/shm"
    if free < _SHARED_MEMORY:
        fix = "docker run --ipc=host or --shm-size=8g, or mount -o remount,size=8G /dev/shm"
        return warning("shared memory", f"{found}: loaders may be killed", fix, free_bytes=free)
    return ok("shared memory", found, free_bytes=free)


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
