"""Opens the weights of a GGUF file by the names that transformers gives them.

transformers dequantises a whole file before it makes a model of it. Here each tensor is
dequantised when it is read; which parameter it is, and what llama.cpp's converter did to its
values, is found in transformers' own tables.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf.quants import quant_shape_to_byte_shape
from transformers import modeling_gguf_pytorch_utils as tables

from model_export.fetch.safetensors_file import WeightFile
from model_export.weights import ComputedWeight, Floats, Weight

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_EXPERTS = "_exps"
"""In the name of a tensor that holds the experts of a layer, which become several parameters."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of a GGUF file, whose blocks are dequantised when its rows are read."""

    file: WeightFile
    type: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    """From the beginning of the file."""

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Returns rows as float32."""
        if len(self.shape) == 1:  # its blocks are no rows
            whole = self.file.read(self.offset, *quant_shape_to_byte_shape(self.shape, self.type))
            return np.asarray(gguf.dequantize(whole, self.type)[start:stop])
        first, last, _ = slice(start, stop).indices(self.shape[0])
        row = quant_shape_to_byte_shape(self.shape[1:], self.type)
        size = math.prod(row)
        count = last - first
        if count <= 0:  # which gguf cannot dequantise
            return np.empty((0, *self.shape[1:]), np.float32)
        values = self.file.read(self.offset + first * size, count * size).reshape(count, *row)
        return np.asarray(gguf.dequantize(values, self.type))


def is_loaded_whole(path: Path) -> bool:
    """Says whether only transformers itself can load the file, all of it at once."""
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    return _has_own_way(architecture) or any(_EXPERTS in tensor.name for tensor in reader.tensors)


def _has_own_way(architecture: str) -> bool:
    """Says whether transformers reads the architecture by other tables, as some since 5.24."""
    try:
        newer = importlib.import_module("transformers.integrations.gguf.utils")
    except ImportError:
        return False
    return bool(newer.is_gguf_arch_supported(architecture))


def open_gguf(path: Path, model: PreTrainedModel) -> dict[str, Weight]:
    """Returns the file's tensors by the names of `model`'s parameters, none of them read.

    `model` may be on the meta device.
    """
    reader = gguf.GGUFReader(path)
    parsed = tables.load_gguf_checkpoint(str(path))
    architecture = reader.fields["general.architecture"].contents()
    kind = tables.TENSOR_PROCESSORS.get(architecture, tables.TensorProcessor)
    processor = kind(config=parsed["config"])
    names = _names(model, processor)
    file = WeightFile(path)
    found: dict[str, Weight] = {}
    for tensor in reader.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        stored = GgufTensor(file, tensor.tensor_type, shape, int(tensor.data_offset))
        found |= _converted(processor, names, tensor.name, stored)
    return found


def _names(model: PreTrainedModel, processor: Any) -> Mapping[str, str]:
    """Maps the file's names to the model's. Since 5 transformers asks the processor too."""
    with_processor = hasattr(processor, "preprocess_name")
    options = {"processor": processor} if with_processor else {}
    names: Mapping[str, str] = tables.get_gguf_hf_weights_map(model, **options)
    return names


def _converted(
    processor: Any, names: Mapping[str, str], name: str, stored: GgufTensor
) -> dict[str, Weight]:
    """Undoes what llama.cpp's converter did, when the tensor is read, by transformers' processor.

    It is tried on an array of the same shape that has no memory, to see what it changes.
    """

    def process(values: Floats) -> dict[str, Any]:
        elsewhere: dict[str, Any] = {}
        result = processor.process(
            weights=values,
            name=name,
            tensor_key_mapping=names,
            parsed_parameters={"tensors": elsewhere},
        )
        if result.name in names:
            return {names[result.name]: result.weights}
        return elsewhere

    def weight(target: str, shape: tuple[int, ...]) -> Weight:
        return ComputedWeight(shape, lambda: np.asarray(process(stored.read())[target]))

    probe = np.broadcast_to(np.float32(-1), stored.shape)
    return {
        target: stored if values is probe else weight(target, tuple(values.shape))
        for target, values in process(probe).items()
    }
