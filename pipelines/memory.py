"""What becomes of memory that a process has freed."""

import contextlib
import ctypes

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
