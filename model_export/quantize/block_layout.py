"""Lays out blocks of small integers as the kernels read them, from the file's own pages.

16 rows lie side by side, four values of each together: the dot product instructions of a CPU then
give 16 outputs in the lanes of a vector (docs/kernels.md).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_export.quantize.block_quantizer import Blocks

LANES = 16
BLOCK = 32
QUAD = 4


class Packed(NamedTuple):
    """The inputs of AffineMatMul and AffineGather, in their order, in whole groups and blocks.

    `values` uint8 [groups, blocks of 32, 64 * bits]: 8 quads of 16 rows of 4 values. Below 8 bits
    the fifth quad's low 4 bits lie in the high halves of the first's bytes, and so on; the high
    bits of 5 and 6 lie after all of these, quad 0's in the lowest bits of the first bytes.
    `scales` and `offsets` float16 [groups, blocks, 16]. Compact blocks have no `offsets`: `scales`
    uint8 [groups, blocks, 32] are 16 scales and then 16 zero points, and `row_scales` float16
    [groups, 1, 16].
    """

    values: NDArray[np.uint8]
    scales: NDArray[np.float16] | NDArray[np.uint8]
    offsets: NDArray[np.float16] | None = None
    row_scales: NDArray[np.float16] | None = None


def pack(blocks: Blocks) -> Packed:
    """Returns `blocks` in the order of the kernels."""
    values = _in_whole_groups(blocks.values.view(np.uint8))
    groups, columns = values.shape[0] // LANES, values.shape[1] // BLOCK
    quads = values.view(np.uint32).reshape(groups, LANES, columns, BLOCK // QUAD)
    quads = np.ascontiguousarray(quads.transpose(0, 2, 3, 1))
    if blocks.bits < 8:
        quads = _in_planes(quads, blocks.bits)
    packed = quads.view(np.uint8).reshape(groups, columns, -1)
    scales = _by_lanes(blocks.scales)
    if blocks.offsets is None:
        return Packed(packed, scales)
    offsets = _by_lanes(blocks.offsets)
    if blocks.row_scales is None:
        return Packed(packed, scales, offsets)
    both = np.concatenate([scales, offsets], axis=2)
    return Packed(packed, both, row_scales=_by_lanes(blocks.row_scales[:, np.newaxis]))


def _in_planes(quads: NDArray[np.uint32], bits: int) -> NDArray[np.uint32]:
    """Packs a block's 8 quads into `bits`: 4 of low bits, the rest of high ones.

    [groups, blocks, quads, 16]; every operation works in all four bytes of a quad.
    """
    low = quads & np.uint32(0x0F0F0F0F)
    planes = [low[:, :, :4] | low[:, :, 4:] << np.uint32(4)]
    if bits > 4:
        high = (quads ^ low) >> np.uint32(4)
        by_byte = high.reshape(*high.shape[:2], bits - 4, -1, LANES)
        places = np.arange(0, 8, bits - 4, dtype=np.uint32)[:, np.newaxis]
        planes.append(np.bitwise_or.reduce(by_byte << places, axis=3))
    return np.concatenate(planes, axis=2)


def _in_whole_groups(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fills rows and columns with zeros up to whole groups and blocks."""
    rows, columns = values.shape
    fill = ((0, -rows % LANES), (0, -columns % BLOCK))
    return np.pad(values, fill) if fill != ((0, 0), (0, 0)) else np.ascontiguousarray(values)


def _by_lanes(figures: NDArray[Any]) -> NDArray[Any]:
    """Lays out [rows, blocks] as [groups, blocks, 16]."""
    rows, blocks = figures.shape
    padded = np.zeros((-(-rows // LANES) * LANES, blocks), figures.dtype)
    padded[:rows] = figures
    return np.ascontiguousarray(padded.reshape(-1, LANES, blocks).transpose(0, 2, 1))
