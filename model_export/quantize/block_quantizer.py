"""Quantises a float matrix to blocks of small integers, each weight scale * value + offset.

Scales and offsets are rounded to float16 first and the values chosen for what they then are;
k_quant alone chooses before. float16 is GGUF's own precision, so what comes from Q4_1 or Q8_0 is
found again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

Floats = NDArray[np.float32]

_ROWS_AT_ONCE = 4096
"""k_quant holds about twelve copies of what it works on; 4096 rows of 4096 are 0.8 GB."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix of `rows` outputs and `columns` inputs, each row cut into blocks.

    `values` [rows, columns]: uint8 from 0 to 15, or int8 from -127 to 127. `scales` and `offsets`
    float16 [rows, blocks]; without offsets, 4 bits mean scale * (value - 8).
    """

    values: NDArray[np.uint8] | NDArray[np.int8]
    scales: NDArray[np.float16]
    offsets: NDArray[np.float16] | None
    bits: int
    block_size: int

    @property
    def rows(self) -> int:
        """The outputs of the linear layer, or the entries of the embedding."""
        return int(self.values.shape[0])

    @property
    def columns(self) -> int:
        """The inputs of the linear layer, or the width of the embedding."""
        return int(self.values.shape[1])


def symmetric(weight: Floats, bits: int, block_size: int) -> Blocks:
    """Rounds to nearest around zero, as GGUF's Q4_0 and Q8_0 (ggml-quants.c). No offsets.

    In 4 bits the largest value becomes -8, whichever sign that gives the scale.
    """
    cut = _cut(weight, block_size)
    size = np.abs(cut)
    if bits == 8:
        scales = _float16(size.max(axis=2) / np.float32(127))
        values = np.clip(_steps(cut, scales), -127, 127).astype(np.int8)
        return _blocks(weight, values, scales, None, 8, block_size)
    largest = np.take_along_axis(cut, size.argmax(axis=2)[..., np.newaxis], axis=2)[..., 0]
    scales = _float16(largest / np.float32(-8))
    unsigned = np.clip(_steps(cut, scales) + 8, 0, 15).astype(np.uint8)
    return _blocks(weight, unsigned, scales, None, 4, block_size)


def affine(weight: Floats, block_size: int) -> Blocks:
    """Quantises to 4 bits from each block's smallest weight to its largest, as GGUF's Q4_1.

    https://github.com/ggml-org/llama.cpp ggml-quants.c has it.
    """
    cut = _cut(weight, block_size)
    low, high = cut.min(axis=2), cut.max(axis=2)
    scales, offsets = _float16((high - low) / np.float32(15)), _float16(low)
    shifted = cut - offsets.astype(np.float32)[..., np.newaxis]
    values = np.clip(_steps(shifted, scales), 0, 15).astype(np.uint8)
    return _blocks(weight, values, scales, offsets, 4, block_size)


def k_quant(weight: Floats, block_size: int) -> Blocks:
    """Quantises to 4 bits, scale and offset by a weighted search, as llama.cpp's k-quants.

    ONNX Runtime's port of https://github.com/ggml-org/llama.cpp ggml-quants.c, whose zero points
    are integers.
    """
    parts = [
        _k_quant(_cut(weight[row : row + _ROWS_AT_ONCE], block_size), block_size)
        for row in range(0, len(weight), _ROWS_AT_ONCE)
    ]
    values, scales, zeros = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return _blocks(weight, values, _float16(scales), _float16(-scales * zeros), 4, block_size)


def _k_quant(cut: Floats, block_size: int) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """Returns values [rows, blocks, block_size], scales and zeros [rows, blocks]."""
    rows, blocks, _ = cut.shape
    with np.errstate(divide="ignore", invalid="ignore"):  # blocks of one value
        values, scales, zeros = quant_tensor_k_quant_cpu(cut.reshape(rows, -1), 4, block_size)
    return (
        values.astype(np.uint8).reshape(cut.shape),
        scales.astype(np.float32).reshape(rows, blocks),
        zeros.astype(np.float32).reshape(rows, blocks),
    )


def _cut(weight: Floats, block_size: int) -> Floats:
    """Cuts rows to [rows, blocks, block_size]; the last block is filled with the last weight.

    Zeros would move the ends of a block that does not reach them.
    """
    rows, columns = weight.shape
    return np.pad(weight, ((0, 0), (0, -columns % block_size)), "edge").reshape(
        rows, -1, block_size
    )


def _float16(figures: Floats) -> NDArray[np.float16]:
    return figures.astype(np.float16)


def _steps(cut: Floats, scales: NDArray[np.float16]) -> Floats:
    """Divides weights by scales; 0 where the scale is zero, in a block of one value."""
    wide = scales.astype(np.float32)[..., np.newaxis]
    steps: Floats = np.rint(cut / np.where(wide == 0, np.float32(np.inf), wide))
    return steps


def _blocks(
    weight: Floats,
    values: NDArray[np.uint8] | NDArray[np.int8],
    scales: NDArray[np.float16],
    offsets: NDArray[np.float16] | None,
    bits: int,
    block_size: int,
) -> Blocks:
    rows, columns = weight.shape
    return Blocks(values.reshape(rows, -1)[:, :columns], scales, offsets, bits, block_size)
