"""Freed memory that is kept serves the next block; memory that there is not is told with advice."""

import subprocess
import sys

import pytest
import torch

from pipelines.errors import MissingError
from pipelines.runtime.devices import memory_errors

PROGRAM = """
import platform, resource, sys
from pipelines.runtime.devices import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(3):
    before = faults()
    bytearray(b"x") * (1 << 27)  # 128 MB, written
print(faults() - before, platform.libc_ver()[0])
"""


def page_faults(how: str) -> int:
    """Pages that the system had to provide for a block of 128 MB when such a block had just been freed."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60)
    pages, *library = done.stdout.split()
    if library != ["glibc"]:
        pytest.skip("another C library than glibc")
    return int(pages)


def test_kept_memory_is_used_again():
    assert page_faults("kept") < 16
    assert page_faults("given back") > 32, "the test would not see a difference"


def test_memory_that_the_system_does_not_give_is_no_bug() -> None:
    with pytest.raises(MissingError, match="out of memory: take less"), memory_errors("take less"):
        torch.empty(1 << 62, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), memory_errors("take less"):
        torch.zeros(2).view(3)
