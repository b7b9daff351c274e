"""A recurrent layer as transformers 5 writes them, for models of either transformers.

Qwen3.5 and its like are in transformers 5 alone, where tests/export/test_families.py walks them.
This layer has their parts, a short convolution and the gated delta rule, called by the names and
with the arguments that they use. So what exports and serves such models is tested beside
transformers 4 as well. It has no cache: such a model generates by reading everything again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import conv1d, silu, softplus
from transformers import PretrainedConfig, PreTrainedModel

KEY_HEADS, HEADS, KEY_SIZE, VALUE_SIZE, WIDTH = 2, 4, 12, 20, 4


def causal_conv1d_fn(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str | None = None,
) -> torch.Tensor:
    """[batch, channels, sequence], each channel by itself."""
    channels, width = weight.shape
    output = conv1d(hidden_states, weight[:, None], bias, padding=width - 1, groups=channels)
    output = output[:, :, : hidden_states.shape[2]]
    return silu(output) if activation == "silu" else output


def torch_chunk_gated_delta_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    *,
    use_qk_l2norm_in_kernel: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token by token: [batch, sequence, heads, size]."""
    share = value.shape[2] // key.shape[2]
    query, key = (each.repeat_interleave(share, dim=2) for each in (query, key))
    if use_qk_l2norm_in_kernel:
        query, key = (
            each * torch.rsqrt((each * each).sum(-1, keepdim=True) + 1e-6) for each in (query, key)
        )
    query = query * query.shape[-1] ** -0.5
    state = value.new_zeros(value.shape[0], value.shape[2], key.shape[3], value.shape[3])
    outputs = []
    for token in range(value.shape[1]):
        state = state * g[:, token, :, None, None].exp()
        known = torch.einsum("bhkv,bhk->bhv", state, key[:, token])
        new = (value[:, token] - known) * beta[:, token, :, None]
        state = state + torch.einsum("bhk,bhv->bhkv", key[:, token], new)
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, query[:, token]))
    return torch.stack(outputs, dim=1), state


class RecurrentLayer(torch.nn.Module):
    """A recurrent layer that takes the place of a layer's attention."""

    def __init__(self, config: PretrainedConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.sizes = [KEY_HEADS * KEY_SIZE] * 2 + [HEADS * VALUE_SIZE]
        channels, hidden = sum(self.sizes), config.hidden_size
        self.project = torch.nn.Linear(hidden, channels, bias=False)
        self.conv1d = torch.nn.Conv1d(channels, channels, WIDTH, groups=channels)
        self.step = torch.nn.Linear(hidden, HEADS)
        self.beta = torch.nn.Linear(hidden, HEADS, bias=False)
        self.out = torch.nn.Linear(HEADS * VALUE_SIZE, hidden, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        past_key_values: Any = None,
        cache: Any = None,
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """Computes [batch, sequence, hidden] as the layer's attention does."""
        batch, sequence, _hidden = hidden_states.shape
        mixed = self.project(hidden_states).transpose(1, 2)
        kept = cache if past_key_values is None else past_key_values
        if kept is not None:
            mixed = kept.update_conv_state(mixed, self.layer_idx, conv_kernel_size=WIDTH)
        mixed = causal_conv1d_fn(
            mixed, self.conv1d.weight.squeeze(1), self.conv1d.bias, activation="silu"
        )
        parts = mixed[:, :, -sequence:].transpose(1, 2).split(self.sizes, dim=-1)
        sizes = (KEY_SIZE, KEY_SIZE, VALUE_SIZE)
        query, key, value = (
            part.reshape(batch, sequence, -1, size) for part, size in zip(parts, sizes, strict=True)
        )
        output, _state = torch_chunk_gated_delta_rule(
            query,
            key,
            value,
            g=-softplus(self.step(hidden_states)),
            beta=self.beta(hidden_states).sigmoid(),
            use_qk_l2norm_in_kernel=True,
        )
        return self.out(output.reshape(batch, sequence, -1)), None


def make_hybrid(model: PreTrainedModel, layer: int = 1) -> PreTrainedModel:
    """`model` with a recurrent layer in the place of an attention."""
    recurrent = RecurrentLayer(model.config, layer)
    with torch.no_grad():
        for parameter in recurrent.parameters():
            parameter.normal_(0, 0.3)
    layers: Any = model.get_submodule("model.layers")
    layers[layer].self_attn = recurrent.eval()
    model.config.use_cache = False
    return model
