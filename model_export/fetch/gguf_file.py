"""Parses a GGUF file once for all that read it while a model is loaded.

transformers parses the whole file again for the configuration, the tokenizer and the weights,
each time by gguf's reader, which takes seconds for the 100,000 strings of a vocabulary: every one
becomes slices of a numpy.memmap, which are slow to make. Here plain arrays are sliced, and what
was parsed is kept for as long as the model is loaded.
"""

from __future__ import annotations

import functools
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import gguf
import numpy as np
from gguf.constants import GGUFValueType
from numpy.typing import NDArray

_LOADER = "load_gguf_checkpoint"


class Reader(gguf.GGUFReader):
    """gguf's reader, whose fields and tensors are slices of a plain array."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path)
        except (struct.error, IndexError):
            raise ValueError("the file is cut short. Download it again.") from None

    @property
    def data(self) -> Any:
        """The bytes of the file, which are mapped."""
        return self._data

    @data.setter
    def data(self, mapped: NDArray[np.uint8]) -> None:
        self._data: NDArray[np.uint8] = np.asarray(mapped)

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[NDArray[Any]], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY or self.byte_order != "I" or sys.byteorder != "little":
            return super()._get_field_parts(orig_offs, raw_type)
        element, count = struct.unpack_from("<IQ", self._data.data, orig_offs)
        kind = GGUFValueType(element)
        parts: list[NDArray[Any]] = [
            self._get(orig_offs, np.uint32),
            self._get(orig_offs + 4, np.uint64),
        ]
        begin = orig_offs + 12
        if kind == GGUFValueType.STRING:
            end = self._add_strings(parts, begin, count)
            positions = list(range(3, len(parts), 2))
        elif kind in self.gguf_scalar_to_np:
            values = self._get(begin, self.gguf_scalar_to_np[kind], count)
            parts.extend(values.reshape(-1, 1))
            end = begin + values.nbytes
            positions = list(range(2, len(parts)))
        else:
            return super()._get_field_parts(orig_offs, raw_type)
        types = [GGUFValueType.ARRAY, kind] if count else [GGUFValueType.ARRAY]
        return end - orig_offs, parts, positions, types

    def _add_strings(self, parts: list[NDArray[Any]], begin: int, count: int) -> int:
        """Adds a length and the bytes of each string to `parts`, and returns where they end."""
        data = self._data
        for _ in range(count):
            (length,) = struct.unpack_from("<Q", data.data, begin)
            end = begin + 8 + length
            parts.append(data[begin : begin + 8])
            parts.append(data[begin + 8 : end])
            begin = end
        return begin


@contextmanager
def parsed_once(path: Path) -> Iterator[None]:
    """Has transformers and gguf_tokenizer.py parse the file at `path` once while the block runs."""
    from transformers import modeling_gguf_pytorch_utils

    load = modeling_gguf_pytorch_utils.load_gguf_checkpoint
    known: list[dict[str, Any]] = []
    readers: list[Reader] = []

    def reader(_path: object) -> Reader:
        if not readers:
            readers.append(Reader(path))
        return readers[0]

    def load_once(checkpoint: Any, return_tensors: bool = False, **options: Any) -> Any:
        if return_tensors:
            return load(checkpoint, return_tensors, **options)
        if not known:
            known.append(load(checkpoint))
        return _copied(known[0])

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(gguf, "GGUFReader", reader))
        # transformers makes this table of all names anew for each module of the model.
        names = functools.cache(gguf.get_tensor_name_map)
        stack.enter_context(mock.patch.object(gguf, "get_tensor_name_map", names))
        for module in [*sys.modules.values()]:
            name = getattr(module, "__name__", "")
            if name.startswith("transformers.") and _LOADER in vars(module):
                stack.enter_context(mock.patch.object(module, _LOADER, load_once))
        if find_spec("transformers.integrations.gguf"):  # transformers 5 has its own reader too
            newer = import_module("transformers.integrations.gguf.reader")
            stack.enter_context(mock.patch.object(newer, "_mapped", _mapped))
        yield


def _mapped(path: str) -> NDArray[np.uint8]:
    return np.asarray(np.memmap(path, np.uint8, "r"))


def _copied(parsed: dict[str, Any]) -> dict[str, Any]:
    """Copies what transformers changes: the dictionaries and their lists."""
    return {
        part: {key: [*value] if isinstance(value, list) else value for key, value in values.items()}
        for part, values in parsed.items()
    }
