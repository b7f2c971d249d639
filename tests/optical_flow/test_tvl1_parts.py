"""Parts of TV-L1 that can be checked by themselves: networks, pyramid, mode cuda's rules, where kernels are kept."""

import itertools
import logging
import stat
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines.optical_flow import TVL1Parameters
from pipelines.optical_flow.tvl1 import buffers, compilation, reference
from pipelines.optical_flow.tvl1.kernels import median, networks, solve
from pipelines.optical_flow.tvl1.kernels.rows import MARGIN, U1
from pipelines.optical_flow.tvl1.parameters import level_sizes

# ------------------------------------------------------------------ networks


def exchanged(values: np.ndarray, network: Sequence[tuple[int, int]]) -> np.ndarray:
    """Carries out a network on [..., n]."""
    values = values.copy()
    for low, high in network:
        pair = values[..., [low, high]]
        values[..., low], values[..., high] = pair.min(-1), pair.max(-1)
    return values


@pytest.mark.parametrize(("side", "network"), [(3, networks.SORT_3), (5, networks.SORT_5)])
def test_the_column_networks_sort(side: int, network: Sequence[tuple[int, int]]) -> None:
    # Whatever sorts all columns of zeros and ones sorts all columns (Knuth's 0-1 principle).
    columns = np.array(list(itertools.product((0, 1), repeat=side)))
    assert (np.diff(exchanged(columns, network)) >= 0).all()


@pytest.mark.parametrize(
    ("side", "network"), [(3, networks.MEDIAN_OF_COLUMNS_3), (5, networks.MEDIAN_OF_COLUMNS_5)], ids=str
)
def test_the_median_networks_find_the_median_of_sorted_columns(side: int, network: Sequence[tuple[int, int]]) -> None:
    sorted_columns = np.tri(side + 1, side, -1, dtype=int)[:, ::-1]  # of zeros and ones: all there are
    windows = np.array(list(itertools.product(sorted_columns, repeat=side)))  # [.., column, value]
    flat = windows.transpose(0, 2, 1).reshape(len(windows), -1)
    assert (exchanged(flat, network)[:, networks.MEDIAN_AT] == np.median(flat, axis=1)).all()


@pytest.mark.parametrize("lengths", list(itertools.product(range(6), repeat=2)), ids=str)
def test_merging_networks_merge_sorted_values(lengths: tuple[int, int]) -> None:
    one, other = range(lengths[0]), range(lengths[0], sum(lengths))
    network, order = networks.merged(one, other)
    for ones in itertools.product(*(range(length + 1) for length in lengths)):
        values = np.concatenate([np.arange(n) >= n - k for n, k in zip(lengths, ones, strict=True)])
        assert (np.diff(exchanged(values, network)[order].astype(int)) >= 0).all()


