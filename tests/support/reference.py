"""Asks transformers itself: the truth that the exporter's tests compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel


def greedy_ids(
    model: PreTrainedModel, prompts: Sequence[list[int]], new_tokens: int
) -> list[list[int]]:
    """The next ids of each prompt on its own, end-of-sequence ids like any other."""
    model.generation_config = GenerationConfig(
        max_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
        use_cache=getattr(model.config, "use_cache", True),
    )
    generator = cast("GenerationMixin", model)
    answers = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        answer = generator.generate(ids, attention_mask=torch.ones_like(ids))
        answers.append(answer[0, len(prompt) :].tolist())
    return answers


def last_logits(model: PreTrainedModel, prompt: list[int]) -> NDArray[np.float32]:
    """[vocabulary] after the prompt's last token."""
    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.tensor([prompt])).logits[0, -1].numpy()
    return logits
