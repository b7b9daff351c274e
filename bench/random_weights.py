"""Writes random weights of given shapes as safetensors, a tensor at a time.

The values are those of an initialiser: matrices have the model's deviation, norms are ones, biases
zeros. They depend on a tensor's name alone. A tensor of more than BLOCK values repeats its block:
no row of it is like another, since the block's length is a prime. The format is
https://github.com/huggingface/safetensors#format, the shards and their index are transformers'.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

Shapes = Mapping[str, tuple[int, ...]]

BLOCK = 2**22 - 3
"""A prime, so that rows of any width begin at another value of the block each."""
SHARD_BYTES = 4 * 10**9
BYTES = 2
"""Of a bfloat16."""


def save_weights(
    shapes: Shapes, directory: Path, deviation: float, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes model.safetensors, or shards with model.safetensors.index.json."""
    shards = split(shapes, shard_bytes)
    names = [f"model-{n + 1:05}-of-{len(shards):05}.safetensors" for n in range(len(shards))]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for file, shard in zip(names, shards, strict=True):
        with (directory / file).open("wb") as out:
            _write_shard(shard, out, deviation)
    if len(shards) > 1:
        owners = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        total = {"total_size": sum(map(_bytes_of, shapes.values()))}
        index = json.dumps({"metadata": total, "weight_map": owners}, indent=2)
        (directory / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def split(shapes: Shapes, shard_bytes: int) -> list[dict[str, tuple[int, ...]]]:
    """Fills one shard after the other; one holds more than `shard_bytes` only as a sole tensor."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = _bytes_of(shape)
        if shards[-1] and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    return shards


def values_of(name: str, shape: tuple[int, ...], deviation: float) -> Iterator[NDArray[np.uint16]]:
    """Yields a tensor's bfloat16 values as their bits, BLOCK at most at a time."""
    count = math.prod(shape)
    block = _block(name, shape, min(count, BLOCK), deviation)
    for start in range(0, count, BLOCK):
        yield block[: count - start]


def _block(name: str, shape: tuple[int, ...], count: int, deviation: float) -> NDArray[np.uint16]:
    if len(shape) > 1:
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        values = generator.standard_normal(count, np.float32)
        values *= deviation
    else:
        values = np.full(count, 0.0 if name.endswith(".bias") else 1.0, np.float32)
    bits = values.view(np.uint32)
    bits += 0x8000  # rounds what is cut off; a half away from zero
    return (bits >> 16).astype(np.uint16)


def _write_shard(shapes: Shapes, out: BinaryIO, deviation: float) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + _bytes_of(shape)
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    out.write(len(header).to_bytes(8, "little") + header)
    for name, shape in shapes.items():
        for part in values_of(name, shape, deviation):
            part.tofile(out)


def _bytes_of(shape: tuple[int, ...]) -> int:
    return math.prod(shape) * BYTES
