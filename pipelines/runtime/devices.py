"""The devices, cores and memory that a process may use."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import MissingError, UsageError
from pipelines.runtime.ranks import launched, local_gpu, ranks

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> "torch.device":
    """Returns the torch device of a name; under torchrun the GPU of this rank.

    Args:
        name: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: Another name.
        MissingError: There is no such GPU.
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
    """As `resolve_device`. Raises `UsageError` if the device cannot compute at that precision."""
    device = resolve_device(name)
    if precision == "fp16" and device.type != "cuda":
        raise UsageError("--precision fp16 needs a GPU; on the CPU use fp32 or bf16")
    return device


def missing_to_compile(device: "torch.device") -> str:
    """Names what this machine lacks for torch.compile and Triton to compile for the device; "" for nothing."""
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
    """Restricts cuDNN to deterministic algorithms, so that an interrupted training continues bit-exactly on a GPU
    too."""
    import torch

    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def available_cores() -> int:
    """The number of CPU cores that this process may use: within the limits of a container or batch job, and under
    torchrun its share of them."""
    return max(1, len(os.sched_getaffinity(0)) // ranks().local_size)


def available_memory() -> int:
    """The bytes of memory that this process may use: within the limits of a container or batch job, and under torchrun
    its share of them."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # cgroup v2, v1
        with contextlib.suppress(OSError, ValueError):  # absent, or "max"
            limits.append(int(Path(file).read_text()))
    return min(limits) // ranks().local_size


def free_gpu_memory(device: "torch.device") -> int:
    """The bytes that this process can still allocate on a GPU."""
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@contextlib.contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turns a device running out of memory into a `MissingError` that ends with `advice`, and on a GPU with `--device
    cpu`."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MissingError(f"out of GPU memory: {advice}, or use --device cpu") from error
    except RuntimeError as error:
        if "DefaultCPUAllocator: can't allocate memory" not in str(error):
            raise
        raise MissingError(f"out of memory: {advice}") from error


def copy_to_host(*tensors: "torch.Tensor") -> "Callable[[], tuple[torch.Tensor, ...]]":
    """Starts copying tensors of one device to the CPU, without waiting for them to be computed: the GPU can be given
    more work meanwhile. What it returns waits and gives them; those of the CPU are given as they are."""
    import torch

    if not tensors[0].is_cuda:
        return lambda: tensors
    copies = tuple(torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors)
    for tensor, copy in zip(tensors, copies, strict=True):
        copy.copy_(tensor, non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)  # who waits sleeps: cores that spin are missing where videos are decoded
    arrived.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> tuple[torch.Tensor, ...]:
        arrived.synchronize()
        return copies

    return wait


def mark_on_gpu(device: "torch.device") -> "torch.cuda.Event | None":
    """The point in a GPU's work behind all that it was given until now; None on a CPU."""
    import torch

    if device.type != "cuda":
        return None
    event = torch.cuda.Event(enable_timing=True, blocking=True)
    event.record(torch.cuda.current_stream(device))
    return event


def seconds_between(begin: "torch.cuda.Event | None", end: "torch.cuda.Event | None") -> float:
    """What a GPU took from one mark to another; waits for the second. 0 on a CPU."""
    if begin is None or end is None:
        return 0.0
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def loader_workers(asked: int, device: "torch.device") -> int:
    """The number of loader processes: `asked`, or by default one per core beside a GPU, none if the CPU computes."""
    return asked or (available_cores() if device.type == "cuda" else 0)


# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Makes glibc reuse freed memory for the next allocation; without glibc nothing happens.

    By default glibc returns every block of more than 32 MB to the system when it is freed, and the system clears each
    page of the next one as it is first written. A feature map of the network's early layers is such a block: measured
    on one core, a 1x1 convolution from 64 to 256 channels over 16 frames of 85x64 runs at 42 GFLOP/s by default and at
    91 with this. It affects the whole process, whose memory stays at its peak: for programs that compute and end.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
