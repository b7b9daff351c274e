"""One node kindling::LinearAttention, and what it must compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime

from tests.kernels.in_place import LENGTHS, Exact, Floats, element_types, make_session
from tests.kernels.recurrent_node import New

INPUTS = ("query", "key", "value", "decay", "beta", "past_state", *LENGTHS)
OUTPUTS = ("y", "present_state")


@dataclass(frozen=True, slots=True)
class Linear:
    """A node's attributes and shapes, and which of the optional inputs it has."""

    heads: int = 4
    key_heads: int = 2
    key_size: int = 24
    value_size: int = 40
    decay: bool = True
    beta: bool = True
    scale: float = 0.25
    norm_epsilon: float = 1e-6

    @property
    def left_out(self) -> set[str]:
        """Inputs that the node does not have."""
        return {name for name in ("decay", "beta") if not getattr(self, name)}

    def session(self, threads: int = 1) -> onnxruntime.InferenceSession:
        """Loads the node into a session."""
        inputs, outputs = element_types(INPUTS), element_types(OUTPUTS)
        attributes: dict[str, float] = {
            "num_heads": self.heads,
            "key_heads": self.key_heads,
            "scale": self.scale,
            "norm_epsilon": self.norm_epsilon,
        }
        return make_session("LinearAttention", inputs, outputs, self.left_out, attributes, threads)

    def state_shape(self, rows: int) -> tuple[int, ...]:
        """The shape of past_state."""
        return rows, self.heads, self.key_size, self.value_size

    def new_tokens(self, rows: int = 1, tokens: int = 50) -> New:
        """Random ones: without a norm, of keys short enough for the state to stay small."""
        source = np.random.default_rng(tokens)

        def normal(width: int) -> Floats:
            return source.normal(size=(rows, tokens, width)).astype(np.float32)

        short = np.float32(1 if self.norm_epsilon else self.key_size**-0.5)
        arrays = {
            "query": normal(self.key_heads * self.key_size),
            "key": normal(self.key_heads * self.key_size) * short,
            "value": normal(self.heads * self.value_size),
            "decay": -np.exp(normal(self.heads)),
            "beta": 1 / (1 + np.exp(normal(self.heads))),
        }
        return New({name: a for name, a in arrays.items() if name not in self.left_out}, {})

    def expected(self, new: New) -> tuple[Exact, Exact]:
        """The output and the state of tokens that begin at position 0, in float64."""
        rows, tokens = new.arrays["value"].shape[:2]
        state = np.zeros(self.state_shape(rows))
        query, key, value, decay, beta = self.by_head(new)
        y = np.zeros(value.shape)
        for t in range(tokens):
            state *= np.exp(decay[:, t, :, np.newaxis, np.newaxis])
            added = value[:, t]
            if self.beta:
                recalled = np.einsum("rhkv,rhk->rhv", state, key[:, t])
                added = beta[:, t, :, np.newaxis] * (added - recalled)
            state += np.einsum("rhk,rhv->rhkv", key[:, t], added)
            y[:, t] = self.scale * np.einsum("rhkv,rhk->rhv", state, query[:, t])
        return y.reshape(rows, tokens, self.heads * self.value_size), state

    def by_head(self, new: New) -> tuple[Exact, Exact, Exact, Exact, Exact]:
        """Query, key, value [rows, tokens, heads, size], and decay, beta [rows, tokens, heads]."""
        arrays = {name: a.astype(np.float64) for name, a in new.arrays.items()}
        value = arrays["value"]
        rows, tokens = value.shape[:2]

        def keys(name: str) -> Exact:
            found = arrays[name].reshape(rows, tokens, self.key_heads, self.key_size)
            if self.norm_epsilon:
                squares = np.square(found).sum(axis=3, keepdims=True)
                found = found / np.sqrt(squares + self.norm_epsilon)
            return found.repeat(self.heads // self.key_heads, axis=2)

        return (
            keys("query"),
            keys("key"),
            value.reshape(rows, tokens, self.heads, self.value_size),
            arrays.get("decay", np.zeros((rows, tokens, self.heads))),
            arrays.get("beta", np.ones((rows, tokens, self.heads))),
        )
