"""One node kindling::CausalConvolution, and what it must compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime

from tests.kernels.in_place import LENGTHS, Exact, element_types, make_session
from tests.kernels.recurrent_node import New

INPUTS = ("x", "weight", "bias", "past_state", *LENGTHS)
OUTPUTS = ("y", "present_state")


@dataclass(frozen=True, slots=True)
class Convolution:
    """A node's shapes, and whether it has a bias."""

    channels: int = 40
    width: int = 4
    bias: bool = False

    def session(self, threads: int = 1) -> onnxruntime.InferenceSession:
        """Loads the node into a session."""
        inputs, outputs = element_types(INPUTS), element_types(OUTPUTS)
        left_out = () if self.bias else ("bias",)
        return make_session("CausalConvolution", inputs, outputs, left_out, {}, threads)

    def state_shape(self, rows: int) -> tuple[int, ...]:
        """The shape of past_state."""
        return rows, self.width - 1, self.channels

    def new_tokens(self, rows: int = 1, tokens: int = 50) -> New:
        """Random ones, with a random weight."""
        source = np.random.default_rng(tokens)
        x = source.normal(size=(rows, tokens, self.channels)).astype(np.float32)
        weight = source.normal(size=(self.channels, self.width)).astype(np.float32)
        bias = source.normal(size=self.channels).astype(np.float32)
        return New({"x": x}, {"weight": weight} | ({"bias": bias} if self.bias else {}))

    def expected(self, new: New) -> tuple[Exact, Exact]:
        """The output and the state of tokens that begin at position 0, in float64."""
        x, weight = (a.astype(np.float64) for a in (new.arrays["x"], new.constants["weight"]))
        seen = np.pad(x, ((0, 0), (self.width - 1, 0), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(seen, self.width, axis=1)
        y = np.einsum("rtcw,cw->rtc", windows, weight)
        return y + new.constants.get("bias", 0), seen[:, new.tokens :]
