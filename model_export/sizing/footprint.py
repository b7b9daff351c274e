"""Computes how large an artefact is, what memory serving it takes, and which machine that wants.

Pure arithmetic on a Precision and an Outline, which outline.py makes of a model's configuration.
Where a constant was measured, docs/recipes.md says how.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from handlers.cpus import LAMBDA_MB_PER_CPU
from model_export.quantize.block_layout import BLOCK, LANES
from model_export.quantize.quantized_tensors import kind_of
from model_export.recipe import BITS, Precision

FLOAT32 = 4
FLOAT16 = 2

PROCESS_BYTES = 90_000_000
"""Interpreter, libraries, the session without its weights, and what a chunk of a prompt takes."""
TOKENIZER_BYTES_PER_ENTRY = 475
"""Of an entry of the vocabulary: its strings, its merges, and the bytes of its ids."""
HEADROOM = 1.2
EXPECTED = "compact5"
"""What all matrices are counted as where the export measures how many bits they need.

The demo off its grid needs 5 % more bytes; larger models need less.
"""
BYTES_PER_CPU = 500_000_000
"""Weights for which one vCPU is enough: each token reads all of them, at about 5 GB/s a vCPU."""
LAMBDA_MB_LIMIT = 10_240
CLOUD_RUN_GIB_OF_CPUS = {1: 4, 2: 8, 4: 16, 6: 24, 8: 32}
"""https://cloud.google.com/run/docs/configuring/services/cpu"""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight that the recipe's precision applies to, [outputs, inputs] or [entries, width]."""

    rows: int
    columns: int
    head: bool
    """Whether it is an embedding or the output projection, or both at once."""


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a decoder, which an export computes one after the other."""

    count: int
    largest: int
    """Values of the largest one, or of the model where it does not divide."""
    cut: int
    """Values of those that prove the conversion (decoder/cut.py)."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A model's counts that decide sizes."""

    architecture: str
    parameters: int
    matrices: tuple[Matrix, ...]
    plain: int
    """Values that stay float32: norms, biases, tables of rotary embeddings."""
    cache: int
    """Values of keys and values that a token adds, in all layers; 0 for an encoder."""
    state: int
    """Values of states of fixed size that a slot has, in all layers; 0 for most decoders."""
    vocabulary: int
    heads: int
    """Of attention, in a layer."""
    layers: Layers | None
    """None for an encoder, which is computed whole."""

    @property
    def width(self) -> int:
        """The values of a token between two layers."""
        return max((matrix.columns for matrix in self.matrices if matrix.head), default=0)

    @property
    def inner(self) -> int:
        """The most values of a token that a linear layer reads: inside an MLP."""
        return max((matrix.columns for matrix in self.matrices if not matrix.head), default=0)


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of model.onnx.data."""

    linears: int
    heads: int
    plain: int

    @property
    def total(self) -> int:
        """The bytes of all weights."""
        return self.linears + self.heads + self.plain


@dataclass(frozen=True, slots=True)
class Machine:
    """The smallest machine that serves comfortably. None: the platform's largest is too small."""

    lambda_mb: int | None
    """Lambda gives CPUs with memory, 5.8 at most, so the largest may have fewer than wanted."""
    cloud_run_cpus: int | None
    cloud_run_mib: int


def weights_of(outline: Outline, precision: Precision) -> Weights:
    """Computes the bytes of the weights. Mixed layers come on top: they are counted as others.

    Those that "auto" chooses are EXPECTED, or fill a budget, which goes to linear layers first.
    """
    if precision.is_searched:
        return weights_of(outline, precision.all_in(EXPECTED))
    weights = "int8" if precision.weights == "auto" else precision.weights
    linears = [matrix for matrix in outline.matrices if not matrix.head]
    heads = [matrix for matrix in outline.matrices if matrix.head]
    found = Weights(
        linears=sum(_bytes(matrix, weights, precision) for matrix in linears),
        heads=sum(_bytes(matrix, precision.head, precision) for matrix in heads),
        plain=outline.plain * FLOAT32,
    )
    if precision.max_mb is None:
        return found
    least = weights_of(outline, precision.all_in(precision.choices[0]))
    room = max(precision.max_mb * 1_000_000, least.total) - found.plain
    linear = int(min(found.linears, room - least.heads))
    return replace(found, linears=linear, heads=int(min(found.heads, room - linear)))


def _bytes(matrix: Matrix, weights: str, precision: Precision) -> int:
    """Counts whole groups of rows and blocks of columns, as block_layout.py lays them out."""
    if weights == "fp32":
        return matrix.rows * matrix.columns * FLOAT32
    rows = -(-matrix.rows // LANES) * LANES
    columns = -(-matrix.columns // BLOCK) * BLOCK
    blocks = -(-matrix.columns // precision.block_size)
    kind = kind_of(BITS[weights], precision.algorithm_of(weights))
    if kind == "compact":  # a byte for each scale and each zero point, and the row's own scale
        figures = 2 * blocks + FLOAT16
    else:
        figures = blocks * FLOAT16 * (1 if kind == "symmetric" else 2)
    return rows * (columns * BITS[weights] // 8 + figures)


def token_bytes(outline: Outline, precision: Precision) -> int:
    """Computes the bytes of a token's keys and values in all layers."""
    return outline.cache * (FLOAT32 if precision.weights == "fp32" else FLOAT16)


def cache_bytes(outline: Outline, precision: Precision, tokens: int) -> int:
    """Computes the bytes of a slot of so many tokens, states of fixed size included."""
    return token_bytes(outline, precision) * tokens + outline.state * FLOAT32


def run_time_bytes(outline: Outline, weights: Weights, cache: int) -> int:
    """Computes the resident bytes once every slot is full and all weights have been read.

    `cache`: the bytes of all slots.
    """
    tokenizer = outline.vocabulary * TOKENIZER_BYTES_PER_ENTRY
    return PROCESS_BYTES + tokenizer + weights.total + cache


def machine_for(outline: Outline, weights: Weights, memory: int) -> Machine:
    """Chooses machines with HEADROOM over `memory`, and CPUs for ten tokens a second."""
    wanted = math.ceil(memory * HEADROOM)
    decodes = outline.cache + outline.state > 0
    cpus = max(1, math.ceil(weights.total / BYTES_PER_CPU)) if decodes else 1
    lambda_cpus_mb = min(cpus * LAMBDA_MB_PER_CPU, LAMBDA_MB_LIMIT)
    lambda_mb = max(math.ceil(wanted / 2**20), lambda_cpus_mb)
    sizes = CLOUD_RUN_GIB_OF_CPUS.items()
    fitting = [n for n, gib in sizes if n >= cpus and gib * 2**30 >= wanted]
    return Machine(
        lambda_mb=lambda_mb if lambda_mb <= LAMBDA_MB_LIMIT else None,
        cloud_run_cpus=min(fitting, default=None),
        cloud_run_mib=max(512, math.ceil(wanted / 2**29) * 512),
    )
