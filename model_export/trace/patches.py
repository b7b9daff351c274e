"""Patches a decoder of transformers for the length of a trace, by optimum and by ourselves.

Mixtures of experts: transformers' own loop runs over the experts that the example's tokens happen
to choose, which a trace would freeze. Here it runs over all of them, each with the tokens that
chose it, which may be none. transformers 5 hands every architecture's experts to one function (its
ExpertsInterface), which is ours for the length of a trace; transformers 4 has no such interface.

GPT-Neo's attention goes round transformers' attention interface, and is sent through it. The method
that weighs the values is all that differs: it does not scale (Black et al. 2021,
https://github.com/EleutherAI/gpt-neo), and its local layers see a window, which is stated as such
instead of the mask.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention

from model_export.reporting import ExportError
from model_export.trace import optimum
from model_export.trace.attention import Window
from model_export.trace.tracing import patch_unsupported_ops, quiet
from model_export.trace.transformers5_only import pointing_to_transformers_5

EXPERTS_INTERFACE = "kindling_routed_experts"
EXPERTS_INTERFACE_EXISTS = importlib.util.find_spec("transformers.integrations.moe") is not None
"""True since transformers 5."""
ROPES_BY_LENGTH = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies change with the length of the sequence."""
_TASK = "text-generation-with-past"


@contextmanager
def traceable(model: PreTrainedModel) -> Iterator[None]:
    """Lets torch trace `model` inside the block. What fails in there fails as an ExportError."""
    try:
        with (
            pointing_to_transformers_5(model),
            _optimum_patcher(model),
            routed_experts_of(model),
            gpt_neo_attention_of(model),
            patch_unsupported_ops(),
            _constant_frequencies(model),
            torch.no_grad(),
            quiet(),
        ):
            yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(_why_not(type(model).__name__, error)) from error


def optimum_patches(model: PreTrainedModel) -> bool:
    """Tells whether optimum has more than its general patches for the architecture."""
    config = _optimum_config(model)
    if config is None:
        return False
    from optimum.exporters.onnx.model_patcher import ModelPatcher

    return type(config.patch_model_for_export(model)) is not ModelPatcher


def _optimum_patcher(model: PreTrainedModel) -> AbstractContextManager[object]:
    config = _optimum_config(model)
    return nullcontext() if config is None else config.patch_model_for_export(model)


def _optimum_config(model: PreTrainedModel) -> Any | None:
    return optimum.onnx_config(model, _TASK, use_past=True, use_past_in_inputs=True)


@contextmanager
def _constant_frequencies(model: PreTrainedModel) -> Iterator[None]:
    """Keeps rotary embeddings from their update by length, which support.py holds to one outcome.

    transformers 5 chooses the frequencies in the graph and copies them into a buffer.
    """
    updated = [m for m in model.modules() if getattr(m, "rope_type", None) in ROPES_BY_LENGTH]
    kinds = [module.rope_type for module in updated]
    for module in updated:
        module.inv_freq.copy_(module.original_inv_freq)  # type: ignore[operator,arg-type]
        module.rope_type = "default"  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, kind in zip(updated, kinds, strict=True):
            module.rope_type = kind


@contextmanager
def routed_experts_of(model: PreTrainedModel) -> Iterator[None]:
    """Routes the model's experts to `routed_experts` while the block runs."""
    if not EXPERTS_INTERFACE_EXISTS:
        yield
        return
    interface = importlib.import_module("transformers.integrations.moe").ExpertsInterface
    before = model.config._experts_implementation
    interface.register(EXPERTS_INTERFACE, routed_experts)
    model.config._experts_implementation = EXPERTS_INTERFACE
    try:
        yield
    finally:
        model.config._experts_implementation = before
        del interface._global_mapping[EXPERTS_INTERFACE]


def routed_experts(
    experts: Any, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Stands in for transformers' experts function.

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
        inner = experts._apply_gate(_expert_layer(experts, "gate_up_proj", number, hidden))
    else:
        inner = experts.act_fn(_expert_layer(experts, "up_proj", number, hidden))
    output = _expert_layer(experts, "down_proj", number, inner)
    return experts.post_expert_norm(output) if experts.has_post_expert_norm else output


def _expert_layer(experts: Any, name: str, number: int, hidden: torch.Tensor) -> torch.Tensor:
    weight = getattr(experts, name)[number]
    bias = getattr(experts, f"{name}_bias")[number] if experts.has_bias else None
    return linear(hidden, weight.T if experts.is_transposed else weight, bias)


@contextmanager
def gpt_neo_attention_of(model: PreTrainedModel) -> Iterator[None]:
    """Sends the attention of a GPT-Neo through the interface while the block runs."""
    modules: list[Any] = [m for m in model.modules() if isinstance(m, GPTNeoSelfAttention)]
    for module in modules:
        module.layer_idx = module.layer_id
        module._attn = partial(_gpt_neo_attend, module)
    try:
        yield
    finally:
        for module in modules:
            del module.layer_idx, module._attn


def _gpt_neo_attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_masks: object
) -> tuple[torch.Tensor, None]:
    """Stands in for GPTNeoSelfAttention._attn: [batch, heads, sequence, head_dim] in and out."""
    config = module.config
    local = config.attention_layers[module.layer_id] == "local"
    attention = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
    window = Window(config.window_size if local else None)
    output, weights = attention(module, query, key, value, window, scaling=1.0)
    return output.transpose(1, 2), weights


def _why_not(name: str, error: Exception) -> str:
    if isinstance(error, AttributeError) and isinstance(error.obj, Window):
        return (
            f"{name} computes with the mask of its attention instead of handing it on, which "
            f"GroupQueryAttention cannot express, so it cannot be exported."
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"torch cannot trace {name}, so it cannot be exported: {reason}"
