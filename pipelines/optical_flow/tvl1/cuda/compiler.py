"""level.cu compiled by NVRTC, the compiler that torch's CUDA wheels bring, and the results kept on disk.

No toolkit and no header files are needed: the source includes none.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from pipelines.errors import StorageError
from pipelines.optical_flow.tvl1.compilation import writable_folder
from pipelines.optical_flow.tvl1.cuda.shapes import Variant
from pipelines.optical_flow.tvl1.kernels import networks
from pipelines.storage.atomic import write_bytes

SOURCE = Path(__file__).with_name("level.cu")
_SHA256_BYTES = hashlib.sha256().digest_size


class Unavailable(Exception):
    """The kernel cannot be compiled, loaded or trusted here; the message says why."""


def source() -> str:
    """level.cu after the macros it needs."""
    return network_macros() + SOURCE.read_text(encoding="utf-8")


def network_macros() -> str:
    """The sorting networks of all engines as macros that apply another macro to each exchange."""
    names = ("SORT_3", "SORT_5", "MEDIAN_OF_COLUMNS_3", "MEDIAN_OF_COLUMNS_5")
    lines = [f"#define {name}(X) " + " ".join(f"X({a}, {b})" for a, b in getattr(networks, name)) for name in names]
    return "\n".join([*lines, f"#define MEDIAN_AT {networks.MEDIAN_AT}", ""])


def compile_variant(variant: Variant, architecture: str) -> tuple[bytes, str]:
    """The machine code of `variant` for `architecture` (sm_90 and the like), and what the assembler says of it.

    Raises `Unavailable` where NVRTC is not there or refuses.
    """
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    code = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source().encode(), b"level.cu", 0, None, None)
    _check(nvrtc, code)
    try:
        options = [option.encode() for option in [*_options(variant, architecture), "--ptxas-options=-v"]]
        code = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        log = _bytes_of(nvrtc, program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if code:
            first = next((line for line in log.splitlines() if "error" in line), "")
            raise Unavailable(f"NVRTC for {architecture}: {_words(nvrtc, code)} {first}".rstrip())
        return _bytes_of(nvrtc, program, "CUBIN"), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def cached_variant(variant: Variant, architecture: str) -> bytes:
    """The same machine code, from the cache folder where that has it as it was written: after its SHA-256."""
    folder = writable_folder("tvl1-cuda")
    identity = hashlib.sha256("\0".join([source(), *_options(variant, architecture), _version()]).encode())
    path = folder / f"{architecture}-{variant}-{identity.hexdigest()[:16]}.cubin" if folder is not None else None
    if path is not None:
        with contextlib.suppress(OSError):
            stored = path.read_bytes()
            if stored == _with_sha256(code := stored[_SHA256_BYTES:]):
                return code
    code, _ = compile_variant(variant, architecture)
    if path is not None:
        with contextlib.suppress(StorageError):
            write_bytes(path, _with_sha256(code))
    return code


def _with_sha256(code: bytes) -> bytes:
    return hashlib.sha256(code).digest() + code


def forget_variant(variant: Variant, architecture: str) -> None:
    """Removes what is cached: the driver could not load it."""
    folder = writable_folder("tvl1-cuda")
    for path in folder.glob(f"{architecture}-{variant}-*.cubin") if folder is not None else ():
        path.unlink(missing_ok=True)


def _options(variant: Variant, architecture: str) -> Sequence[str]:
    defines = (f"-DROWS={variant.rows}", f"-DMOST_STRIPS={variant.most_strips}")
    return (f"--gpu-architecture={architecture}", "--std=c++17", *defines)


# ------------------------------------------------------------------ NVRTC


@functools.cache
def _nvrtc() -> ctypes.CDLL:
    for path in nvrtc_libraries():
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(path))
    raise Unavailable("NVRTC, which torch's CUDA wheels bring, is not installed")


def nvrtc_libraries() -> list[Path]:
    """Where the wheels of NVIDIA put it: nvidia/cu13/lib, before CUDA 13 nvidia/cuda_nvrtc/lib."""
    found = importlib.util.find_spec("nvidia")
    folders = found.submodule_search_locations or () if found else ()
    return [path for folder in folders for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.[0-9]*"))]


def _version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_nvrtc(), _nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"{major.value}.{minor.value}"


def _bytes_of(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(nvrtc: ctypes.CDLL, code: int) -> None:
    if code:
        raise Unavailable(f"NVRTC: {_words(nvrtc, code)}")


def _words(nvrtc: ctypes.CDLL, code: int) -> str:
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    return str(nvrtc.nvrtcGetErrorString(code).decode())
