"""Blocks whose scale and offset were searched by the importance of the inputs."""

from __future__ import annotations

import threading
from functools import reduce

import numpy as np
import pytest

from model_export.quantize import importance_search
from model_export.quantize.block_quantizer import Blocks, affine
from model_export.quantize.importance_search import Found, search_affine
from model_export.quantize.quantized_tensors import quantized_tensors
from model_export.weights import ArrayWeight, CalibratedWeight, Floats
from tests.support.affine_node import dequantised

ROWS, COLUMNS = 75, 288


def weights(rows: int = ROWS, columns: int = COLUMNS) -> Floats:
    return np.random.default_rng(0).standard_t(5, size=(rows, columns)).astype(np.float32)


def importances(columns: int = COLUMNS) -> Floats:
    """A few inputs are far larger than the others, as in models."""
    return (np.random.default_rng(1).standard_t(2, size=columns) ** 2).astype(np.float32)


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


def test_a_block_has_the_same_bits_whichever_lie_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cut, importance = weights().reshape(-1, 32), importances().reshape(-1, 32)
    whole = search_affine(cut, importance)
    for number in (0, 1, 300):
        one = search_affine(cut[number : number + 1], importance[number % 9 :][:1])
        place = slice(number, number + 1)
        assert_equal(one, Found(whole.values[place], whole.scales[place], whole.offsets[place]))
    for batch in (1, 7, 4096):
        monkeypatch.setattr(importance_search, "_BATCH", batch)
        again = search_affine(cut, importance)
        assert_equal(again, whole)


def assert_equal(found: Found, expected: Found) -> None:
    assert np.array_equal(found.values, expected.values)
    assert np.array_equal(found.scales, expected.scales)
    assert np.array_equal(found.offsets, expected.offsets)


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
