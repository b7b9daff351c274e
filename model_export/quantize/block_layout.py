"""Lays out blocks of small integers as the kernels read them, from the file's own pages.

16 rows lie side by side, four values of each together: the dot product instructions of a CPU then
give 16 outputs in the lanes of a vector (docs/kernels.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_export.quantize.block_quantizer import Blocks

LANES = 16
BLOCK = 32
QUAD = 4


class Packed(NamedTuple):
    """The inputs of AffineMatMul and AffineGather, in their order, in whole groups and blocks.

    `values` uint8 [groups, blocks of 32, 64 * bits]: 8 quads of 16 rows of 4 values; with 4 bits
    the fifth quad lies in the high halves of the first's bytes, and so on. `scales` and `offsets`
    float16 [groups, blocks, 16].
    """

    values: NDArray[np.uint8]
    scales: NDArray[np.float16]
    offsets: NDArray[np.float16] | None


def pack(blocks: Blocks) -> Packed:
    """Returns `blocks` in the order of the kernels."""
    values = blocks.values.view(np.uint8)
    rows, columns = -(-values.shape[0] // LANES) * LANES, -(-values.shape[1] // BLOCK) * BLOCK
    padded = np.zeros((rows, columns), np.uint8)
    padded[: values.shape[0], : values.shape[1]] = values
    quads = padded.reshape(rows // LANES, LANES, columns // BLOCK, BLOCK // QUAD, QUAD)
    quads = quads.transpose(0, 2, 3, 1, 4)
    if blocks.bits == 4:
        quads = quads[:, :, :4] | quads[:, :, 4:] << 4
    packed = np.ascontiguousarray(quads).reshape(rows // LANES, columns // BLOCK, -1)
    offsets = None if blocks.offsets is None else _by_lanes(blocks.offsets)
    return Packed(packed, _by_lanes(blocks.scales), offsets)


def _by_lanes(figures: NDArray[np.float16]) -> NDArray[np.float16]:
    """Lays out [rows, blocks] as [groups, blocks, 16]."""
    rows, blocks = figures.shape
    padded = np.zeros((-(-rows // LANES) * LANES, blocks), np.float16)
    padded[:rows] = figures
    return np.ascontiguousarray(padded.reshape(-1, LANES, blocks).transpose(0, 2, 1))
