"""Runs the decoder's graph in ONNX Runtime; the only file that imports onnxruntime.

`Session.step(batch) -> logits` computes, from one thread at a time. ONNX Runtime's errors become
ArtifactError while loading and EngineFault while running, here and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from handlers.artifact.graph_contract import (
    CONTROL_INPUTS,
    INPUT_IDS,
    KEY_BLOCK,
    LOGITS,
    LOGITS_INDICES,
    QUERY_SEQLENS,
    SEQLENS_K,
    is_by_position,
    is_past,
    past_name,
    present_of,
)
from handlers.config import disable_onnxruntime_telemetry
from handlers.engine.batch import Batch
from handlers.engine.kv_cache import CacheTensor, KvCache
from handlers.engine.params import MAX_DRAFT_TOKENS
from handlers.errors import ArtifactError, EngineFault, StartupError

disable_onnxruntime_telemetry()

import onnxruntime as ort  # noqa: E402  reads ORT_DISABLE_TELEMETRY while it is imported

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from handlers.engine.prefix_cache import BakedPrefix

CACHE_TYPES: dict[str, DTypeLike] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

# How long a thread without work spins before it sleeps. A decode call is hundreds of short
# parallel sections: with MatMulNBits it took 13 ms without spinning, 7.5 with, and with the default
# every call burnt 15 to 29 ms more after its end, and threads that share a core starve each other.
SPIN_MICROSECONDS = "200"

# Bindings that are kept. Prefill needs each slot's own, and decode calls mostly begin at the first
# slot: two for each slot. All there can be are slots x (slots + 1) / 2, of which each holds two
# entries for every cache tensor.
BINDINGS_PER_SLOT = 2

# Attention and quantised weights, for this kind of machine: docs/kernels.md. `make kernels`.
KERNELS = Path(__file__).with_name("kernels.so")


class Session:
    """A loaded graph with the key-value cache of all slots."""

    def __init__(self, graph: Path, *, threads: int, slots: int, capacity: int) -> None:
        """Raises ArtifactError when the graph cannot be loaded or breaks the contract.

        Raises StartupError when the kernels cannot be loaded, SettingsError when the cache finds no
        memory.
        """
        self._ort = load_graph(graph, threads)
        _check_names(self._ort, graph)
        self.vocab_size = _vocab_size(self._ort, graph)
        self.context_length = _context_length(self._ort)
        """Positions that the graph was made for, 0 where it does not say."""
        tensors = _cache_tensors(self._ort, graph)
        self.recurrent = any(tensor.block_size == 0 for tensor in tensors)
        """Whether a slot holds a state beside keys and values, which cannot be cut back."""
        self.cache = KvCache.allocate(tensors, slots=slots, capacity=capacity)
        rows = slots * (1 + MAX_DRAFT_TOKENS)  # pages that no call writes take no memory
        self._logits = np.empty((rows, self.vocab_size), np.float32)
        self._bindings: dict[tuple[int, int], Any] = {}
        """By first slot and rows, the latest used last."""
        self._most_bindings = BINDINGS_PER_SLOT * slots
        self.baked_ids = np.empty(0, np.int64)
        """Ids whose keys and values the slot after the last holds."""

    def step(self, batch: Batch) -> NDArray[np.float32]:
        """Computes one batch. Returns logits [N, vocab], which the next call overwrites.

        Raises EngineFault when ONNX Runtime fails.
        """
        try:
            logits = self._output(len(batch.logits_indices))
            binding = self._binding(batch.first_slot, batch.rows)
            binding.bind_cpu_input(INPUT_IDS, batch.input_ids)
            binding.bind_cpu_input(QUERY_SEQLENS, batch.query_seqlens)
            binding.bind_cpu_input(SEQLENS_K, batch.seqlens_k)
            binding.bind_cpu_input(LOGITS_INDICES, batch.logits_indices)
            binding.bind_ortvalue_output(LOGITS, ort.OrtValue.ortvalue_from_numpy(logits))
            self._ort.run_with_iobinding(binding)
        except Exception as error:
            raise EngineFault(f"ONNX Runtime failed: {error}") from error
        return logits

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        """Copies the keys and values at the positions [start : stop] from one slot to another.

        A state is copied whole: it must be that after `stop`.
        """
        self.cache.copy_prefix(source, target, start, stop)

    def attach_prefix(self, prefix: BakedPrefix) -> None:
        """Makes it the slot after the last. Raises ArtifactError when it is of another graph."""
        self.cache.attach(prefix.values, len(prefix.ids))
        self.baked_ids = prefix.ids

    def share_cache(self, owner: Session) -> None:
        """Uses the owner's buffers, by name, in place of its own: of the owner's first layers.

        Before the first call. Raises ArtifactError where the owner has none of that name and shape.
        """
        self.cache = owner.cache.part(self.cache.tensors)

    def _output(self, count: int) -> NDArray[np.float32]:
        """Returns one memory for the logits of all calls: each kept binding keeps its last alive.

        It holds what decode calls ask for, drafts included. Only logprobs of prompts and of forced
        ids, and verification, ask for more: a chunk of 128 positions times 49,152 ids is 25 MB.
        """
        if count <= len(self._logits):
            return self._logits[:count]
        return np.empty((count, self.vocab_size), np.float32)

    def _binding(self, first: int, count: int) -> Any:
        """Returns the binding of some slots. Kept: for 30 layers a new one takes 0.3 to 0.7 ms."""
        binding = self._bindings.pop((first, count), None) or self._bind(first, count)
        self._bindings[first, count] = binding
        if len(self._bindings) > self._most_bindings:
            del self._bindings[next(iter(self._bindings))]
        return binding

    def _bind(self, first: int, count: int) -> Any:
        binding = self._ort.io_binding()
        rows = self.cache.rows(first, count)
        for tensor, buffer in zip(self.cache.tensors, rows, strict=True):
            value = ort.OrtValue.ortvalue_from_numpy(buffer)
            binding.bind_ortvalue_input(tensor.past, value)
            binding.bind_ortvalue_output(tensor.present, value)
        return binding


def kernel_versions() -> dict[str, str]:
    """Returns the versions of what computes, by name: another version may round otherwise."""
    return {"onnxruntime": ort.__version__, KERNELS.name: f"{crc32(KERNELS.read_bytes()):08x}"}


def load_graph(graph: Path, threads: int) -> Any:
    """Loads a graph of either kind into ONNX Runtime. Raises ArtifactError."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.prepack.enable_parallel", "1")  # of fp32 weights
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
    register_kernels(options)
    try:
        return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"ONNX Runtime cannot load {graph}: {error}") from error


