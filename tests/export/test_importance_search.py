"""Blocks whose scale and offset were searched by the importance of the inputs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from model_export.quantize import importance_search
from model_export.quantize.block_quantizer import Blocks, affine, compact
from model_export.quantize.importance_search import (
    LIBRARY,
    Found,
    fit_zero_points,
    load_search,
    search_affine,
)
from model_export.quantize.quantized_tensors import quantized_tensors
from model_export.reporting import ExportError
from model_export.weights import ArrayWeight, CalibratedWeight, Floats
from tests.support.affine_node import dequantised
from tests.support.search_in_numpy import fit_in_numpy, search_in_numpy

ROWS, COLUMNS = 75, 288


def weights(rows: int = ROWS, columns: int = COLUMNS) -> Floats:
    return np.random.default_rng(0).standard_t(5, size=(rows, columns)).astype(np.float32)


def importances(columns: int = COLUMNS) -> Floats:
    """A few inputs are far larger than the others, as in models."""
    return (np.random.default_rng(1).standard_t(2, size=columns) ** 2).astype(np.float32)


def on_a_grid(blocks: Floats) -> Floats:
    scales: Floats = np.ptp(blocks, axis=1, keepdims=True).astype(np.float16) + np.float16(0.01)
    return (scales.astype(np.float32) * np.rint(blocks * 3)).astype(np.float32)


def mostly_zeros(blocks: Floats) -> Floats:
    """One in three blocks has no other weight; some zeros are negative."""
    zeros = np.copysign(np.float32(0), blocks)
    return np.where(
        (np.abs(blocks) < 1) | (np.arange(len(blocks)) % 3 == 0)[:, None], zeros, blocks
    )


KINDS: dict[str, Callable[[Floats], Floats]] = {
    "random": np.copy,
    "on a grid": on_a_grid,
    "one value": lambda blocks: np.repeat(blocks[:, :1], blocks.shape[1], axis=1),
    "mostly zeros": mostly_zeros,
    "positive": np.abs,
    "large": lambda blocks: blocks * np.float32(1000),
    "small": lambda blocks: blocks * np.float32(1e-4),
    "tiny": lambda blocks: blocks * np.float32(1e-7),
    "denormal": lambda blocks: blocks * np.float32(1e-41),
    "one far away": lambda blocks: np.where(np.arange(blocks.shape[1]) == 2, blocks * 900, blocks),
}


def error(blocks: Blocks, matrix: Floats, importance: Floats) -> float:
    return float((np.square(dequantised(blocks) - matrix) * importance).sum())


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("columns", [288, 80])
def test_the_outputs_err_far_less_than_from_the_ends_of_the_blocks(size: int, columns: int) -> None:
    matrix, importance = weights(columns=columns), importances(columns)
    found = error(affine(matrix, size, importance), matrix, importance)
    assert found < 0.6 * error(affine(matrix, size), matrix, importance)
    even = np.ones(columns, np.float32)
    found = error(affine(matrix, size, even), matrix, even)
    assert found < 0.93 * error(affine(matrix, size), matrix, even)


def test_the_search_comes_near_what_many_starts_find() -> None:
    matrix, importance = weights(8, 64), importances(64)
    found = error(affine(matrix, 32, importance), matrix, importance)
    assert found < 1.2 * thorough(matrix.reshape(-1, 32), importance.reshape(-1, 32))


def thorough(blocks: Floats, importance: Floats) -> float:
    """Returns the least error out of 36 ranges, each refitted until it stays."""
    total = 0.0
    for number, block in enumerate(blocks.astype(np.float64)):
        counts, low, high = importance[number % len(importance)], block.min(), block.max()
        root = np.sqrt(counts)
        best = np.inf
        for below in np.linspace(-0.06, 0.04, 6):
            for above in np.linspace(-0.06, 0.04, 6):
                first, last = low + below * (high - low), high - above * (high - low)
                scale, offset = (last - first) / 15, first
                q = nearest(block, scale, offset)
                for _ in range(4):
                    table = np.stack([q, np.ones(32)], axis=1) * root[:, np.newaxis]
                    scale, offset = np.linalg.lstsq(table, block * root)[0]
                    q = nearest(block, scale, offset)
                best = min(best, float((counts * np.square(block - scale * q - offset)).sum()))
        total += best
    return total


def nearest(block: Floats, scale: float, offset: float) -> Floats:
    values: Floats = np.clip(np.rint((block - offset) / scale), 0, 15)
    return values


@pytest.mark.parametrize("size", [0.0003, 1, 300])
def test_weights_of_a_q4_1_file_are_found_again(size: float) -> None:
    source = np.random.default_rng(0)
    scales = source.uniform(0.1 * size, size, (64, 9, 1)).astype(np.float16).astype(np.float32)
    minimums = (size * source.normal(size=(64, 9, 1))).astype(np.float16).astype(np.float32)
    values = source.integers(0, 16, (64, 9, 32))
    values[..., 0], values[..., 1] = 0, 15  # Q4_1 spans a block's range
    matrix = (scales * values.astype(np.float32) + minimums).reshape(64, COLUMNS)
    for importance in (importances(), np.ones(COLUMNS, np.float32)):
        blocks = affine(matrix, 32, importance)
        assert np.array_equal(blocks.values, values.reshape(64, COLUMNS))
        assert np.array_equal(blocks.scales, scales[..., 0])
        assert np.array_equal(blocks.offsets, minimums[..., 0])  # type: ignore[arg-type]


@pytest.mark.parametrize("importance", [np.zeros(64), np.eye(64)[5] * 1e30, np.full(64, 1e-30)])
def test_no_block_is_lost(importance: np.ndarray) -> None:
    matrix = weights(16, 64)
    matrix[0], matrix[1], matrix[2, 7], matrix[3] = 0, -0.25, 9, 1e-7
    found = dequantised(affine(matrix, 32, importance.astype(np.float32)))
    assert np.all(found[:2] == matrix[:2])
    assert np.all(np.abs(found - matrix) < 0.5)


def test_one_importance_serves_all_blocks() -> None:
    cut, importance = weights().reshape(-1, 32), importances(32)
    once = search_affine(cut, importance[np.newaxis])
    each = search_affine(cut, np.tile(importance, (len(cut), 1)))
    assert_equal(once, each)


def test_a_block_has_the_same_bits_whichever_lie_beside_it() -> None:
    cut, importance = weights().reshape(-1, 32), importances().reshape(-1, 32)
    whole = search_affine(cut, importance)
    for number in (0, 1, 300):
        one = search_affine(cut[number : number + 1], importance[number % 9 :][:1])
        place = slice(number, number + 1)
        assert_equal(one, Found(whole.values[place], whole.scales[place], whole.offsets[place]))
    for rows in (1, 5, 31):
        again = search_affine(cut[: 9 * rows], importance)
        assert_equal(again, Found._make(figures[: 9 * rows] for figures in whole))


def test_a_block_that_is_not_finite_spoils_none_beside_it() -> None:
    cut, importance = weights().reshape(-1, 32), importances().reshape(-1, 32)
    whole = search_affine(cut, importance)
    spoilt = cut.copy()
    spoilt[1::4, 3], spoilt[2::4, 7], spoilt[3::4] = np.nan, np.inf, 1e38
    assert_equal(
        Found._make(figures[::4] for figures in search_affine(spoilt, importance)),
        Found._make(figures[::4] for figures in whole),
    )


def assert_equal(found: Found, expected: Found) -> None:
    for name in Found._fields:
        figures, wanted = getattr(found, name), getattr(expected, name)
        assert figures.dtype == wanted.dtype
        assert figures.tobytes() == wanted.tobytes()


@pytest.fixture(params=["", "_portable"])
def _code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches by the code for this CPU, and by that for any."""
    library, ending = ctypes.CDLL(str(LIBRARY)), request.param
    monkeypatch.setattr(
        importance_search,
        "load_search",
        lambda name="search_affine": getattr(library, name + ending),
    )


