"""The layout of blocks: every value is read back from where docs/kernels.md says that it lies."""

from __future__ import annotations

import numpy as np
import pytest

from model_export.quantize.block_layout import Packed, pack
from model_export.quantize.block_quantizer import Blocks, affine, symmetric

MATRIX = np.random.default_rng(0).normal(size=(35, 100)).astype(np.float32)
BLOCKS = {
    **{f"{bits} bits": affine(MATRIX, 64, bits=bits) for bits in (4, 5, 6)},
    **{f"{bits} bits without offsets": symmetric(MATRIX, bits, 32) for bits in (4, 8)},
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_value_is_found_again(name: str) -> None:
    blocks = BLOCKS[name]
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
