"""Matrices that a checkpoint stores in 4 bits, in groups with a scale each: AWQ's and GPTQ's.

They are read like all weights. What they are stored as can be read too, so that it need not be
quantised again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_export.weights import Floats, ReadWhole

Bytes = NDArray[np.uint8]
Halves = NDArray[np.float16]


class Grouped(NamedTuple):
    """Rows of a matrix: each value is scale * (value - zero) of its group.

    `values` [rows, columns], from 0 to 15; `scales` and `zeros` [rows, groups].
    """

    values: Bytes
    scales: Halves
    zeros: Bytes


@dataclass(frozen=True, slots=True)
class GroupedWeight(ReadWhole):
    """A matrix of 4 bits a value, `group_size` of a row after the other with one scale and zero.

    Its file has it by columns, so that a row is read by reading all.
    """

    shape: tuple[int, int]
    group_size: int
    stored: Callable[[int, int], Grouped]
    """Reads the rows from the first number to before the second."""

    def rows(self, start: int = 0, stop: int | None = None) -> Grouped:
        """Returns rows as they are stored."""
        first, last, _ = slice(start, stop).indices(self.shape[0])
        return self.stored(first, max(first, last))

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Returns rows as float32."""
        values, scales, zeros = self.rows(start, stop)
        cut = values.reshape(*zeros.shape, self.group_size).astype(np.float32)
        cut -= zeros[..., np.newaxis]
        cut *= scales.astype(np.float32)[..., np.newaxis]
        return cut.reshape(values.shape)