@pytest.mark.usefixtures("_code")
@pytest.mark.parametrize("count", [1, 15, 16, 129])
@pytest.mark.parametrize("size", [4, 32, 36, 64, 128, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_are_those_of_the_same_search_in_numpy(kind: str, size: int, count: int) -> None:
    cut = KINDS[kind](weights(count, size))
    for period, bits in ((1, 4), (9, 4), (16, 5), (18, 6)):
        counts = importances(period * size).reshape(period, size)
        assert_equal(search_affine(cut, counts, bits), search_in_numpy(cut, counts, bits))


@pytest.mark.usefixtures("_code")
@pytest.mark.parametrize("count", [1, 15, 16, 129])
@pytest.mark.parametrize("size", [4, 32, 36, 64, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_the_zero_points_are_those_of_the_same_steps_in_numpy(
    kind: str, size: int, count: int
) -> None:
    cut = KINDS[kind](weights(count, size))
    for period, bits in ((1, 4), (9, 5), (16, 6)):
        counts = importances(period * size).reshape(period, size)
        _, scales, offsets = search_affine(cut, counts, bits)
        given = scales.astype(np.float32) * np.float32(1.01)
        found = fit_zero_points(cut, counts, given, offsets, bits)
        expected = fit_in_numpy(cut, counts, given, offsets, bits)
        assert np.array_equal(found.values, expected.values)
        assert np.array_equal(found.zero_points, expected.zero_points)


@pytest.mark.parametrize(("bits", "most"), [(4, 1.1), (5, 1.15), (6, 1.25)])
@pytest.mark.parametrize("size", [32, 64, 256])
def test_compact_scales_lose_little_that_those_in_float16_keep(
    size: int, bits: int, most: float
) -> None:
    matrix, importance = weights(), importances()
    wide = error(affine(matrix, size, importance, bits), matrix, importance)
    found = error(compact(matrix, size, importance, bits), matrix, importance)
    assert found < most * wide


@pytest.mark.parametrize("low", [2.0, -3.0])
def test_compact_blocks_of_one_sign_reach_zero(low: float) -> None:
    """No zero point is above the smallest value's, or beyond the largest by a whole range."""
    matrix = np.linspace(low, low + 1, 64, dtype=np.float32)[np.newaxis].repeat(3, axis=0)
    blocks = compact(matrix, 32, None, 4)
    assert np.abs(dequantised(blocks) - matrix).max() <= 3.5 / 15 / 2


def test_compact_rows_of_zeros_stay_zeros() -> None:
    matrix = np.concatenate([np.zeros((1, 64), np.float32), weights(2, 64)])
    blocks = compact(matrix, 32, None, 4)
    assert not blocks.weights()[0].any()
    assert blocks.weights()[1:].any(axis=1).all()


def test_a_bit_more_leaves_about_a_quarter_of_the_error() -> None:
    cut, importance = weights().reshape(-1, 32), importances().reshape(-1, 32)
    errors = []
    for bits in (4, 5, 6):
        values, scales, offsets = search_affine(cut, importance, bits)
        assert values.max() == 2**bits - 1
        found = values * scales[:, None].astype(np.float64) + offsets[:, None].astype(np.float64)
        counts = np.tile(importance, (len(cut) // len(importance), 1))
        errors.append(float((np.square(found - cut) * counts).sum()))
    for smaller, larger in pairwise(errors):
        assert 0.15 < larger / smaller < 0.35


@pytest.mark.parametrize("size", [33, 260])
def test_blocks_that_the_library_has_no_room_for_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"blocks of {size} weights"):
        search_affine(weights(3, size), importances(size)[np.newaxis])


@pytest.mark.parametrize("library", ["missing", "not a library"])
def test_an_export_without_the_library_says_how_to_make_it(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "search_affine.so"
    if library != "missing":
        path.write_text("text")
    monkeypatch.setattr(importance_search, "LIBRARY", path)
    with pytest.raises(ExportError, match="run `make kernels`"):
        load_search.__wrapped__()


def test_sums_are_added_row_after_row() -> None:
    columns = weights(32, 513)
    expected = reduce(np.add, columns)
    assert np.array_equal(importance_search._sum(columns), expected)
    for count in (1, 2, 3, 16):
        found = importance_search._sum(np.ascontiguousarray(columns[:, :count]))
        assert np.array_equal(found, expected[:count])


def test_threads_search_beside_one_another() -> None:
    matrix, importance = weights(), importances()
    expected = affine(matrix, 32, importance)
    found: list[Blocks] = []
    threads = [
        threading.Thread(target=lambda: found.append(affine(matrix, 32, importance)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for blocks in found:
        assert np.array_equal(blocks.values, expected.values)


def test_a_matrix_searched_in_slices_is_the_matrix_searched_whole() -> None:
    calibrated = CalibratedWeight(ArrayWeight(weights()), importances())
    group = quantized_tensors(calibrated, 4, 32, "affine")[0].group
    whole = group.compute(weights())
    plain = quantized_tensors(ArrayWeight(weights()), 4, 32, "affine")[0].group.compute(weights())
    assert not np.array_equal(whole[0], plain[0])
    for start, stop in ((0, 16), (16, 48), (48, 75), (64, 75)):
        entries = slice(start // 16, -(-stop // 16))
        for part, array in zip(group.compute(weights()[start:stop]), whole, strict=True):
            assert np.array_equal(part, array[entries])


@pytest.mark.parametrize(("bits", "algorithm"), [(8, "affine"), (4, "symmetric"), (4, "k_quant")])
def test_other_blocks_stay_as_they_are(bits: int, algorithm: str) -> None:
    calibrated = CalibratedWeight(ArrayWeight(weights()), importances())
    assert_same(calibrated, ArrayWeight(weights()), bits, algorithm)


def test_an_importance_of_another_length_is_not_taken() -> None:
    calibrated = CalibratedWeight(ArrayWeight(weights()), importances(32))
    assert_same(calibrated, ArrayWeight(weights()), 4, "affine")


def assert_same(first: CalibratedWeight, second: ArrayWeight, bits: int, algorithm: str) -> None:
    tensors = (quantized_tensors(each, bits, 32, algorithm) for each in (first, second))
    for found, expected in zip(*tensors, strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            assert found.tobytes() == expected.tobytes()
