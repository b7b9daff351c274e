"""Tensors of a graph that are computed when they are written, from weights that are read then.

The passes put one into the place of another and never look at its values: a whole model of them
takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model_export.weights import Weight

Arrays = tuple[NDArray[np.generic], ...]


class Rows(Protocol):
    """The source of a group of tensors: a weight, or its rows in another form."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes, of which the first are the rows."""

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Reads the rows `start` to `stop`, all without them."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorGroup:
    """Tensors that are computed together, from some rows of a weight at a time.

    An entry of the tensors' first axis is made of `rows_per_entry` rows, the last one of what
    is left. `compute` takes rows from the beginning of an entry on, and returns these entries of
    every tensor.
    """

    weight: Rows
    rows_per_entry: int
    compute: Callable[[NDArray[Any]], Arrays]


class GroupTensor(ir.LazyTensor):
    """One of the tensors of a group."""

    __slots__ = ("group", "index")

    def __init__(
        self, group: TensorGroup, index: int, dtype: ir.DataType, shape: tuple[int, ...]
    ) -> None:
        super().__init__(self._compute, dtype, ir.Shape(shape))
        self.group, self.index = group, index

    def _compute(self) -> ir.TensorProtocol:
        """Computes the whole, and the other tensors of the group with it."""
        return ir.tensor(self.group.compute(self.group.weight.read())[self.index])


class WeightTensor(ir.LazyTensor):
    """A weight as a tensor of float32."""

    __slots__ = ("weight",)

    def __init__(self, weight: Weight, name: str | None = None) -> None:
        super().__init__(self._read, ir.DataType.FLOAT, ir.Shape(weight.shape), name=name)
        self.weight = weight

    def _read(self) -> ir.TensorProtocol:
        return ir.tensor(self.weight.read())
