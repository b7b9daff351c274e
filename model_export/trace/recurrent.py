"""Traces layers whose state is of fixed size as kindling's operators (docs/kernels.md).

transformers 5 writes these layers by a few functions, the same ones in every architecture's file:
a short causal convolution, the gated delta rule (Qwen3.5, Qwen3-Next, OLMo Hybrid) and the scan of
Mamba 2 (Falcon-H1, Granite 4, Nemotron-H, Bamba). Here they are ours for the length of a trace. All
three are one of two operators, which read and write a layer's state in place: a convolution, or
linear attention, S = exp(decay) S + key (outer) value, whose output is S^T query. The delta rule is
an option of it. Mamba 2 is linear attention too: https://arxiv.org/abs/2405.21060, section 7.

Recurrence replaces transformers' functions by the two. RecurrentOperators makes nodes of them,
cache_spec.py records their shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache

from handlers.artifact.graph_contract import CacheKind
from model_export.fuse.graphs import KINDLING
from model_export.reporting import ExportError
from model_export.trace.attention import HARMLESS
from model_export.trace.cache import SharedCache
from model_export.trace.tracing import absent, typed_as

DELTA_RULE_EPSILON = 1e-6
"""Of the norm of query and key: l2norm in transformers' modeling_qwen3_next.py."""


