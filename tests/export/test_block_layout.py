"""The layout of blocks: every value is read back from where docs/kernels.md says that it lies."""

from __future__ import annotations

import numpy as np
import pytest

from model_export.quantize.block_layout import Packed, pack
from model_export.quantize.block_quantizer import Blocks, affine, compact, symmetric

MATRIX = np.random.default_rng(0).normal(size=(35, 100)).astype(np.float32)
BLOCKS = {
    **{f"{bits} bits": affine(MATRIX, 64, bits=bits) for bits in (4, 5, 6)},
    **{f"{bits} bits without offsets": symmetric(MATRIX, bits, 32) for bits in (4, 8)},
}
COMPACT = {f"compact{bits}": compact(MATRIX, 32, None, bits) for bits in (4, 5, 6)}


@pytest.mark.parametrize("name", [*BLOCKS, *COMPACT])
def test_every_value_is_found_again(name: str) -> None:
    blocks = (BLOCKS | COMPACT)[name]
    packed = pack(blocks)
    assert packed.values.shape == (3, 4, 64 * blocks.bits)
    found = [
        [value(packed, blocks.bits, row, column) for column in range(100)] for row in range(35)
    ]
    assert np.array_equal(np.array(found, np.uint8), blocks.values.view(np.uint8))


@pytest.mark.parametrize("name", BLOCKS)
def test_scales_and_offsets_are_found_again(name: str) -> None:
    blocks = BLOCKS[name]
    packed = pack(blocks)
    assert rows_of(packed.scales) == blocks.scales.tolist()
    assert (packed.offsets is None) == (blocks.offsets is None)
    if packed.offsets is not None and blocks.offsets is not None:
        assert rows_of(packed.offsets) == blocks.offsets.tolist()


@pytest.mark.parametrize("name", COMPACT)
def test_compact_scales_and_zero_points_lie_side_by_side(name: str) -> None:
    blocks = COMPACT[name]
    packed = pack(blocks)
    assert packed.offsets is None
    assert packed.scales.shape == (3, 4, 32)
    assert rows_of(packed.scales[:, :, :16]) == blocks.scales.tolist()
    assert blocks.offsets is not None
    assert rows_of(packed.scales[:, :, 16:]) == blocks.offsets.tolist()
    assert packed.row_scales is not None
    assert blocks.row_scales is not None
    assert packed.row_scales.ravel()[:35].tolist() == blocks.row_scales.tolist()


def test_compact_weights_are_steps_from_the_zero_point() -> None:
    values, scales = np.array([[0, 15, 8, 1] * 8], np.uint8), np.array([[64]], np.uint8)
    zero_points, row_scales = np.array([[128 - 8]], np.uint8), np.array([4], np.float16)
    weights = Blocks(values, scales, zero_points, 4, 32, row_scales).weights()
    assert weights.tolist() == [[-7.5, 7.5, 0.5, -6.5] * 8]


def test_the_weights_are_steps_above_the_offset() -> None:
    values = np.array([[0, 31, 1, 30] * 8], np.uint8)
    scales, offsets = np.array([[0.5]], np.float16), np.array([[-8]], np.float16)
    weights = Blocks(values, scales, offsets, 5, 32).weights()
    assert weights.tolist() == [[-8.0, 7.5, -7.5, 7.0] * 8]


def value(packed: Packed, bits: int, row: int, column: int) -> int:
    """Reads one value, without its sign."""
    block = packed.values[row // 16, column // 32].reshape(bits, 16, 4)[:, row % 16, column % 4]
    quad = column % 32 // 4
    if bits == 8:
        return int(block[quad])
    low = int(block[quad % 4]) >> (4 if quad > 3 else 0) & 15
    if bits == 4:
        return low
    high = int(block[4]) >> quad & 1 if bits == 5 else int(block[4 + quad // 4]) >> quad % 4 * 2 & 3
    return low + 16 * high


def rows_of(figures: np.ndarray) -> list[list[float]]:
    """Returns the first 35 rows of [groups, blocks, 16]."""
    rows: list[list[float]] = figures.transpose(0, 2, 1).reshape(-1, figures.shape[1])[:35].tolist()
    return rows
