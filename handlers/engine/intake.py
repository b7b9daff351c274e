"""Prompts to sequences: what the engine refuses, and what it fills in.

Knows the model's numbers and no state. Called by the engine, from the thread that submits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.engine.sampler import Sampler
from handlers.engine.sequence import Sequence
from handlers.errors import ContextLengthExceeded, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from numpy.typing import NDArray

    from handlers.engine.params import Prompt


class Intake(msgspec.Struct, frozen=True):
    """Makes the sequences of one engine."""

    vocab_size: int
    eos_token_ids: frozenset[int]
    context_length: int

    def sequence(
        self, prompt: Prompt, index: int, submitted: float, deadline: float | None
    ) -> Sequence:
        """Raises InvalidRequest and ContextLengthExceeded."""
        ids, params = self._checked(prompt.ids), prompt.params
        for token_id in params.logit_bias:
            self._check_id(token_id, f"logit_bias.{token_id}")
        for token_id in params.stop_token_ids:
            self._check_id(token_id, "stop_token_ids")
        ignored = params.ignore_eos and prompt.constraint is None
        eos = params.stop_token_ids | (frozenset() if ignored else self.eos_token_ids)
        return Sequence(
            prompt=ids,
            params=params,
            sampler=Sampler(params, ids, eos),
            eos_token_ids=eos,
            room=self.context_length - len(ids),
            deadline=math.inf if deadline is None else deadline,
            index=index,
            constraint=prompt.constraint,
            submitted=submitted,
        )

    def _checked(self, prompt_ids: Items[int]) -> NDArray[np.int64]:
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
