"""Reads the tensors of a safetensors file, a range of rows at a time.

A file is eight bytes with the size of its head, the head, which is JSON, and the values
(https://huggingface.co/docs/safetensors). They are read by pread, not mapped, so that what was
read does not count as this process's memory.
"""

from __future__ import annotations

import math
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_export.reporting import ExportError
from model_export.weights import Floats

_LARGEST_HEAD = 100_000_000
"""Bytes: safetensors' own limit."""
_METADATA = "__metadata__"
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # numpy has no bfloat16: the upper half of a float32
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


class WeightFile:
    """A file that stays open for as long as one of its tensors is known."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset: int, count: int) -> NDArray[np.uint8]:
        """Returns `count` bytes from `offset`. Raises ExportError where the file ends before."""
        values = np.empty(count, np.uint8)
        view = values.data
        done = 0
        while done < count:
            got = os.preadv(self._descriptor, [view[done:]], offset + done)
            if not got:
                raise ExportError(f"{self.path.name} became shorter while it was read.")
            done += got
        return values


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a safetensors file, which is a Weight where it holds floats."""

    file: WeightFile
    type: str
    """As the head names it: "BF16"."""
    shape: tuple[int, ...]
    offset: int
    """From the beginning of the file."""

    @property
    def is_float(self) -> bool:
        """Returns whether the tensor holds floats."""
        return self.type in ("F64", "F32", "F16", "BF16")

    def stored(self, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Returns rows in the type of the file; those of BF16 are numbers of 16 bits."""
        dtype = np.dtype(_TYPES[self.type])
        if not self.shape:
            return self.file.read(self.offset, dtype.itemsize).view(dtype).reshape(())
        first, last, _ = slice(start, stop).indices(self.shape[0])
        row = math.prod(self.shape[1:]) * dtype.itemsize
        rows = max(last - first, 0)
        values = self.file.read(self.offset + first * row, rows * row)
        return values.view(dtype).reshape(rows, *self.shape[1:])

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Returns rows as float32."""
        stored = self.stored(start, stop)
        if self.type == "BF16":
            wide = np.left_shift(stored, 16, dtype=np.uint32, casting="unsafe")
            return np.asarray(wide).view(np.float32)
        return np.asarray(stored, np.float32)


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Returns a file's tensors by name, none of them read. Raises ExportError for a spoilt file."""
    try:
        file = WeightFile(path)
    except OSError as error:
        raise ExportError(f"{path.name} cannot be opened: {error.strerror}.") from None
    size = int.from_bytes(file.read(0, min(8, file.size)).tobytes(), "little")
    if file.size < 8 or size > _LARGEST_HEAD:
        raise _spoilt(path, "it does not begin with the size of a head")
    if size > file.size - 8:
        raise _cut_short(path, 8 + size, file.size)
    try:
        head = msgspec.json.decode(file.read(8, size).tobytes(), type=dict[str, msgspec.Raw])
        entries = {
            name: msgspec.json.decode(raw, type=_Entry)
            for name, raw in head.items()
            if name != _METADATA
        }
    except msgspec.DecodeError as error:
        raise _spoilt(path, f"its head cannot be read: {error}") from None
    return {name: _tensor(file, name, entry, 8 + size) for name, entry in entries.items()}


class _Entry(msgspec.Struct):
    """A tensor as the head describes it."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _tensor(file: WeightFile, name: str, entry: _Entry, data: int) -> StoredTensor:
    """Checks an entry of the head; `data` is where the values begin."""
    if entry.dtype not in _TYPES:
        raise ExportError(
            f"{file.path.name} holds {name} as {entry.dtype}, which the export does not read."
        )
    begin, end = entry.data_offsets
    count = math.prod(entry.shape) * np.dtype(_TYPES[entry.dtype]).itemsize
    if min(begin, *entry.shape, 0) < 0 or end - begin != count:
        raise _spoilt(file.path, f"its head contradicts itself on {name}")
    if data + end > file.size:
        raise _cut_short(file.path, data + end, file.size)
    return StoredTensor(file, entry.dtype, entry.shape, data + begin)


def _spoilt(path: Path, why: str) -> ExportError:
    return ExportError(f"{path.name} is not a sound safetensors file: {why}. Download it again.")


def _cut_short(path: Path, promised: int, size: int) -> ExportError:
    return ExportError(
        f"{path.name} is cut short: its head promises at least {promised:,} bytes, and it has "
        f"{size:,}. Download it again."
    )
