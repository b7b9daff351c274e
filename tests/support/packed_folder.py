"""A tiny model's folder as AWQ's and GPTQ's tools write one, packed here by the formats' words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_models import tiny_model

LAYERS = 2
AWQ = {"quant_method": "awq", "bits": 4, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "desc_act": False, "sym": False}
GPTQ_V2 = GPTQ | {"checkpoint_format": "gptq_v2"}
_ORDER = {"awq": (0, 2, 4, 6, 1, 3, 5, 7), "gptq": tuple(range(8))}


@dataclass(frozen=True, slots=True)
class Matrix:
    """The numbers of a packed layer: `values` [rows, columns], the others [rows, groups]."""

    values: NDArray[np.uint8]
    scales: NDArray[np.float16]
    zeros: NDArray[np.uint8]
    group_size: int

    def exact(self) -> NDArray[np.float64]:
        """The weights that the layer stands for."""
        scales = np.repeat(self.scales.astype(np.float64), self.group_size, axis=1)
        zeros = np.repeat(self.zeros.astype(np.float64), self.group_size, axis=1)
        exact: NDArray[np.float64] = scales * (self.values - zeros)
        return exact


def random_matrix(rows: int, columns: int, group_size: int, seed: int) -> Matrix:
    """A matrix whose groups have scales and zeros of their own."""
    source = np.random.default_rng(seed)
    shape = (rows, columns // group_size)
    return Matrix(
        source.integers(0, 16, (rows, columns), np.uint8),
        source.uniform(0.01, 0.03, shape).astype(np.float16),
        source.integers(1, 16, shape, np.uint8),
        group_size,
    )


def packed(matrix: Matrix, settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a layer, by the ends of their names."""
    method = str(settings["quant_method"])
    zeros = matrix.zeros.T.astype(np.int64)
    if method == "gptq" and settings.get("checkpoint_format", "gptq") == "gptq":
        zeros = zeros - 1
    found = {
        "qzeros": _along(zeros, 1, _ORDER[method]),
        "qweight": _along(matrix.values.T, int(method == "awq"), _ORDER[method]),
        "scales": torch.from_numpy(np.ascontiguousarray(matrix.scales.T)),
    }
    if method == "gptq":
        order = np.arange(matrix.values.shape[1], dtype=np.int32) // matrix.group_size
        found["g_idx"] = torch.from_numpy(order)
    return found


def _along(values: NDArray[Any], axis: int, order: tuple[int, ...]) -> torch.Tensor:
    """Packs eight neighbours along `axis` into an int32, from the lowest bits as `order` says."""
    moved = np.moveaxis(values.astype(np.int64), axis, -1)
    words = np.zeros((*moved.shape[:-1], moved.shape[-1] // 8), np.int64)
    for place, neighbour in enumerate(order):
        words |= (moved[..., neighbour::8] & 15) << (4 * place)
    back = np.moveaxis(words, -1, axis).astype(np.uint32).view(np.int32)
    return torch.from_numpy(np.ascontiguousarray(back))


def save_packed_folder(
    directory: Path, settings: dict[str, Any], group_size: int
) -> dict[str, Matrix]:
    """Writes a small model whose layers are packed, and returns their matrices by name.

    None is so small that the passes would fold it as a constant.
    """
    save_tiny_folder(directory)
    config = tiny_model("llama").config
    config.update({"hidden_size": 192, "head_dim": 48, "intermediate_size": 256})
    config.num_hidden_layers = LAYERS
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    path = directory / "model.safetensors"
    tensors, matrices = load_file(path), {}
    for number, name in enumerate(sorted(tensors)):
        if name.endswith("proj.weight"):
            rows, columns = tensors.pop(name).shape
            size = columns if group_size == -1 else group_size
            matrix = random_matrix(rows, columns, size, number)
            matrices[name] = matrix
            layer = name.removesuffix("weight")
            tensors |= {f"{layer}{part}": one for part, one in packed(matrix, settings).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    written = json.loads((directory / "config.json").read_text())
    written["quantization_config"] = {"group_size": group_size, **settings}
    (directory / "config.json").write_text(json.dumps(written))
    return matrices