@dataclass(frozen=True, slots=True)
class LinearAttention:
    """The inputs of one layer's linear attention.

    `query`, `key` [batch, sequence, key_heads, key_size]; `value` [batch, sequence, heads,
    value_size]; `decay`, the logarithm of what the state is multiplied by, and `beta` [batch,
    sequence, heads]. With `beta` it is the delta rule. `norm_epsilon` above 0: query and key are
    divided by the root of their sum of squares and it.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    decay: torch.Tensor
    beta: torch.Tensor | None = None
    scale: float = 1.0
    norm_epsilon: float = 0.0


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Stands in for transformers' functions, by means of two.

    `convolution` takes x [batch, sequence, channels], a weight [channels, width] and a bias
    [channels] or None, and returns the shape of x. `linear_attention` returns the value's.
    """

    convolution: Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
    linear_attention: Callable[[LinearAttention], torch.Tensor]

    def causal_conv1d_fn(
        self,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        activation: str | None = None,
        **others: Any,
    ) -> torch.Tensor:
        """Stands in for the short convolution: `hidden_states` [batch, channels, sequence]."""
        _refuse_unknown(others)
        output = self.convolution(hidden_states.transpose(1, 2), weight, bias)
        if activation is not None:
            output = ACT2FN[activation](output)  # before the transpose, which a model then undoes
        return output.transpose(1, 2)

    def torch_chunk_gated_delta_rule(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        g: torch.Tensor,
        beta: torch.Tensor,
        *,
        use_qk_l2norm_in_kernel: bool = False,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """Stands in for the gated delta rule, whose last state the operator writes."""
        _refuse_unknown(others)
        epsilon = DELTA_RULE_EPSILON if use_qk_l2norm_in_kernel else 0.0
        scale = float(query.shape[-1]) ** -0.5
        return self.linear_attention(
            LinearAttention(query, key, value, g, beta, scale, epsilon)
        ), None

    def mamba2_chunk_scan(
        self,
        hidden_states: torch.Tensor,
        dt: torch.Tensor,
        A: torch.Tensor,  # noqa: N803  (transformers calls it with this name, as the next four)
        B: torch.Tensor,  # noqa: N803
        C: torch.Tensor,  # noqa: N803
        *,
        D: torch.Tensor | None = None,  # noqa: N803
        dt_bias: torch.Tensor | None = None,
        dt_softplus: bool = False,
        dt_limit: tuple[float, float] = (0.0, float("inf")),
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """Stands in for the scan of Mamba 2: `hidden_states` [batch, sequence, heads, head_dim]."""
        _refuse_unknown(others)
        step = dt if dt_bias is None else dt + dt_bias
        step = torch.nn.functional.softplus(step) if dt_softplus else step
        if not dt_softplus or tuple(dt_limit) != (0.0, float("inf")):  # softplus is positive
            step = step.clamp(*dt_limit)
        output = self.linear_attention(
            LinearAttention(C, B, hidden_states * step.unsqueeze(-1), A * step)
        )
        return output if D is None else output + hidden_states * D.unsqueeze(-1), None


_CUTTING = {"chunk_size", "output_final_state", "return_final_states"}
"""Keyword arguments that say how the work is cut, which the operators decide themselves."""
_FUNCTIONS = ("causal_conv1d_fn", "torch_chunk_gated_delta_rule", "mamba2_chunk_scan")


def recurs_by_functions(model: PreTrainedModel) -> bool:
    """Tells whether the model's file has the functions, and transformers the cache for them."""
    return hasattr(Cache, "update_conv_state") and bool(_functions_of(model))


@contextmanager
def recurrence_of(model: PreTrainedModel, recurrence: Recurrence) -> Iterator[None]:
    """Puts `recurrence` in the place of transformers' functions while the block runs."""
    before = _functions_of(model)
    for file, name, _ in before:
        setattr(file, name, getattr(recurrence, name))
    try:
        yield
    finally:
        for file, name, function in before:
            setattr(file, name, function)


def _refuse_unknown(arguments: dict[str, Any]) -> None:
    given = {name for name, value in arguments.items() if value is not None and value is not False}
    unknown = given - HARMLESS - _CUTTING
    if unknown:
        raise ExportError(
            f"A recurrent layer is given {', '.join(sorted(unknown))}, which our operators cannot "
            f"express, so the model cannot be exported."
        )


def _functions_of(model: PreTrainedModel) -> list[tuple[ModuleType, str, object]]:
    files = [sys.modules[name] for name in {type(module).__module__ for module in model.modules()}]
    return [
        (file, name, getattr(file, name))
        for file in files
        for name in _FUNCTIONS
        if hasattr(file, name)
    ]


class CausalConvolutionNode(torch.autograd.Function):
    """Leaves kindling::CausalConvolution in a trace: a short convolution with a state.

    x [batch, sequence, channels], weight [channels, width], bias [channels] or None, the past
    state, seqlens_k, query_seqlens. Returns the shape of x, and the present state.
    """

    @staticmethod
    def forward(
        context: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        past: torch.Tensor,
        *lengths: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(x), past.clone()

    @staticmethod
    def symbolic(
        graph: Any, x: Any, weight: Any, bias: Any, past: Any, seqlens_k: Any, query_seqlens: Any
    ) -> Any:
        inputs = [x, weight, absent(graph) if bias is None else bias, past]
        outputs = graph.op(
            f"{KINDLING}::CausalConvolution", *inputs, seqlens_k, query_seqlens, outputs=2
        )
        return typed_as(outputs, (x, past))


@dataclass(frozen=True, slots=True)
class LinearAttentionAttributes:
    """The attributes of one LinearAttention node. A norm_epsilon of 0 is no norm."""

    heads: int
    key_heads: int
    scale: float
    norm_epsilon: float


class LinearAttentionNode(torch.autograd.Function):
    """Leaves kindling::LinearAttention in a trace: linear attention with a state.

    query and key [batch, sequence, key_heads * key_size], value [batch, sequence, heads *
    value_size], decay and beta [batch, sequence, heads] or None, the past state, seqlens_k,
    query_seqlens, attributes. Returns the shape of value, and the present state.
    """

    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        decay: torch.Tensor | None,
        beta: torch.Tensor | None,
        past: torch.Tensor,
        *others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(value), past.clone()

    @staticmethod
    def symbolic(
        graph: Any,
        query: Any,
        key: Any,
        value: Any,
        decay: Any,
        beta: Any,
        past: Any,
        seqlens_k: Any,
        query_seqlens: Any,
        attributes: LinearAttentionAttributes,
    ) -> Any:
        optional = [absent(graph) if given is None else given for given in (decay, beta)]
        outputs = graph.op(
            f"{KINDLING}::LinearAttention",
            query,
            key,
            value,
            *optional,
            past,
            seqlens_k,
            query_seqlens,
            num_heads_i=attributes.heads,
            key_heads_i=attributes.key_heads,
            scale_f=attributes.scale,
            norm_epsilon_f=attributes.norm_epsilon,
            outputs=2,
        )
        return typed_as(outputs, (value, past))


@dataclass(frozen=True, slots=True)
class RecurrentOperators:
    """Traces the recurrent layers of one step. `seqlens_k`, `query_seqlens`: int32 [batch]."""

    cache: SharedCache
    seqlens_k: torch.Tensor
    query_seqlens: torch.Tensor

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """Computes Recurrence.convolution as a node."""
        output, present = CausalConvolutionNode.apply(
            x, weight, bias, self._past("convolution"), self.seqlens_k, self.query_seqlens
        )
        return self._keep("convolution", present, output)

    def attend_linearly(self, given: LinearAttention) -> torch.Tensor:
        """Computes Recurrence.linear_attention as a node."""
        attributes = LinearAttentionAttributes(
            heads=int(given.value.shape[2]),
            key_heads=int(given.key.shape[2]),
            scale=given.scale,
            norm_epsilon=given.norm_epsilon,
        )
        output, present = LinearAttentionNode.apply(
            *(states.flatten(2) for states in (given.query, given.key, given.value)),
            given.decay,
            given.beta,
            self._past("recurrent"),
            self.seqlens_k,
            self.query_seqlens,
            attributes,
        )
        return self._keep("recurrent", present, output.reshape(given.value.shape))

    def _past(self, kind: CacheKind) -> torch.Tensor:
        return self.cache.past[self.cache.recurrent_layer, kind]

    def _keep(self, kind: CacheKind, present: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        self.cache.present[self.cache.recurrent_layer, kind] = present
        return output
