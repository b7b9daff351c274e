"""Searches scale and offset of affine blocks by the error that a layer's outputs will have.

A weight's error counts by the mean square of the input that it is multiplied with. The search
itself is in C, search_affine.c, which `python -m kernels` compiles. It finds the same bits on every
CPU, whichever blocks lie beside a block.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from model_export.reporting import ExportError
from model_export.weights import Floats

LIBRARY = Path(__file__).with_name("search_affine.so")
_SIDE_BY_SIDE = 16
"""Blocks that the library reads at once, wherever among a row's the first of them is."""
_LARGEST = 256
"""Weights that the library has room for in a block."""
_LEAST = np.float32(0.01)
"""The least that an input counts, as a part of its block's mean: unseen ones are not free."""


class _Job(ctypes.Structure):
    """Tells the library what to search, and where to: the Job of search_affine.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "size", "period", "largest")),
        *((name, ctypes.c_void_p) for name in ("cut", "shares", "values", "scales", "offsets")),
        *((name, ctypes.c_void_p) for name in ("given", "zero_points")),
    )


class Found(NamedTuple):
    """Blocks of values from 0 on, [blocks, size], each weight scale * value + offset."""

    values: NDArray[np.uint8]
    scales: NDArray[np.float16]
    offsets: NDArray[np.float16]


def search_affine(cut: Floats, importance: Floats, bits: int = 4) -> Found:
    """Quantises the blocks `cut` [blocks, size] with the least weighted error that is found.

    `importance` [blocks of a row, size], or [1, size], serves every row anew. A block whose weights
    lie on a grid from its smallest to its largest, as those of a Q4_1 file, stays exactly as it is.
    """
    count, size = cut.shape
    found = Found(
        np.empty((count, size), np.uint8), np.empty(count, np.float16), np.empty(count, np.float16)
    )
    _search(load_search(), cut, importance, bits, *found)
    return found


class Fitted(NamedTuple):
    """Values from 0 on [blocks, size], and zero points in 256ths of as many steps as there are."""

    values: NDArray[np.uint8]
    zero_points: NDArray[np.uint8]


def fit_zero_points(
    cut: Floats, importance: Floats, scales: Floats, offsets: NDArray[np.float16], bits: int
) -> Fitted:
    """Quantises the blocks `cut` with these float32 scales.

    The offset is fitted anew by the weighted error, twice from `offsets` on, then rounded to a
    zero point, and the values are chosen for what it then is.
    """
    given = np.ascontiguousarray(scales, np.float32)
    found = Fitted(np.empty(cut.shape, np.uint8), np.empty(len(cut), np.uint8))
    arrays = (found.values, offsets, offsets, given, found.zero_points)
    _search(load_search("fit_zero_points"), cut, importance, bits, *arrays)
    return found


def _search(
    function: Callable[[Any], None],
    cut: Floats,
    importance: Floats,
    bits: int,
    *arrays: NDArray[Any],
) -> None:
    """Calls the library with the job's arrays after `shares`. Raises ValueError."""
    count, size = cut.shape
    if size % 4 or size > _LARGEST:
        raise ValueError(
            f"blocks of {size} weights: only multiples of 4 up to {_LARGEST} are searched"
        )
    cut = np.ascontiguousarray(cut, np.float32)
    period = len(importance)
    shares = _shares(importance)[:, np.arange(period + _SIDE_BY_SIDE - 1) % period]
    shares = np.ascontiguousarray(shares)
    addresses = (array.ctypes.data for array in (cut, shares, *arrays))
    function(ctypes.byref(_Job(count, size, period, 2**bits - 1, *addresses)))


@cache
def load_search(name: str = "search_affine") -> Callable[[Any], None]:
    """Returns a function of the library. Raises ExportError where it is missing or older."""
    try:
        search = getattr(ctypes.CDLL(str(LIBRARY)), name)
    except (OSError, AttributeError) as error:
        raise ExportError(
            f"The search for scales and offsets cannot be loaded ({error}). It is compiled for one "
            f"kind of machine: run `make kernels` on this one."
        ) from error
    search.restype = None
    return cast("Callable[[Any], None]", search)


def _shares(importance: Floats) -> Floats:
    """Returns how much each input of a block counts, [size, blocks]; a block's sum is 1."""
    shares = np.array(importance.T, np.float32, order="C")  # a copy
    mean = _sum(shares) / np.float32(len(shares))
    mean[mean == 0] = 1
    shares /= mean
    shares += _LEAST
    shares /= _sum(shares)
    return shares


def _sum(columns: Floats) -> Floats:
    """Adds up every column, one row after the other."""
    count = columns.shape[1]
    if count == 1:  # numpy would add up a single one by parts
        columns = np.repeat(columns, 2, axis=1)
    total: Floats = np.add.reduce(columns, axis=0)
    return total[:count]
