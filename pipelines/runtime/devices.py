"""Which device computes, and with which number of threads."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import MissingError, UsageError
from pipelines.runtime.ranks import launched, local_gpu, ranks

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> "torch.device":
    """`auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N` as a torch device; under torchrun the GPU of this rank.

    Raises `UsageError` for another name, `MissingError` for a GPU that is not there.
    """
    import torch

    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdecimal())):
        raise UsageError(f"--device {name!r} is not known: give auto, cpu, cuda or cuda:N")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise MissingError(
                f"--device {name}: torch {torch.__version__} sees {count} GPUs here; "
                "use --device cpu, or install the driver and a CUDA build of torch"
            )
        if launched():
            if index:
                raise UsageError(f"--device {name}: under torchrun each process has its own GPU, give cuda")
            index = str(local_gpu(count))
    return torch.device(kind, int(index)) if index else torch.device(kind)


def device_for(name: str, precision: str) -> "torch.device":
    """The device of that name, to compute at that precision. Raises `UsageError` where it cannot."""
    device = resolve_device(name)
    if precision == "fp16" and device.type != "cuda":
        raise UsageError("--precision fp16 needs a GPU; on the CPU use fp32 or bf16")
    return device


def missing_to_compile(device: "torch.device") -> str:
    """What this machine lacks of what torch.compile and Triton need to make code for the device; empty for nothing."""
    variable, compilers = ("CXX", ("g++", "clang++")) if device.type == "cpu" else ("CC", ("gcc", "clang"))
    if not any(map(shutil.which, (os.environ.get(variable) or compilers[0], *compilers))):
        return f"a compiler ({' or '.join(compilers)}, or what the environment's {variable} names)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's header files (the package python3-dev or python3-devel)"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton (the package `triton`, which torch's CUDA wheels bring)"
    return ""


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """cuDNN takes none of its algorithms whose result differs from run to run, so that a training that was interrupted
    continues to the same bits on a GPU too."""
    import torch

    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def available_cores() -> int:
    """The CPU cores this process may use: in a container or a batch job fewer than the machine's, and under torchrun
    its share of them."""
    return max(1, len(os.sched_getaffinity(0)) // ranks().local_size)


def available_memory() -> int:
    """The bytes of memory this process may use: in a container or a batch job fewer than the machine's, and under
    torchrun its share of them."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # cgroup v2, v1
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            limits.append(int(Path(file).read_text()))
    return min(limits) // ranks().local_size


@contextlib.contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turns a GPU running out of memory into a `MissingError` that ends with `advice`."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MissingError(f"the GPU's memory is too small for this: {advice}") from error


def loader_workers(asked: int, device: "torch.device") -> int:
    """Loader processes: as asked for; by default one a core beside a GPU, none where the CPU itself computes."""
    return asked or (available_cores() if device.type == "cuda" else 0)


# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Lets this process keep what it frees for what it allocates next; on glibc, elsewhere nothing happens.

    By default glibc gives every block of more than 32 MB back to the system when it is freed, and the system clears
    each page of the next one as it is first written. A feature map of the network's early layers is such a block:
    measured on one core, a 1x1 convolution from 64 to 256 channels over 16 frames of 85x64 runs at 42 GFLOP/s so and
    at 91 with this. It holds for the whole process, whose memory stays at its peak: for programs that compute and end.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
