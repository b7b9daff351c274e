"""One node of an operator with a state of fixed size, and what any such node is given.

It does not know the operators: convolution_node.py and linear_node.py do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnxruntime

from tests.kernels.in_place import Array, Exact, Floats, run_in_place


@dataclass(frozen=True, slots=True)
class New:
    """New tokens, each array [rows, tokens, ..], with what is the same for all of them."""

    arrays: dict[str, Floats]
    constants: dict[str, Floats]

    @property
    def tokens(self) -> int:
        tokens: int = next(iter(self.arrays.values())).shape[1]
        return tokens

    def part(self, first: int, stop: int) -> New:
        """The tokens [first : stop] of every row."""
        return New({name: a[:, first:stop] for name, a in self.arrays.items()}, self.constants)

    def row(self, row: int) -> New:
        """One row of them."""
        return New({name: a[row : row + 1] for name, a in self.arrays.items()}, self.constants)

    def inputs(self) -> dict[str, Array]:
        """As the node takes them."""
        return {**self.arrays, **self.constants}


class Kind(Protocol):
    """A node's attributes and shapes."""

    def session(self, threads: int = 1) -> onnxruntime.InferenceSession:
        """Loads the node into a session."""

    def state_shape(self, rows: int) -> tuple[int, ...]:
        """The shape of past_state."""

    def new_tokens(self, rows: int = 1, tokens: int = 50) -> New:
        """Random ones, the same at every call."""

    def expected(self, new: New) -> tuple[Exact, Exact]:
        """The output and the state of tokens that begin at position 0, in float64."""


class Node:
    """A session with a state of its own, full of NaN at first."""

    def __init__(self, kind: Kind, rows: int = 1, threads: int = 1) -> None:
        self.rows = rows
        self.session = kind.session(threads)
        self.state = np.full(kind.state_shape(rows), np.nan, np.float32)
        self.past = np.zeros(rows, np.int32)

    def step(self, new: New, lengths: Sequence[int] | None = None) -> Floats:
        """Computes the first `lengths` of each row's new tokens (all), and remembers them."""
        valid = np.array([new.tokens] * self.rows if lengths is None else lengths, np.int32)
        self.past = self.past + valid
        return self.run(new.inputs() | row_lengths(self.past - 1, valid))

    def run(self, given: dict[str, Array], *, bind_presents: bool = True) -> Floats:
        """Computes what is given, whatever it is, on the state."""
        states: dict[str, Array] = {"state": self.state}
        return run_in_place(self.session, given, states, bind_presents=bind_presents)


def row_lengths(last: Sequence[int] | Array, valid: Sequence[int] | Array) -> dict[str, Array]:
    """The last new token's position, and the number of new tokens, of each row."""
    return {"seqlens_k": np.array(last, np.int32), "query_seqlens": np.array(valid, np.int32)}
