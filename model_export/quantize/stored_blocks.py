"""Takes over the blocks of a checkpoint that is quantised already, where ours can hold them.

A block of ours is scale * value + offset; the groups of AWQ and GPTQ are scale * (value - zero),
so the offset is -scale * zero, rounded to float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_export.grouped_weights import GroupedWeight
from model_export.quantize.block_quantizer import Blocks
from model_export.weights import CalibratedWeight, ReadWhole, SlicedWeight, StackedWeight, Weight


class _Range(NamedTuple):
    """Some rows of a matrix that is stored in groups."""

    matrix: GroupedWeight
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class StoredBlocks(ReadWhole):
    """The rows of a matrix as blocks: numpy's records of values, scales and offsets."""

    ranges: tuple[_Range, ...]
    block_size: int

    @property
    def shape(self) -> tuple[int, int]:
        """The rows and columns of the matrix."""
        rows = sum(part.stop - part.start for part in self.ranges)
        return rows, self.ranges[0].matrix.shape[1]

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Returns a record for each row."""
        first, last, _ = slice(start, stop).indices(self.shape[0])
        found = [_records(part, self.block_size) for part in _between(self.ranges, first, last)]
        return found[0] if len(found) == 1 else np.concatenate(found)


def stored_blocks(matrix: Weight, block_size: int) -> StoredBlocks | None:
    """Returns the blocks that `matrix` is stored as, None where it is not or they do not fit."""
    ranges = _ranges(matrix, 0, matrix.shape[0])
    if ranges is None or any(part.matrix.group_size % block_size for part in ranges):
        return None
    return StoredBlocks(ranges, block_size)


def blocks_in(records: NDArray[Any], block_size: int) -> Blocks:
    """Returns rows of StoredBlocks as blocks."""
    return Blocks(records["values"], records["scales"], records["offsets"], 4, block_size)


def _ranges(weight: Weight, start: int, stop: int) -> tuple[_Range, ...] | None:
    """Returns what the rows of `weight` are stored in, in their order."""
    match weight:
        case GroupedWeight():
            return (_Range(weight, start, stop),)
        case CalibratedWeight():
            return _ranges(weight.weight, start, stop)
        case SlicedWeight():
            return _ranges(weight.weight, weight.start + start, weight.start + stop)
        case StackedWeight():
            parts = [_ranges(part, 0, part.shape[0]) for part in weight.parts]
            found = [part for part in parts if part is not None]
            whole = tuple(each for part in found for each in part)
            return tuple(_between(whole, start, stop)) if len(found) == len(parts) else None
    return None


def _between(ranges: tuple[_Range, ...], start: int, stop: int) -> Iterator[_Range]:
    """Yields the rows `start` to `stop` of all ranges together."""
    before = 0
    for part in ranges:
        low, high = max(start - before, 0), min(stop - before, part.stop - part.start)
        if low < high:
            yield part._replace(start=part.start + low, stop=part.start + high)
        before += part.stop - part.start


def _records(part: _Range, block_size: int) -> NDArray[Any]:
    """Cuts each group into blocks, which all have its scale and its zero."""
    values, scales, zeros = part.matrix.rows(part.start, part.stop)
    blocks = part.matrix.group_size // block_size
    offsets = (-scales.astype(np.float32) * zeros).astype(np.float16)
    shape = (scales.shape[1] * blocks,)
    records = np.empty(
        len(values),
        [
            ("values", np.uint8, values.shape[1:]),
            ("scales", np.float16, shape),
            ("offsets", np.float16, shape),
        ],
    )
    records["values"] = values
    records["scales"] = np.repeat(scales, blocks, axis=1)
    records["offsets"] = np.repeat(offsets, blocks, axis=1)
    return records
