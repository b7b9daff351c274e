"""AffineMatMul by every kernel that this CPU can run: exact, alike, and each row for itself."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from model_export.quantize.block_quantizer import Blocks, affine, compact, k_quant, symmetric
from tests.kernels.every_kernel import run
from tests.support.affine_node import dequantised, multiplier, rounded

ROWS = [*range(1, 18), 31, 37, 70]
# Inputs, outputs: SmolLM2's; a part of a block; a part of a group; of both.
SHAPES = [(576, 48), (100, 32), (96, 33), (33, 5)]
REFUSED = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument
COMPACT = ["compact4", "compact5 128", "compact6"]
WEIGHTS = ["affine", "symmetric", "int8", "affine 64", "int8 128", "k_quant", "int5", "int6 64"]
WEIGHTS += COMPACT


def matrix(inputs: int, outputs: int, weights: str = "affine") -> Blocks:
    array = np.random.default_rng(inputs).normal(size=(outputs, inputs)).astype(np.float32)
    name, _, size = weights.partition(" ")
    if name == "int8":
        return symmetric(array, 8, int(size or 32))
    if name.startswith("compact"):
        return compact(array, int(size or 32), None, int(name[-1]))
    if name in ("int5", "int6"):
        return affine(array, int(size or 32), bits=int(name[-1]))
    if name == "symmetric":
        return symmetric(array, 4, 32)
    return k_quant(array, 32) if name == "k_quant" else affine(array, int(size or 32))


def activations(rows: int, inputs: int) -> np.ndarray:
    """Each row of another size."""
    source = np.random.default_rng(rows)
    scale = 10.0 ** source.integers(-3, 4, (rows, 1))
    return (source.normal(size=(rows, inputs)) * scale).astype(np.float32)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_the_product_is_numpys_with_the_rounded_activations(
    inputs: int, outputs: int, weights: str
) -> None:
    blocks = matrix(inputs, outputs, weights)
    session = multiplier(blocks)
    for rows in ROWS:
        x = activations(rows, inputs)
        expected = rounded(x) @ dequantised(blocks).T
        allowed = 1e-5 * np.abs(rounded(x)) @ np.abs(dequantised(blocks)).T
        assert np.all(np.abs(run(session, x) - expected) <= allowed + 1e-12), rows


@pytest.mark.parametrize(
    ("bits", "extremes"), [(4, (0, 15)), (5, (0, 31)), (6, (0, 63)), (8, (-128, 127))]
)
@pytest.mark.parametrize("rows", range(1, 10))
def test_no_sum_overflows_at_the_extremes(rows: int, bits: int, extremes: tuple[int, int]) -> None:
    """All sums are integers below 2 ** 24, so float32 holds each of them exactly."""
    values = np.array([[q] * 64 for q in extremes * 8])
    ones, zeros = np.ones((16, 2), np.float16), np.zeros((16, 2), np.float16)
    if bits == 8:
        blocks = Blocks(values.astype(np.int8), ones, None, 8, 32)
    else:
        blocks = Blocks(values.astype(np.uint8), ones, zeros, bits, 32)
    for sign in (1, -1):
        x = np.full((rows, 64), sign * 127, np.float32)
        expected = x.astype(np.float64) @ values.astype(np.float64).T
        assert np.array_equal(run(multiplier(blocks), x), expected)


@pytest.mark.parametrize(("bits", "largest"), [(4, 15), (5, 31), (6, 63)])
@pytest.mark.parametrize("rows", range(1, 10))
def test_compact_scales_and_zero_points_are_exact_at_the_extremes(
    rows: int, bits: int, largest: int
) -> None:
    """A row's scale of 256 makes every weight a multiple of a power of two."""
    values = np.array([[q] * 64 for q in (0, largest) * 8], np.uint8)
    scales, zeros = np.array([[1, 255]] * 16, np.uint8), np.array([[255, 0]] * 16, np.uint8)
    row_scales = np.full(16, 256, np.float16)
    blocks = Blocks(values, scales, zeros, bits, 32, row_scales)
    x = np.full((rows, 64), 127, np.float32)
    expected = x.astype(np.float64) @ dequantised(blocks).T
    assert np.array_equal(run(multiplier(blocks), x), expected)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_rows_bits_depend_on_no_other_row(weights: str) -> None:
    session = multiplier(matrix(576, 70, weights))
    x = activations(70, 576)
    whole = run(session, x)
    for rows in ROWS:
        assert np.array_equal(run(session, x[:rows]), whole[:rows])
        assert np.array_equal(run(session, x[-rows:]), whole[-rows:])


@pytest.mark.parametrize("rows", [1, 70])
def test_the_bits_depend_on_no_number_of_threads(rows: int) -> None:
    blocks, x = matrix(576, 960), activations(rows, 576)
    one = run(multiplier(blocks, threads=1), x)
    for threads in (2, 3, 5):
        assert np.array_equal(run(multiplier(blocks, threads=threads), x), one)


def test_a_bias_is_added_to_every_row() -> None:
    blocks, x = matrix(96, 33), activations(20, 96)
    bias = np.linspace(-1, 1, 33, dtype=np.float32)
    with_bias = run(multiplier(blocks, bias), x)
    np.testing.assert_allclose(with_bias, run(multiplier(blocks), x) + bias, rtol=1e-6)


@pytest.mark.parametrize("shape", [(96,), (2, 3, 96), (1, 1, 1, 96)])
def test_the_leading_axes_are_kept(shape: tuple[int, ...]) -> None:
    session = multiplier(matrix(96, 33))
    x = activations(int(np.prod(shape[:-1])), 96)
    found = run(session, x.reshape(shape))
    assert found.shape == (*shape[:-1], 33)
    assert np.array_equal(found.reshape(-1, 33), run(session, x))


def test_no_rows_give_no_rows() -> None:
    assert run(multiplier(matrix(64, 48)), activations(0, 64)).shape == (0, 48)


def test_zeros_give_the_bias() -> None:
    bias = np.arange(33, dtype=np.float32)
    found = run(multiplier(matrix(96, 33), bias), np.zeros((18, 96), np.float32))
    assert np.array_equal(found, np.tile(bias, (18, 1)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [1, 18])
def test_what_is_not_finite_makes_its_own_row_nan_and_no_other(value: float, rows: int) -> None:
    session = multiplier(matrix(100, 33))
    x = activations(rows + 1, 100)
    clean = run(session, x)
    x[rows, 99] = value
    found = run(session, x)
    assert np.all(np.isnan(found[rows]))
    assert np.array_equal(found[:rows], clean[:rows])


@pytest.mark.parametrize("weights", ["affine", *COMPACT])
@pytest.mark.parametrize("size", [1e-38, 1e-31, 1e36])
def test_activations_at_the_ends_of_float32_stay_finite(size: float, weights: str) -> None:
    blocks = matrix(64, 48, weights)
    x = np.linspace(-size, size, 64, dtype=np.float32)[np.newaxis]
    found = run(multiplier(blocks), x)
    expected = x.astype(np.float64) @ dequantised(blocks).T
    np.testing.assert_allclose(found, expected, atol=size if size > 1 else 1e-29)


def test_activations_of_another_width_are_refused() -> None:
    session = multiplier(matrix(64, 48))
    with pytest.raises(
        onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="64 wide"
    ):
        run(session, activations(2, 65))


def test_activations_with_more_axes_than_eight_are_refused() -> None:
    with pytest.raises(REFUSED, match="more than 8 axes"):
        run(multiplier(matrix(64, 48)), np.zeros((1,) * 8 + (64,), np.float32))
