"""level.cu on a GPU: its compiled variants loaded through CUDA's driver, and launched on torch's current stream."""

import ctypes
import functools

import torch

from pipelines.optical_flow.tvl1.cuda.compiler import Unavailable, cached_variant, forget_variant
from pipelines.optical_flow.tvl1.cuda.shapes import Limits, Shape, Variant
from pipelines.optical_flow.tvl1.cuda.solver import LevelArguments

# Of cuda.h.
_MAX_DYNAMIC_SHARED_SIZE = 8  # CU_FUNC_ATTRIBUTE_
_MAX_SHARED_OPTIN = 97  # CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
_COOPERATIVE_LAUNCH = 95  # CU_DEVICE_ATTRIBUTE_


class GPULauncher:
    """Launches level.cu on one GPU. Raises `Unavailable` where that cannot be done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        properties = torch.cuda.get_device_properties(device)
        self.architecture = f"sm_{properties.major}{properties.minor}"
        torch.cuda.current_stream(device).synchronize()  # from here on the device has a context
        if not self._attribute(_COOPERATIVE_LAUNCH):
            raise Unavailable(f"{properties.name} starts no cooperative launch")
        self.limits = Limits(properties.multi_processor_count, self._attribute(_MAX_SHARED_OPTIN))
        self.functions: dict[Variant, ctypes.c_void_p] = {}

    def load(self, variant: Variant) -> None:
        """Compiles the variant, or takes it from the cache, once."""
        if variant in self.functions:
            return
        module, code = ctypes.c_void_p(), cached_variant(variant, self.architecture)
        if _driver().cuModuleLoadData(ctypes.byref(module), code):  # a damaged file in the cache
            forget_variant(variant, self.architecture)
            _check(_driver().cuModuleLoadData(ctypes.byref(module), cached_variant(variant, self.architecture)))
        function = ctypes.c_void_p()
        _check(_driver().cuModuleGetFunction(ctypes.byref(function), module, b"solve_level"))
        _check(_driver().cuFuncSetAttribute(function, _MAX_DYNAMIC_SHARED_SIZE, self.limits.shared_bytes))
        self.functions[variant] = function

    def launch(self, shape: Shape, arguments: LevelArguments, slots: int) -> None:
        """Starts `slots * shape.blocks` blocks, which all run at once, on the current stream."""
        self.load(shape.variant)
        stream = ctypes.c_void_p(torch.cuda.current_stream(self.device).cuda_stream)
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        grid, block = (slots * shape.blocks, 1, 1), (shape.threads, 1, 1)
        # Cooperative: refused where the blocks do not all find room at once, as they wait for each other.
        _check(
            _driver().cuLaunchCooperativeKernel(
                self.functions[shape.variant], *grid, *block, shape.shared_bytes, stream, parameters
            )
        )

    def _attribute(self, number: int) -> int:
        handle, value = ctypes.c_int(), ctypes.c_int()
        _check(_driver().cuDeviceGet(ctypes.byref(handle), self.device.index))
        _check(_driver().cuDeviceGetAttribute(ctypes.byref(value), number, handle))
        return value.value


@functools.cache
def _driver() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise Unavailable(f"CUDA's driver cannot be loaded ({error})") from error


def _check(code: int) -> None:
    if code:
        words = ctypes.c_char_p()
        _driver().cuGetErrorName(code, ctypes.byref(words))
        raise Unavailable(f"CUDA's driver: {(words.value or b'').decode() or code}")
