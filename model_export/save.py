"""Writes a graph and its weights: model.onnx, and model.onnx.data beside it.

The weights lie raw and page-aligned, so that ONNX Runtime can map them. Initialisers that view
the same memory (a tied embedding and output projection) are written once and share their bytes.
Memory: what the tensors' arrays take, all together. Those that view the source model's weights
take nothing more.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from handlers.artifact.manifest import GRAPH, WEIGHTS

PAGE = 4096
_INLINE = 256
"""Bytes up to which a tensor stays in the graph: scalars and shapes that ONNX Runtime's own
optimisations want to see at once."""


def save(model: ir.Model, directory: Path) -> None:
    """Writes `model` into `directory`. The model itself keeps its tensors."""
    directory.mkdir(parents=True, exist_ok=True)
    large = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes > _INLINE
    ]
    tensors = [value.const_value for value in large]
    try:
        with (directory / WEIGHTS).open("wb") as file:
            _write_all(file, large, directory)
        ir.save(model, directory / GRAPH)
    finally:
        for value, tensor in zip(large, tensors, strict=True):
            value.const_value = tensor


def _write_all(file: BinaryIO, values: list[ir.Value], directory: Path) -> None:
    tensors = [value.const_value for value in values]
    # All are held until the end: a freed array's address may be the next one's, and then names two.
    arrays = [np.asarray(tensor.numpy()) for tensor in tensors]  # type: ignore[union-attr]
    written: dict[tuple[int, int], int] = {}
    for value, tensor, array in zip(values, tensors, arrays, strict=True):
        place = (array.__array_interface__["data"][0], array.nbytes)
        shared = array.flags.c_contiguous and place in written
        offset = written[place] if shared else _append(file, array)
        if array.flags.c_contiguous:
            written[place] = offset
        value.const_value = ir.ExternalTensor(
            WEIGHTS,
            offset,
            array.nbytes,
            tensor.dtype,  # type: ignore[union-attr]
            shape=ir.Shape(array.shape),
            name=str(value.name),
            base_dir=directory,
        )


def _append(file: BinaryIO, array: NDArray[np.generic]) -> int:
    """Writes `array` from the next page on. Returns its offset."""
    file.write(b"\0" * (-file.tell() % PAGE))
    offset = file.tell()
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    np.ascontiguousarray(little_endian).tofile(file)
    return offset
