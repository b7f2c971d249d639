"""How many processes compute flow."""

from pipelines.runtime.devices import available_cores
from pipelines.runtime.growth import Growth, Helper

# Decoding, resizing, grey, compressing and writing take 2 to 4 ms of a core per pair (docs/benchmarks.md), so one core
# feeds 250 to 500 pairs/s and the 4,000 pairs/s of a fast GPU need ten or more. A process's reading and writing threads
# share Python's lock, so a process counts as one core: one process for each core, but at most 12. Each holds a CUDA
# context (about 0.5 GB) and the method's buffers (TV-L1 at 340x256: 10 MB a pair, up to 256 pairs): 4 GB in all.
_STEPS_OF_A_GPU = (1, 4, 12)
_GPU_BYTES_EACH = 4 * 10**9


def processes_for_gpu(cores: int, memory: int) -> int:
    """How many share a GPU of `memory` bytes."""
    return max(1, min(cores, _STEPS_OF_A_GPU[-1], memory // _GPU_BYTES_EACH))


def growth_on(device: str, mixer: Helper | None = None) -> Growth:
    """How many processes compute on `device`: on a GPU 1, 4 or 12, or the mixer in their place, as there is room and as
    measured."""
    if device == "cpu":
        return Growth((available_cores(),))
    import torch

    return growth_on_gpu(available_cores(), torch.cuda.get_device_properties(device).total_memory, mixer)


def growth_on_gpu(cores: int, memory: int, mixer: Helper | None) -> Growth:
    """The same for a GPU of `memory` bytes. Those that feed the mixer have computed themselves before, so it needs room
    beside them."""
    most, fed = processes_for_gpu(cores, memory), processes_for_gpu(cores, memory - _GPU_BYTES_EACH)
    return Growth(sorted({min(number, most) for number in _STEPS_OF_A_GPU}), mixer if fed > 1 else None, fed)
