"""Mixtures of experts in a form that a trace does not freeze.

transformers' own loop runs over the experts that the example's tokens happen to choose. Here it
runs over all of them, each with the tokens that chose it, which may be none. transformers 5
hands every architecture's experts to one function (its ExpertsInterface), which is ours for the
length of a trace. transformers 4 has no such interface; there optimum patches some.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel

INTERFACE = "kindling_routed_experts"
INTERFACE_EXISTS = importlib.util.find_spec("transformers.integrations.moe") is not None
"""Since transformers 5."""


@contextmanager
def routed_experts_of(model: PreTrainedModel) -> Iterator[None]:
    """Route the model's experts to `routed_experts` while the block runs."""
    if not INTERFACE_EXISTS:
        yield
        return
    interface = importlib.import_module("transformers.integrations.moe").ExpertsInterface
    before = model.config._experts_implementation
    interface.register(INTERFACE, routed_experts)
    model.config._experts_implementation = INTERFACE
    try:
        yield
    finally:
        model.config._experts_implementation = before
        del interface._global_mapping[INTERFACE]


def routed_experts(
    experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """transformers' experts function.

    `hidden` [tokens, hidden_size]; `chosen` int64 and `weights` [tokens, experts a token].
    Returns [tokens, hidden_size].
    """
    total = torch.zeros_like(hidden)
    for number in range(experts.num_experts):
        token, place = torch.where(chosen == number)
        output = _expert(experts, number, hidden[token]) * weights[token, place, None]
        total = total.index_add(0, token, output.to(hidden.dtype))
    return total


def _expert(experts: Any, number: int, hidden: torch.Tensor) -> torch.Tensor:
    if experts.has_gate:
        inner = experts._apply_gate(_layer(experts, "gate_up_proj", number, hidden))
    else:
        inner = experts.act_fn(_layer(experts, "up_proj", number, hidden))
    output = _layer(experts, "down_proj", number, inner)
    return experts.post_expert_norm(output) if experts.has_post_expert_norm else output


def _layer(experts: Any, name: str, number: int, hidden: torch.Tensor) -> torch.Tensor:
    weight = getattr(experts, name)[number]
    bias = getattr(experts, f"{name}_bias")[number] if experts.has_bias else None
    return linear(hidden, weight.T if experts.is_transposed else weight, bias)
