"""Compiled kernels in several processes: whoever compiled them and whatever else a process computes, a pair's flow has
the bits that it has alone."""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.optical_flow.tvl1 import compilation

WIDTHS = (40, 200, 400)
"""Of 0.1.0 each had kernels of its own, and those compiled by different processes called each other's parts."""

PROGRAM = """
import hashlib, sys
from concurrent.futures import ThreadPoolExecutor
import torch
from pipelines.optical_flow import TVL1Parameters, tvl1_flow

def digest(width):
    noise = torch.rand(2, 1, 12, width // 3, generator=torch.Generator().manual_seed(width))
    frames = (255 * torch.nn.functional.interpolate(noise, (36, width), mode="bilinear")).to(torch.uint8)
    flows = [tvl1_flow(*frames, parameters=TVL1Parameters(mode=mode, warps=2)) for mode in ("cpu", "cuda")]
    assert all(flow.isfinite().all() and flow.abs().max() > 0.1 for flow in flows)
    return hashlib.sha256(b"".join(flow.numpy().tobytes() for flow in flows)).hexdigest()

widths = list(map(int, sys.argv[1:]))
torch.set_num_threads(1)
print(*map(digest, widths))
with ThreadPoolExecutor(3) as pool:
    print(*pool.map(digest, widths * 4))
"""


def started(cache: Path, widths: Sequence[int]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, *map(str, widths)]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def digests(process: "subprocess.Popen[str]") -> list[list[str]]:
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return [line.split() for line in out.splitlines()]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(cache: Path) -> dict[tuple[int, ...], list[list[str]]]:
    """By the order of the widths what a process computes: one after the other, then in three threads. Each begins with
    a width of its own; together they find the cache empty."""
    narrow, middle, wide = WIDTHS
    orders = [(narrow, middle, wide), (wide, middle, narrow), (middle, wide, narrow)]
    processes = [started(cache, order) for order in orders]
    return {order: digests(process) for order, process in zip(orders, processes, strict=True)}


def test_kernels_compiled_by_several_processes_give_every_width_its_own_flow_in_any_order_and_thread(
    found: dict[tuple[int, ...], list[list[str]]],
) -> None:
    alone = {order[0]: in_turn[0] for order, (in_turn, _) in found.items()}  # by a process that had computed no other
    assert len(set(alone.values())) == len(WIDTHS)
    for order, (in_turn, in_threads) in found.items():
        assert in_turn == [alone[width] for width in order]
        assert in_threads == in_turn * 4


@pytest.mark.usefixtures("found")
def test_processes_that_race_for_an_empty_cache_compile_once_for_all_widths(cache: Path) -> None:
    assert len(list(cache.rglob("*.nbc"))) == 1


@pytest.mark.usefixtures("found")
def test_a_kernel_that_is_stored_is_loaded_without_waiting_for_other_processes(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wait(descriptor: int, patience: float) -> bool:
        raise AssertionError("the lock is waited for")

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))
    monkeypatch.setattr(compilation, "take_lock", wait)
    monkeypatch.setattr(compilation, "_kernels", [])
    assert compilation.compiled_kernel()
    assert not caplog.messages
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache / "empty"))
    monkeypatch.setattr(compilation, "_kernels", [])
    monkeypatch.setattr(compilation, "_ready", lambda kernel: kernel)  # which is not called
    compilation.compiled_kernel()
    assert "the lock is waited for" in caplog.text


@pytest.mark.usefixtures("found")
def test_nothing_in_the_cache_is_named_by_a_counter_of_the_process_that_compiled_it(cache: Path) -> None:
    # Numba names a record type by when it was made in its process: equal names for different types elsewhere.
    (compiled,) = cache.rglob("*.nbc")
    assert b"pair_flow" in compiled.read_bytes()
    assert b"Record" not in compiled.read_bytes()


# ------------------------------------------------------------------ a cache that is damaged


NUMBER = 1234.5625

SMALL = """
import sys
sys.path.insert(0, sys.argv[1])
import small
from pipelines.optical_flow.tvl1 import compilation
from pipelines.optical_flow.tvl1.buffers import kernel_arguments
from pipelines.optical_flow.tvl1.kernels import pair
from pipelines.optical_flow.tvl1.parameters import TVL1Parameters

pair.pair_flow = small.pair_flow
kernel = compilation.compiled_kernel()
arguments = kernel_arguments(2, 2, TVL1Parameters())
kernel(*arguments)
print(arguments[-1].ravel().tolist(), sum(kernel.stats.cache_hits.values()))
"""
"""A kernel that takes no half minute: what it computes, and whether it was loaded."""


def computes(folder: Path, cache: Path) -> tuple[bool, bool, str]:
    """Of a process: whether it computes the number, whether it loaded the kernel, and what it said."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", SMALL, str(folder)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    numbers, hits = process.stdout.rsplit(None, 1)
    return numbers == str([NUMBER] * 8), hits == "1", process.stderr


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small kernel, and its `cache`, which a process has filled."""
    folder = tmp_path_factory.mktemp("small")
    body = f"def pair_flow(before, after, sizes, settings, rows, planes, scratch, flow):\n    flow[:] = {NUMBER}\n"
    (folder / "small.py").write_text(body)
    right, loaded, told = computes(folder, folder / "cache")
    assert right
    assert not loaded
    assert told == "compiling TV-L1 (about half a minute, once on this machine)\n"
    return folder


def test_a_damaged_cache_is_thrown_away_and_compiled_again_once(stored, tmp_path):
    cache = Path(shutil.copytree(stored / "cache", tmp_path / "cache"))
    (code,) = cache.rglob("*.nbc")
    data, number = code.read_bytes(), struct.pack("<f", NUMBER)
    assert number in data
    code.write_bytes(data.replace(number, struct.pack("<f", NUMBER + 1)))  # which nothing else would notice
    right, loaded, told = computes(stored, cache)
    assert right
    assert not loaded
    assert told.startswith("compiling TV-L1 (about half a minute, once on this machine; what ")
    assert told.endswith(" held is damaged or out of date)\n")
    assert computes(stored, cache) == (True, True, "")


def test_whatever_is_in_the_place_of_a_cached_file_is_noticed(stored, tmp_path):
    def is_whole() -> bool:
        (folder,) = (tmp_path / "cache").iterdir()
        return compilation._is_whole(folder)

    def restored() -> tuple[Path, Path, Path]:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        shutil.copytree(stored / "cache", tmp_path / "cache")
        return tuple(next((tmp_path / "cache").rglob(name)) for name in ("*.nbi", "*.nbc", "sha256"))

    restored()
    assert is_whole()
    for number in range(3):
        length = restored()[number].stat().st_size
        for place in range(0, length, length // 7):
            file = restored()[number]
            data = bytearray(file.read_bytes())
            file.write_bytes(data[:place])
            assert not is_whole()
            data[place] ^= 1
            file.write_bytes(data)
            assert not is_whole()
        file = restored()[number]
        file.unlink()
        assert not is_whole()
        file.mkdir()
        assert not is_whole()
        file = restored()[0].parent
        shutil.rmtree(file)
        file.write_bytes(b"")
        assert not is_whole()


def test_a_cache_that_cannot_be_emptied_is_not_used(stored, tmp_path, monkeypatch, caplog):
    def refuse(folder: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compilation, "_emptied", refuse)
    monkeypatch.setattr(compilation, "_kernels", [])
    monkeypatch.setattr(compilation, "_ready", lambda kernel: kernel)
    assert compilation.compiled_kernel().stats.cache_path is None
    assert "cannot be used ([Errno 13] Permission denied" in caplog.text
