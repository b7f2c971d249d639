"""GPUs: whether torch sees them, their memory, and whether each computes a small product correctly."""

import re
from pathlib import Path

from pipelines.diagnosis.check import Check, Place, can_import, failure, in_words, ok, pip_install, warning

_INDEX = "https://download.pytorch.org/whl/cu130"


def check(place: Place) -> list[Check]:
    if not can_import("torch"):
        return []
    import torch

    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
        version = re.search(r"\d+\.\d+(\.\d+)?", text)
        driver = version.group() if version else "unknown"
    except OSError:  # none is loaded
        driver = ""
    if not torch.cuda.is_available():
        return [_without(torch.version.cuda, driver)]
    return [*(_check_gpu(number, driver) for number in range(torch.cuda.device_count())), _check_compiler()]


def _without(built_for: str | None, driver: str) -> Check:
    """`built_for`: the CUDA version of torch; `driver`: that of the NVIDIA driver, "" without one."""
    if not driver:
        return ok("GPU", "none: everything runs on the CPU", count=0)
    if built_for is None:
        fix = pip_install("--force-reinstall", "torch", "torchvision", "--index-url", _INDEX)
        return warning("GPU", f"driver {driver}, but this torch is built for the CPU only", fix, count=0)
    fix = "update the driver, or unset CUDA_VISIBLE_DEVICES; nvidia-smi shows more"
    return warning("GPU", f"driver {driver}, but torch (CUDA {built_for}) sees no GPU", fix, count=0)


def _check_gpu(number: int, driver: str) -> Check:
    import torch

    subject, fix = f"GPU {number}", f"update the driver ({driver or 'unknown'}), or give --device cpu"
    try:
        about = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        values = {"name": about.name, "driver": driver, "total_bytes": total, "free_bytes": free}
        values |= {"cuda": torch.version.cuda, "capability": f"{about.major}.{about.minor}"}
        matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
        copy = matrix.to(torch.device("cuda", number))
        difference = float((copy @ copy - (matrix @ matrix).to(copy.device)).abs().max())
    except Exception as error:
        return failure(subject, f"does not compute: {in_words(error)}", fix)
    found = (
        f"{about.name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, driver {driver}, CUDA {torch.version.cuda}, "
        f"capability {about.major}.{about.minor}"
    )
    if difference > 1e-2:
        return failure(
            subject, f"{found}: computes another product than the CPU (off by {difference:.2g})", fix, **values
        )
    if free < 4e9:
        return warning(subject, f"{found}: little memory is left", "nvidia-smi shows which processes hold it", **values)
    return ok(subject, found, **values)


def _check_compiler() -> Check:
    """What TV-L1 on a GPU needs, and training is slower without."""
    import torch

    from pipelines.runtime.devices import missing_to_compile

    missing = missing_to_compile(torch.device("cuda"))
    if missing:
        found = f"without {missing} there is no TV-L1 on the GPU, and training is not compiled"
        return failure("GPU compiler", found, "apt install gcc python3-dev, or what your system calls them")
    return ok("GPU compiler", "Triton finds what it needs")
