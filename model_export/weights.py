"""The weights of a source model, which are read when they are asked for.

A Weight knows its shape and gives its rows as float32. The files' weights are Weights
(fetch/checkpoint.py); what the passes make of them, transposed and stacked, is one too. So a model
of any size passes through the export a part of a matrix at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Weight(Protocol):
    """A tensor of floats that is read when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Reads the entries `start` to `stop` of the first axis, all without them.

        Nobody may write into what is returned, which may be a view.
        """


def size_of(weight: Weight) -> int:
    """Counts the values of a weight."""
    return math.prod(weight.shape)


@dataclass(frozen=True, slots=True)
class ArrayWeight:
    """A weight that is in memory."""

    array: NDArray[np.generic]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return self.array.shape

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Returns a view where the array is float32."""
        return np.asarray(self.array[start:stop], np.float32)


class ReadWhole:
    """Marks a weight of which some rows take as long to read as all of them."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ComputedWeight(ReadWhole):
    """A weight that is computed whole whenever a part of it is read."""

    shape: tuple[int, ...]
    compute: Callable[[], Floats]

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Computes the whole and returns a part of it."""
        return self.compute()[start:stop] if self.shape else self.compute()


@dataclass(frozen=True, slots=True)
class TransposedWeight:
    """The transpose of a matrix. Reading all of it reads each value once; a part reads all."""

    matrix: Weight

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the matrix, turned round."""
        return self.matrix.shape[::-1]

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Returns a view of what the matrix gives."""
        return self.matrix.read().T[start:stop]


@dataclass(frozen=True, slots=True)
class StackedWeight:
    """Weights one after the other along the first axis; the other axes are alike."""

    parts: tuple[Weight, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The first axis has the sum of the parts' entries."""
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Reads the parts that the range touches, and joins them where there are several."""
        end = self.shape[0] if stop is None else min(stop, self.shape[0])
        found: list[Floats] = []
        first = 0
        for part in self.parts:
            count = part.shape[0]
            low, high = max(start - first, 0), min(end - first, count)
            if low < high:
                found.append(part.read(low, high))
            first += count
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.empty((0, *self.shape[1:]), np.float32)


@dataclass(frozen=True, slots=True)
class SlicedWeight:
    """The entries `start` to `stop` of a weight's first axis."""

    weight: Weight
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight, with fewer entries."""
        return (self.stop - self.start, *self.weight.shape[1:])

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Reads of the weight only what is wanted."""
        first, last, _ = slice(start, stop).indices(self.stop - self.start)
        return self.weight.read(self.start + first, self.start + max(first, last))


@dataclass(frozen=True, slots=True)
class UnsqueezedWeight(ReadWhole):
    """A weight under a new first axis of one entry."""

    weight: Weight

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight after a one."""
        return (1, *self.weight.shape)

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Reads the whole weight, or nothing."""
        if len(range(*slice(start, stop).indices(1))) == 0:
            return np.empty((0, *self.weight.shape), np.float32)
        return self.weight.read()[None]


@dataclass(frozen=True, slots=True)
class RowwiseWeight:
    """Weights with the same first axis, of whose entries each entry of this one is computed."""

    shape: tuple[int, ...]
    parts: tuple[Weight, ...]
    compute: Callable[[Sequence[Floats]], Floats]

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Reads those entries of all parts, and computes of them what is wanted."""
        return self.compute([part.read(start, stop) for part in self.parts])


@dataclass(frozen=True, slots=True)
class ReshapedWeight:
    """A weight under another shape with the same first axis."""

    weight: Weight
    shape: tuple[int, ...]

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Returns the same values in the new shape."""
        return self.weight.read(start, stop).reshape(-1, *self.shape[1:])


@dataclass(frozen=True, slots=True)
class EntryWeight(ReadWhole):
    """One entry of a weight's first axis, such as the matrix of one of many experts."""

    weight: Weight
    index: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The other axes of the weight."""
        return self.weight.shape[1:]

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Reads the whole entry and returns a part of it."""
        return self.weight.read(self.index, self.index + 1)[0, start:stop]


@dataclass(frozen=True, slots=True, eq=False)
class CalibratedWeight:
    """The weight of a linear layer whose inputs were measured on a calibration text.

    `importance` float32 [inputs] is the mean square of each of the layer's inputs, of whichever
    axis of the weight they are.
    """

    weight: Weight
    importance: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight."""
        return self.weight.shape

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Returns what the weight gives."""
        return self.weight.read(start, stop)


def importance_of(weight: Weight) -> Floats | None:
    """Returns the mean squares of the inputs of a layer with this weight, None if not measured.

    Layers that are stacked read the same inputs; where their measures differ, the mean stands for
    them. The vector may not fit a weight of which only some inputs were cut out.
    """
    match weight:
        case CalibratedWeight():
            return weight.importance
        case TransposedWeight():
            return importance_of(weight.matrix)
        case SlicedWeight():
            return importance_of(weight.weight)
        case ReshapedWeight():
            return importance_of(weight.weight) if weight.shape == weight.weight.shape else None
        case StackedWeight():
            return _in_common([importance_of(part) for part in weight.parts])
    return None


def _in_common(vectors: Sequence[Floats | None]) -> Floats | None:
    """Returns the mean of the vectors, None where one is missing or of another length."""
    found = [vector for vector in vectors if vector is not None]
    if len(found) < len(vectors) or len({len(vector) for vector in found}) != 1:
        return None
    if all(np.array_equal(vector, found[0]) for vector in found[1:]):
        return found[0]
    mean: Floats = np.mean(found, axis=0, dtype=np.float32)
    return mean


def transposed(matrix: Weight) -> Weight:
    """Returns the transpose; of a transpose, what it was made of."""
    return matrix.matrix if isinstance(matrix, TransposedWeight) else TransposedWeight(matrix)


def reshaped(weight: Weight, shape: tuple[int, ...]) -> Weight:
    """Returns the same values in another shape; a change of the first axis reads all of them."""
    if shape[:1] == weight.shape[:1]:
        return ReshapedWeight(weight, shape)
    return ComputedWeight(shape, lambda: weight.read().reshape(shape))


def reads_by_rows(weight: Weight) -> bool:
    """Tells whether some rows of a weight are read without reading all of it."""
    match weight:
        case TransposedWeight():
            return isinstance(weight.matrix, ArrayWeight)
        case StackedWeight() | RowwiseWeight():
            return all(map(reads_by_rows, weight.parts))
        case ReshapedWeight() | SlicedWeight() | CalibratedWeight():
            return reads_by_rows(weight.weight)
    return not isinstance(weight, ReadWhole)


def rows_of(weight: Weight, indices: Sequence[int]) -> Floats:
    """Reads single entries of the first axis, in the order of `indices`."""
    if not reads_by_rows(weight):  # it would be computed whole for each
        return weight.read()[list(indices)]
    return np.concatenate([weight.read(index, index + 1) for index in indices])