def register_kernels(options: Any) -> None:
    """Lets a session with `options` compute with our own operators. Raises StartupError."""
    try:
        options.register_custom_ops_library(str(KERNELS))
    except Exception as error:
        raise StartupError(
            f"ONNX Runtime cannot load the kernels in {KERNELS} ({error}). They are compiled for "
            f"one kind of machine: run `make kernels` on this one."
        ) from error


def _check_names(session: Any, graph: Path) -> None:
    inputs = {value.name for value in session.get_inputs()}
    outputs = {value.name for value in session.get_outputs()}
    pasts = {name for name in inputs if is_past(name)} or {past_name(0, "key")}
    missing = ({*CONTROL_INPUTS, *pasts} - inputs) | ({LOGITS, *map(present_of, pasts)} - outputs)
    unknown = inputs - {*CONTROL_INPUTS, *pasts}
    if missing or unknown:
        raise ArtifactError(
            f"{graph} is not a decoder graph of this version of Kindling. It lacks "
            f"{sorted(missing)} and has, not expected, {sorted(unknown)}. Export the model again."
        )


def _cache_tensors(session: Any, graph: Path) -> tuple[CacheTensor, ...]:
    pasts = (value for value in session.get_inputs() if is_past(value.name))
    return tuple(_cache_tensor(past, graph) for past in pasts)


def _cache_tensor(value: Any, graph: Path) -> CacheTensor:
    """Describes a cache input: a state has all sizes, keys and values leave the third axis open."""
    by_position, rank = is_by_position(value.name), len(value.shape)
    axes = [1, *range(3, rank)] if by_position else range(1, rank)
    return CacheTensor(
        past=value.name,
        present=present_of(value.name),
        dtype=CACHE_TYPES[value.type],
        sizes=tuple(_size(value, axis, graph) for axis in axes),
        block_size=0 if not by_position else KEY_BLOCK if rank == 5 else 1,
    )


def _vocab_size(session: Any, graph: Path) -> int:
    logits = next(value for value in session.get_outputs() if value.name == LOGITS)
    return _size(logits, -1, graph)


def _context_length(session: Any) -> int:
    found = session.get_modelmeta().custom_metadata_map.get("context_length", "")
    return int(found) if found.isdecimal() else 0


def _size(value: Any, axis: int, graph: Path) -> int:
    size = value.shape[axis]
    if not isinstance(size, int):
        raise ArtifactError(
            f"{graph} leaves the size of axis {axis} of {value.name} open ({size}). "
            f"Export the model again."
        )
    return size
