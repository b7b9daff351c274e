"""One node kindling::Attention as a session, a cache to run it on, and what it must compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import TensorProto

from tests.kernels.in_place import (
    LENGTHS,
    Array,
    Exact,
    Floats,
    element_types,
    make_session,
    run_in_place,
)

NEW = ("query", "key", "value", *LENGTHS, "cos", "sin", "sinks")
INPUTS = (*NEW[:3], "past_key", "past_value", *NEW[3:])
OUTPUTS = ("output", "present_key", "present_value")
POSITIONS = 160
"""Rows of the tables of cosines and sines."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A node's attributes and shapes."""

    heads: int = 4
    kv_heads: int = 2
    size: int = 32
    half: bool = False
    packed: bool = False
    rotary_size: int = 0
    interleaved: bool = False
    window: int = -1
    softcap: float = 0.0
    sinks: bool = False
    scale: float | None = None

    @property
    def factor(self) -> float:
        """Returns what scores are multiplied by."""
        return 1 / math.sqrt(self.size) if self.scale is None else self.scale

    @property
    def left_out(self) -> set[str]:
        """Inputs that the node does not have."""
        without = {"key", "value"} if self.packed else set()
        without |= set() if self.rotary_size else {"cos", "sin"}
        return without if self.sinks else {*without, "sinks"}


class Node:
    """A session with a cache of its own, full of NaN where nothing was written."""

    def __init__(self, kind: Kind, rows: int = 1, capacity: int = 128, threads: int = 1) -> None:
        self.kind, self.rows = kind, rows
        self.session = session(kind, threads)
        stored = np.float16 if kind.half else np.float32
        spans = (rows, kind.kv_heads, capacity // 16, kind.size, 16)
        self.keys = np.full(spans, np.nan, stored)
        self.values = np.full((rows, kind.kv_heads, capacity, kind.size), np.nan, stored)
        self.past = np.zeros(rows, np.int32)

    def step(self, new: New, lengths: Sequence[int] | None = None) -> Floats:
        """Computes the first `lengths` of each row's new tokens (all), and remembers them."""
        valid = np.array([new.tokens] * self.rows if lengths is None else lengths, np.int32)
        given = new.inputs(self.kind) | {
            "seqlens_k": (self.past + valid - 1).astype(np.int32),
            "query_seqlens": valid,
        }
        self.past = self.past + valid
        return self.run(given)

    def run(self, given: dict[str, Array], *, bind_presents: bool = True) -> Floats:
        """Computes what is given, whatever it is, on the cache."""
        states: dict[str, Array] = {"key": self.keys, "value": self.values}
        return run_in_place(self.session, given, states, bind_presents=bind_presents)


@dataclass(frozen=True, slots=True)
class New:
    """New tokens: [rows, tokens, heads or kv_heads, size], with tables and sinks for all."""

    query: Floats
    key: Floats
    value: Floats
    cos: Floats
    sin: Floats
    sinks: Floats

    @property
    def tokens(self) -> int:
        tokens: int = self.query.shape[1]
        return tokens

    def part(self, first: int, stop: int) -> New:
        """The tokens [first : stop] of every row."""
        cut = [array[:, first:stop] for array in (self.query, self.key, self.value)]
        return New(cut[0], cut[1], cut[2], self.cos, self.sin, self.sinks)

    def row(self, row: int) -> New:
        """One row of them."""
        cut = [array[row : row + 1] for array in (self.query, self.key, self.value)]
        return New(cut[0], cut[1], cut[2], self.cos, self.sin, self.sinks)

    def inputs(self, kind: Kind) -> dict[str, Array]:
        """As the node takes them."""
        rows, tokens = self.query.shape[:2]
        flat = [
            array.reshape(rows, tokens, array.shape[2] * kind.size)
            for array in (self.query, self.key, self.value)
        ]
        found: dict[str, Array] = dict(zip(("query", "key", "value"), flat, strict=True))
        if kind.packed:
            found["query"] = np.concatenate(flat, axis=2)
        found |= {"cos": self.cos, "sin": self.sin, "sinks": self.sinks}
        return {name: array for name, array in found.items() if name not in kind.left_out}


def new_tokens(kind: Kind, rows: int = 1, tokens: int = 100, seed: int = 0) -> New:
    """Draws random tokens."""
    source = np.random.default_rng(seed)

    def normal(heads: int) -> Floats:
        return source.normal(size=(rows, tokens, heads, kind.size)).astype(np.float32)

    angles = source.uniform(-3, 3, (POSITIONS, kind.rotary_size // 2))
    return New(
        query=normal(kind.heads) * np.float32(2),
        key=normal(kind.kv_heads),
        value=normal(kind.kv_heads),
        cos=np.cos(angles).astype(np.float32),
        sin=np.sin(angles).astype(np.float32),
        sinks=source.normal(size=kind.heads).astype(np.float32),
    )


def expected(kind: Kind, new: New) -> Exact:
    """The output for tokens from position 0 on, in float64: [rows, tokens, heads * size]."""
    rows, tokens = new.query.shape[:2]
    query = with_rope(kind, new, new.query).astype(np.float64)
    key = stored(kind, with_rope(kind, new, new.key)).repeat(kind.heads // kind.kv_heads, axis=2)
    value = stored(kind, new.value).repeat(kind.heads // kind.kv_heads, axis=2)
    scores = np.einsum("rqhd,rkhd->rhqk", query, key) * kind.factor
    if kind.softcap:
        scores = kind.softcap * np.tanh(scores / kind.softcap)
    distance = np.arange(tokens)[:, np.newaxis] - np.arange(tokens)
    seen = (distance >= 0) & ((kind.window < 0) | (distance < kind.window))
    weights = np.exp(scores) * seen
    sinks = np.exp(new.sinks.astype(np.float64)) if kind.sinks else np.zeros(kind.heads)
    weights /= weights.sum(axis=3, keepdims=True) + sinks[:, np.newaxis, np.newaxis]
    found: Exact = np.einsum("rhqk,rkhd->rqhd", weights, value).reshape(rows, tokens, -1)
    return found


def stored(kind: Kind, array: Floats) -> Exact:
    """As the cache holds it."""
    return (array.astype(np.float16) if kind.half else array).astype(np.float64)


def with_rope(kind: Kind, new: New, array: Floats) -> Floats:
    """With rotary embeddings for the positions from 0 on, in float32, as float16 rounds them."""
    half = kind.rotary_size // 2
    cos, sin = (table[: array.shape[1], np.newaxis] for table in (new.cos, new.sin))
    first, second = (
        (slice(0, 2 * half, 2), slice(1, 2 * half, 2))
        if kind.interleaved
        else (slice(0, half), slice(half, 2 * half))
    )
    result = array.copy()
    result[..., first] = array[..., first] * cos - array[..., second] * sin
    result[..., second] = array[..., second] * cos + array[..., first] * sin
    return result


def session(kind: Kind, threads: int) -> onnxruntime.InferenceSession:
    """The node with every shape left open."""
    cache = TensorProto.FLOAT16 if kind.half else TensorProto.FLOAT
    types = element_types(INPUTS + OUTPUTS)
    types |= dict.fromkeys(["past_key", "past_value", "present_key", "present_value"], cache)
    return make_session(
        "Attention",
        {name: types[name] for name in INPUTS},
        {name: types[name] for name in OUTPUTS},
        kind.left_out,
        {
            "num_heads": kind.heads,
            "kv_num_heads": kind.kv_heads,
            "scale": kind.factor,
            "softcap": kind.softcap,
            "window": kind.window,
            "rotary_interleaved": int(kind.interleaved),
        },
        threads,
    )
