"""GPT-Neo's attention, which goes round transformers' attention interface, sent through it.

The method that weighs the values is all that differs: it does not scale (Black et al. 2021,
https://github.com/EleutherAI/gpt-neo), and its local layers see a window, which this file states
as such instead of the mask. Called by architecture.py for the length of a trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.gpt_neo.modeling_gpt_neo import GPTNeoSelfAttention

from model_export.convert.window import Window


@contextmanager
def gpt_neo_attention_of(model: PreTrainedModel) -> Iterator[None]:
    """Send the attention of a GPT-Neo through the interface while the block runs."""
    modules: list[Any] = [m for m in model.modules() if isinstance(m, GPTNeoSelfAttention)]
    for module in modules:
        module.layer_idx = module.layer_id
        module._attn = partial(_attend, module)
    try:
        yield
    finally:
        for module in modules:
            del module.layer_idx, module._attn


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_masks: object
) -> tuple[torch.Tensor, None]:
    """GPTNeoSelfAttention._attn: [batch, heads, sequence, head_dim] in and out."""
    config = module.config
    local = config.attention_layers[module.layer_id] == "local"
    attention = ALL_ATTENTION_FUNCTIONS[config._attn_implementation]
    window = Window(config.window_size if local else None)
    output, weights = attention(module, query, key, value, window, scaling=1.0)
    return output.transpose(1, 2), weights
