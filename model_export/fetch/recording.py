"""Describes the operations by which transformers joins, splits and turns weights as weights.

Those that are described are read a range of rows at a time. All others are computed whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from model_export.weights import (
    EntryWeight,
    Floats,
    ReshapedWeight,
    RowwiseWeight,
    SlicedWeight,
    StackedWeight,
    UnsqueezedWeight,
    Weight,
    transposed,
)

_aten = torch.ops.aten
_COMPARED = 1 << 22
"""Values that are compared at a time."""


def recorded(
    func: Any, args: Sequence[Any], shape: Sequence[int], number: int | None = None
) -> Weight | None:
    """Describes the result of an operation on weights, None where it has to be computed whole.

    `shape` is the result's; with `number` it is that part of several.
    """
    if func is _aten.cat.default:
        return _joined(args[0], _axis(args, len(shape)), tuple(shape))
    if func is _aten.stack.default and _axis(args, len(shape)) == 0:
        return StackedWeight(tuple(UnsqueezedWeight(part) for part in args[0]))
    if func in (_aten.transpose.int, _aten.t.default):
        axes = args[1:] if func is _aten.transpose.int else (0, 1)
        return _turned(args[0], *(axis % len(shape) for axis in axes))
    if func in (_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default):
        weight: Weight = args[0]
        kept = shape and weight.shape and weight.shape[0] == shape[0]
        return ReshapedWeight(weight, tuple(shape)) if kept else None
    if func is _aten.unsqueeze.default and args[1] % len(shape) == 0:
        return UnsqueezedWeight(args[0])
    if func is _aten.select.int and args[1] % len(args[0].shape) == 0:
        return EntryWeight(args[0], args[2] % args[0].shape[0])
    return _cut(func, args, shape, number)


def _axis(args: Sequence[Any], axes: int) -> int:
    return int(args[1]) % axes if len(args) > 1 else 0


def _joined(parts: Sequence[Weight], axis: int, shape: tuple[int, ...]) -> Weight | None:
    if any(len(part.shape) != len(shape) for part in parts):  # torch takes empty ones too
        return None
    if axis == 0:
        return StackedWeight(tuple(parts))

    def join(found: Sequence[Floats]) -> Floats:
        return np.concatenate(found, axis=axis)

    return RowwiseWeight(shape, tuple(parts), join)


def _turned(weight: Weight, first: int, second: int) -> Weight | None:
    if len(weight.shape) == 2:
        return weight if first == second else transposed(weight)
    if 0 in (first, second):
        return None
    shape = [*weight.shape]
    shape[first], shape[second] = shape[second], shape[first]

    def turn(found: Sequence[Floats]) -> Floats:
        return np.ascontiguousarray(found[0].swapaxes(first, second))

    return RowwiseWeight(tuple(shape), (weight,), turn)


def _cut(func: Any, args: Sequence[Any], shape: Sequence[int], number: int | None) -> Weight | None:
    """Describes rows: the part `number` of a weight that is split, or a slice."""
    weight: Weight = args[0]
    if func is _aten.slice.Tensor:
        given = dict(enumerate(args))
        axis, first, step = given.get(1, 0), given.get(2), given.get(4, 1)
        start = 0 if step != 1 else slice(first, None).indices(weight.shape[axis])[0]
    elif func in (_aten.split.Tensor, _aten.split_with_sizes.default) and number is not None:
        axis, step = _axis(args[1:], len(shape)), 1
        sizes = args[1]
        start = sum(sizes[:number]) if isinstance(sizes, (list, tuple)) else sizes * number
    else:
        return None
    if axis % len(shape) != 0 or step != 1:
        return None
    return SlicedWeight(weight, start, start + shape[0])


def equal(first: Weight, second: Weight) -> bool:
    """Compares two weights a part at a time."""
    if first is second or first.shape != second.shape:
        return first is second
    rows = max(1, _COMPARED // max(1, math.prod(first.shape[1:])))
    return all(
        np.array_equal(first.read(row, row + rows), second.read(row, row + rows))
        for row in range(0, first.shape[0], rows)
    )
