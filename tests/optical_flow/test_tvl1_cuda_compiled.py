"""The CUDA engine's kernel compiled by NVRTC for GPUs that are not here."""

import re

import pytest

from pipelines.optical_flow.tvl1.cuda import compiler
from pipelines.optical_flow.tvl1.cuda.compiler import Unavailable, cached_variant, compile_variant, nvrtc_libraries
from pipelines.optical_flow.tvl1.cuda.shapes import VARIANTS, Variant

compiling = pytest.mark.skipif(not nvrtc_libraries(), reason="NVRTC is not installed")


def expect_registers_enough(variant: Variant, architecture: str) -> None:
    """No array in local memory, and nothing spilled to it: the state of a thread is 6 values a row."""
    code, log = compile_variant(variant, architecture)
    assert code.startswith(b"\x7fELF")
    registers = re.search(r"Used (\d+) registers", log)
    assert registers is not None, log
    # What a multiprocessor has, with all warps of a block on it.
    assert int(registers[1]) * 32 * variant.most_strips <= 65536
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log, log


@compiling
def test_the_kernel_compiles_without_spilling_registers():
    expect_registers_enough(Variant(4, 24), "sm_90")  # the fewest registers


@compiling
@pytest.mark.emulate
@pytest.mark.parametrize("architecture", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_every_variant_does_for_every_architecture(variant, architecture):
    expect_registers_enough(variant, architecture)


@compiling
def test_an_architecture_that_nvrtc_does_not_know_is_named():
    with pytest.raises(Unavailable, match="NVRTC for sm_10: "):
        compile_variant(VARIANTS[-1], "sm_10")


def test_without_nvrtc_the_engine_says_so(monkeypatch):
    compiler._nvrtc.cache_clear()
    monkeypatch.setattr(compiler, "nvrtc_libraries", lambda: [])
    with pytest.raises(Unavailable, match="NVRTC, which torch's CUDA wheels bring, is not installed"):
        compile_variant(VARIANTS[-1], "sm_90")


def test_what_is_compiled_is_kept_on_disk_until_the_source_changes(monkeypatch, tmp_path):
    compiled = []

    def compile_only(variant: Variant, architecture: str) -> tuple[bytes, str]:
        compiled.append(architecture)
        return b"code for " + architecture.encode(), ""

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "compile_variant", compile_only)
    monkeypatch.setattr(compiler, "_version", lambda: "13.0")
    for architecture in ("sm_90", "sm_80", "sm_90"):
        assert cached_variant(VARIANTS[0], architecture) == b"code for " + architecture.encode()
    assert compiled == ["sm_90", "sm_80"]
    cached_variant(VARIANTS[1], "sm_90")
    monkeypatch.setattr(compiler, "source", lambda: "another")
    cached_variant(VARIANTS[0], "sm_90")
    assert compiled == ["sm_90", "sm_80", "sm_90", "sm_90"]
    compiler.forget_variant(VARIANTS[0], "sm_90")
    cached_variant(VARIANTS[0], "sm_90")
    assert len(compiled) == 5


@pytest.mark.parametrize(
    "damage", [lambda code: code[:-1], lambda code: code[:-1] + b"?", lambda code: code[32:], lambda code: b""]
)
def test_damaged_machine_code_on_disk_is_compiled_again(monkeypatch, tmp_path, damage):
    compiled = []
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiler, "compile_variant", lambda *of: (compiled.append(of) or b"code", ""))
    monkeypatch.setattr(compiler, "_version", lambda: "13.0")
    cached_variant(VARIANTS[0], "sm_90")
    (file,) = tmp_path.rglob("*.cubin")
    file.write_bytes(damage(file.read_bytes()))
    assert cached_variant(VARIANTS[0], "sm_90") == cached_variant(VARIANTS[0], "sm_90") == b"code"
    assert len(compiled) == 2
