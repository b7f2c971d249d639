"""How many processes compute flow."""

from pipelines.runtime.devices import available_cores

# Decoding, resizing, grey, compressing and writing cost 2 to 4 ms of a core a pair (docs/benchmarks.md), so one feeds
# 250 to 500 pairs/s and the 4,000 pairs/s of a fast GPU want ten or more. A process's reading and writing threads share
# what Python locks, so count one core to a process: one for each core, but no more than 12. Each holds a CUDA context
# (about 0.5 GB) and the method's buffers (TV-L1 at 340x256: 10 MB a pair, up to 256 pairs): 4 GB are allowed for.
_MOST_A_GPU = 12
_GPU_BYTES_EACH = 4 * 10**9


def default_workers(device: str) -> int:
    """Where flow is computed on `device`: one a core, and as many as a GPU has room for."""
    if device == "cpu":
        return available_cores()
    import torch

    return processes_for_gpu(available_cores(), torch.cuda.get_device_properties(device).total_memory)


def processes_for_gpu(cores: int, memory: int) -> int:
    """How many share a GPU of that many bytes."""
    return max(1, min(cores, _MOST_A_GPU, memory // _GPU_BYTES_EACH))
