"""Checks prompts against the model's limits, and makes the engine's sequences of them."""

from __future__ import annotations

import math
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.engine.params import Prompt
from handlers.engine.sampling import Sampler
from handlers.engine.sequence import Sequence
from handlers.errors import ContextLengthExceeded, InvalidRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray


class RequestValidator(msgspec.Struct, frozen=True):
    """Checks prompts against the model's limits and makes sequences of them."""

    vocab_size: int
    eos_token_ids: frozenset[int]
    context_length: int

    def sequence(
        self, prompt: Prompt, index: int, submitted: float, deadline: float | None
    ) -> Sequence:
        """Makes the sequence of a prompt. `submitted`, `deadline`: `time.monotonic()` seconds.

        Raises InvalidRequest and ContextLengthExceeded.
        """
        ids, params = self._checked_ids(prompt.ids), prompt.params
        for token_id in params.logit_bias:
            self._check_id(token_id, f"logit_bias.{token_id}")
        for token_id in params.stop_token_ids:
            self._check_id(token_id, "stop_token_ids")
        constraint = prompt.constraint
        ignored = params.ignore_eos and (constraint is None or not constraint.ends_answer)
        eos = params.stop_token_ids | (frozenset() if ignored else self.eos_token_ids)
        return Sequence(
            prompt=ids,
            params=params,
            sampler=Sampler(params, ids, eos),
            eos_token_ids=eos,
            max_new_tokens_by_context=self.context_length - len(ids),
            deadline=math.inf if deadline is None else deadline,
            index=index,
            constraint=constraint,
            submitted=submitted,
        )

    def _checked_ids(self, prompt_ids: Items[int]) -> NDArray[np.int64]:
        prompt = np.asarray(prompt_ids, np.int64)
        if not len(prompt):
            raise InvalidRequest("The prompt is empty: send at least one token.", param="prompt")
        if len(prompt) >= self.context_length:
            raise ContextLengthExceeded(
                f"The prompt is too long: it has {len(prompt)} tokens, and the context holds "
                f"{self.context_length} of prompt and answer together. Shorten it.",
                param="prompt",
            )
        outside = np.flatnonzero((prompt < 0) | (prompt >= self.vocab_size))
        if len(outside):
            place = int(outside[0])
            raise InvalidRequest(
                f"The prompt has the token id {prompt[place]} at place {place}, outside 0 to "
                f"{self.vocab_size - 1}.",
                param="prompt",
            )
        return prompt

    def _check_id(self, token_id: int, param: str) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise InvalidRequest(
                f"{param}: the token id {token_id} is outside 0 to {self.vocab_size - 1}.",
                param=param,
            )
