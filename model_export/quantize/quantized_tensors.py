"""The tensors of a quantised matrix, which are computed when they are written."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from model_export.lazy_tensors import Arrays, GroupTensor, TensorGroup
from model_export.quantize.block_layout import BLOCK, LANES, pack
from model_export.quantize.block_quantizer import Blocks, affine, compact, k_quant, symmetric
from model_export.quantize.stored_blocks import blocks_in, stored_blocks
from model_export.weights import Floats, Weight, importance_of


def quantized_tensors(
    matrix: Weight, bits: int, block_size: int, algorithm: str
) -> tuple[GroupTensor, GroupTensor, GroupTensor | None]:
    """Returns values, scales and offsets of `matrix` [outputs, inputs], as block_layout.py says.

    Of compact blocks, the third are the scales of the rows.
    A matrix that its file has in int4 blocks that fit keeps these. Affine blocks are chosen by the
    importance of the inputs where they were measured. Every group of 16 rows is computed by
    itself, so a slice of the matrix gives the same bytes as the whole.
    """
    kind = kind_of(bits, algorithm)
    stored = stored_blocks(matrix, block_size) if bits == 4 and kind == "affine" else None
    importance = fitting_importance(matrix)

    def compute(rows: Floats) -> Arrays:
        packed = pack(quantised(rows, bits, block_size, algorithm, importance))
        return tuple(array for array in packed if array is not None)

    def take_over(records: NDArray[Any]) -> Arrays:
        return tuple(pack(blocks_in(records, block_size)))  # type: ignore[arg-type]

    rows, columns = matrix.shape
    group = (
        TensorGroup(matrix, LANES, compute)
        if stored is None
        else TensorGroup(stored, LANES, take_over)
    )
    groups = -(-rows // LANES)
    values = (groups, -(-columns // BLOCK), bits * BLOCK * LANES // 8)
    scales = (groups, -(-columns // block_size), LANES)
    if kind == "compact":
        both = (*scales[:2], 2 * LANES)
        return (
            GroupTensor(group, 0, ir.DataType.UINT8, values),
            GroupTensor(group, 1, ir.DataType.UINT8, both),
            GroupTensor(group, 2, ir.DataType.FLOAT16, (groups, 1, LANES)),
        )
    return (
        GroupTensor(group, 0, ir.DataType.UINT8, values),
        GroupTensor(group, 1, ir.DataType.FLOAT16, scales),
        None if kind == "symmetric" else GroupTensor(group, 2, ir.DataType.FLOAT16, scales),
    )


def fitting_importance(matrix: Weight) -> Floats | None:
    """Returns the mean squares of the matrix's inputs, None where there is not one for each."""
    importance = importance_of(matrix)
    return importance if importance is not None and len(importance) == matrix.shape[1] else None


def quantised(
    rows: Floats, bits: int, block_size: int, algorithm: str, importance: Floats | None
) -> Blocks:
    """Quantises some rows of a matrix; `importance` counts for affine and compact blocks alone."""
    kind = kind_of(bits, algorithm)
    if kind == "compact":
        return compact(rows, block_size, importance, bits)
    if kind == "symmetric":
        return symmetric(rows, bits, block_size)
    if kind == "k_quant":
        return k_quant(rows, block_size)
    return affine(rows, block_size, importance, bits)


def kind_of(bits: int, algorithm: str) -> str:
    """Returns the kind of blocks: `algorithm` is that of int4; int5 and int6 are always affine.

    "compact" is that of any bits below 8.
    """
    if algorithm == "compact":
        return algorithm
    return algorithm if bits == 4 else "symmetric" if bits == 8 else "affine"