@pytest.mark.parametrize("side", [3, 5])
def test_the_median_filter_gives_the_median_of_each_window(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Uncompiled, and so on arrays where the kernels have pointers.
    monkeypatch.setattr(median, "njit", lambda **options: lambda function: function)
    monkeypatch.setattr(median, "line", lambda lines, row, number: lines[row, number])
    monkeypatch.setattr(median, "_copy_row", median._copy_row.py_func)
    monkeypatch.setattr(median, f"_filter_rows_{side}", median._rows_filter(side))
    for height, width in itertools.product((1, 2, 3, 4, 5, 8), (1, 2, 5, 9)):
        flow = np.random.default_rng(height * width).normal(size=(height, width)).astype(np.float32)
        *_, rows, _, scratch, _ = buffers.kernel_arguments(height, width, TVL1Parameters())
        inside = rows[1 : height + 1, U1, MARGIN : MARGIN + width]
        inside[:] = flow
        median.median_filter.py_func(rows, 0, height, width, side, scratch)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(flow, side // 2, "edge"), (side, side))
        np.testing.assert_array_equal(inside, np.median(windows, axis=(2, 3)))


# ------------------------------------------------------------------ pyramid


@pytest.mark.parametrize(
    ("size", "nscales", "levels"),
    [
        ((256, 340), 5, [(256, 340), (205, 272), (164, 218), (131, 174), (105, 139)]),
        ((20, 200), 5, [(20, 200), (16, 160)]),
        ((19, 19), 5, [(19, 19)]),
        ((7, 3), 5, [(7, 3)]),
        ((256, 340), 1, [(256, 340)]),
    ],
)
def test_levels_shrink_by_the_step_until_a_side_is_below_16(
    size: tuple[int, int], nscales: int, levels: list[tuple[int, int]]
) -> None:
    assert level_sizes(*size, nscales, 0.8) == levels


def test_mode_cpu_resizes_by_areas_and_mode_cuda_by_first_centers() -> None:
    ramp = torch.arange(40.0).repeat(1, 40, 1)
    by_mode = {mode: reference._resize(ramp, (32, 32), (1.25, 1.25), mode)[0, 0] for mode in ("cpu", "cuda")}
    torch.testing.assert_close(by_mode["cuda"], torch.arange(32.0) * 1.25)
    torch.testing.assert_close(by_mode["cpu"], (torch.arange(32.0) + 0.5) * 1.25 - 0.5)


# ------------------------------------------------------------------ when to stop


def test_a_round_ends_with_the_first_small_change_and_the_solver_with_a_round_that_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = iter([9, 3, 1.5, 40, 2, 1.2, 0.9, 0.5])
    done: list[str] = []

    def iterate(rows: None, height: int, width: int, count: int, settings: object, _: None, result: np.ndarray) -> None:
        assert count == 1
        result[0] = next(changes)
        done.append("iteration")

    monkeypatch.setattr(solve, "iterate", iterate)
    monkeypatch.setattr(solve, "median_filter", lambda *_: done.append("median"))
    settings = SimpleNamespace(epsilon=1, inner=5, outer=10, median=5)
    solve.solve_as_cpu_class.py_func(None, 1, 1, settings, None)
    median_filters = ["median"] * 2  # of both components
    assert done == [*median_filters, *["iteration"] * 5, *median_filters, *["iteration"] * 2]
    assert next(changes) == 0.5


# ------------------------------------------------------------------ mode cuda


def test_mode_cuda_continues_pictures_beyond_their_border_and_mode_cpu_ends_them() -> None:
    picture = torch.full((1, 20, 20), 7.0)
    outwards = torch.full((2, 20, 20), 30.0)
    assert reference._warp(picture, outwards, TVL1Parameters()).abs().max() == 0
    torch.testing.assert_close(reference._warp(picture, outwards, TVL1Parameters(mode="cuda")), picture)


@pytest.mark.parametrize(("mode", "a"), [("cpu", -0.75), ("cuda", -0.5)])
def test_the_cubic_kernels_are_keys_with_the_modes_parameter(mode: str, a: float) -> None:
    weights = [float(w) for w in reference._cubic_weights(torch.tensor(0.5, dtype=torch.float64), mode)]
    assert weights == pytest.approx([a / 8, 0.5 - a / 8, 0.5 - a / 8, a / 8])


def lazy_stop(changes: list[float], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many iterations mode cuda does when its flow changes by so much in each, in thresholds."""
    left = iter(changes)
    done = []

    def iterate(
        grad: object, residual: object, u: object, p: object, parameters: object
    ) -> tuple[object, object, float]:
        done.append(next(left))
        return u, p, done[-1]

    monkeypatch.setattr(reference, "_iterate", iterate)
    one = torch.zeros(1)
    reference._solve_as_cuda_class(one, one, one, one, TVL1Parameters(mode="cuda", epsilon=1))
    return len(done)


def test_mode_cuda_looks_at_odd_iterations_and_waits_the_longer_the_more_it_saw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lazy_stop([9, 0.5, 0.5], monkeypatch) == 2  # the first look is at iteration 1
    # 5 seen at iteration 1 is 4, 3, 2, 1, 0 after each of the next five: the look after is at 7, though all were small.
    assert lazy_stop([9, 5, *[0.5] * 20], monkeypatch) == 8
    assert lazy_stop([9.0] * 300, monkeypatch) == 300


def test_mode_cuda_has_no_median_filter() -> None:
    assert TVL1Parameters(mode="cuda").median_filtering == 1
    assert TVL1Parameters().median_filtering == 5


# ------------------------------------------------------------------ compiled kernels


def test_strides_fit_their_widths_and_are_odd_multiples_of_a_cache_line() -> None:
    for width in range(1, 2000):
        cache_lines, left = divmod(buffers.stride_for(width), MARGIN)
        assert left == 0
        assert cache_lines % 2 == 1
        assert width + 2 * MARGIN <= cache_lines * MARGIN < width + 5 * MARGIN


@pytest.fixture
def no_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every place for a cache is a file; returns the temporary folder."""
    file = tmp_path / "file"
    file.touch()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file))
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    monkeypatch.setattr(compilation.tempfile, "gettempdir", lambda: str(temporary))
    return temporary


def test_without_a_writable_home_kernels_are_kept_among_the_temporary_files(no_folders: Path) -> None:
    folder = compilation.cache_folder()
    assert folder is not None
    assert folder.parent.parent == no_folders
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_temporary_folder_that_others_can_write_to_is_not_used(no_folders: Path) -> None:
    compilation.cache_folder()
    next(no_folders.iterdir()).chmod(0o777)
    assert compilation.cache_folder() is None


class _Unusable(Exception):
    pass


@pytest.mark.parametrize("folders", [True, False])
def test_a_cache_that_fails_costs_a_compilation_and_a_line_and_nothing_else(
    folders: bool, no_folders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Path | None] = []

    def kernel(folder: Path | None) -> Path | None:
        made.append(folder)
        return folder

    def ready(compiled: Path | None) -> Path | None:
        if compiled is not None:
            raise _Unusable
        return compiled

    monkeypatch.setattr(compilation, "_kernel", kernel)
    monkeypatch.setattr(compilation, "_ready", ready)
    if not folders:
        next_free = no_folders
        next_free.rmdir()
    with caplog.at_level(logging.INFO, logger="stres"):
        assert compilation._load_or_compile() is None
    assert made[-1] is None
    assert caplog.messages[0].startswith("compiling TV-L1 (about half a minute")
    assert len(caplog.messages) == (2 if folders else 1)
