"""A float matrix as blocks of small integers, packed as com.microsoft::MatMulNBits reads them.

Pure arithmetic: knows no graph. Called by quantize.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnxruntime.capi import _pybind_state as kernels
from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

_KERNELS = {4: kernels.quantize_matmul_4bits, 8: kernels.quantize_matmul_8bits}
_ROWS_AT_ONCE = 4096
"""k_quant holds about twelve copies of what it works on; 4096 rows of 4096 are 0.8 GB."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix of `rows` outputs and `columns` inputs, each row cut into blocks.

    `packed` uint8 [rows, blocks, block_size * bits / 8], the low half of a byte first;
    `scales` float32 [rows, blocks]; `zero_points` uint8 [rows, ceil(blocks * bits / 8)], None
    for symmetric blocks, whose zero is 2 ** (bits - 1). `offsets` float32 [rows, blocks] is what
    affine blocks add to each of their weights, None for all others.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8] | None
    bits: int
    block_size: int
    columns: int
    offsets: NDArray[np.float32] | None = None

    @property
    def rows(self) -> int:
        """The outputs of the linear layer, or the entries of the embedding."""
        return int(self.packed.shape[0])


def round_to_nearest(
    weight: NDArray[np.float32], bits: int, block_size: int, symmetric: bool
) -> Blocks:
    """Each block by its range, with ONNX Runtime's own kernel. `weight` [rows, columns]."""
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    padded = np.zeros((blocks * block_size, rows), np.float32)
    padded[:columns] = weight.T
    packed = np.zeros((rows, blocks, block_size * bits // 8), np.uint8)
    scales = np.zeros((rows, blocks), np.float32)
    zero_points = np.zeros((rows, -(-blocks * bits // 8)), np.uint8)
    _KERNELS[bits](packed, padded, scales, zero_points, block_size, rows, columns, symmetric)
    return Blocks(packed, scales, None if symmetric else zero_points, bits, block_size, columns)


def affine(weight: NDArray[np.float32], block_size: int) -> Blocks:
    """4 bits from each block's smallest weight to its largest: scale * (q - 8) + offset.

    The grid of GGUF's Q4_1 (ggml-quants.c, quantize_row_q4_1), whose ends every block reaches:
    weights that come from such a file are found again exactly. `weight` [rows, columns], columns
    in whole blocks.
    """
    rows, columns = weight.shape
    cut = weight.reshape(rows, -1, block_size)
    low, high = cut.min(axis=2), cut.max(axis=2)
    scales = (high - low) / np.float32(15)
    steps = np.where(scales > 0, scales, np.float32(1))  # a block of one value
    values = np.rint((cut - low[..., np.newaxis]) / steps[..., np.newaxis]).astype(np.uint8)
    offsets = low + np.float32(8) * scales
    return Blocks(_pack(values, 4), scales, None, 4, block_size, columns, offsets)


def k_quant(weight: NDArray[np.float32], bits: int, block_size: int) -> Blocks:
    """Scale and zero of each block by a weighted search, as llama.cpp's k-quants.

    ONNX Runtime's port of https://github.com/ggml-org/llama.cpp ggml-quants.c; asymmetric.
    """
    parts = [
        _k_quant(weight[row : row + _ROWS_AT_ONCE], bits, block_size)
        for row in range(0, len(weight), _ROWS_AT_ONCE)
    ]
    values, scales, zeros = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Blocks(
        _pack(values, bits), scales, _pack(zeros, bits), bits, block_size, weight.shape[1]
    )


def _k_quant(
    weight: NDArray[np.float32], bits: int, block_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Values [rows, blocks, block_size], scales and zeros [rows, blocks]."""
    rows, columns = weight.shape
    blocks = -(-columns // block_size)
    padded = np.zeros((rows, blocks * block_size), np.float32)
    padded[:, :columns] = weight
    with np.errstate(divide="ignore", invalid="ignore"):  # blocks of one value
        values, scales, zeros = quant_tensor_k_quant_cpu(padded, bits, block_size)
    return (
        values.astype(np.uint8).reshape(rows, blocks, block_size),
        scales.astype(np.float32).reshape(rows, blocks),
        zeros.astype(np.uint8).reshape(rows, blocks),
    )


def _pack(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Two 4-bit values to a byte along the last axis, the first in the low half."""
    if bits == 8:
        return values
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros_like(values[..., :1])], axis=-1)
    packed: NDArray[np.uint8] = np.bitwise_or(values[..., ::2], values[..., 1::2] << 4)
    return packed
