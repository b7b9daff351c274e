"""Makes inputs of a query and documents in the prompt of a language model that ranks."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.encoder.request import EncoderInput
from handlers.errors import ContextLengthExceeded
from handlers.text.control_tokens import ControlTokens, PromptText
from handlers.text.encoder_inputs import batches, check_length, check_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from handlers.artifact.manifest import PairPrompt
    from handlers.text.encoder_inputs import FieldOf
    from handlers.text.tokenizer import Tokenizer

_PLACEHOLDER = re.compile(r"\{(instruction|query|document)\}")


def filled(template: str, texts: Mapping[str, str]) -> str:
    """Puts the texts into their places. A placeholder within a text stays what it is."""
    return _PLACEHOLDER.sub(lambda place: texts[place[1]], template)


def _places(template: str, texts: Mapping[str, str]) -> Iterator[tuple[int, int]]:
    """Yields where the texts begin and end in the filled template."""
    shift = 0
    for place in _PLACEHOLDER.finditer(template):
        start = place.start() + shift
        end = start + len(texts[place[1]])
        yield start, end
        shift = end - place.end()


class PairPromptBuilder(msgspec.Struct, frozen=True, dict=True):
    """Builds inputs of one model's prompt, of `max_tokens` ids at most.

    The prompt has its special tokens in its text.
    """

    tokenizer: Tokenizer
    prompt: PairPrompt
    max_tokens: int
    special_tokens_in_text: bool = False
    """Whether the names of special tokens in queries and documents become these tokens."""

    def pairs(
        self,
        query: str,
        documents: Sequence[str],
        field: FieldOf,
        cut_to: int | None,
        instruction: str | None = None,
    ) -> list[EncoderInput]:
        """Builds an input of the query and each document, of `cut_to` tokens at most.

        Of a document that is too long the end is left out, and what follows it in the prompt kept,
        since the model answers after it; None refuses it. Raises InvalidRequest for a null, and
        ContextLengthExceeded, also for a query that leaves no room for a document.
        """
        check_texts(documents, field)
        limit = self.max_tokens if cut_to is None else cut_to
        if instruction is None:
            instruction = self.prompt.instruction or ""
        texts = {"instruction": instruction, "query": query}
        before, _, after = self.prompt.template.partition("{document}")
        beginning, ending = (self._ids(self._filled(part, texts)) for part in (before, after))
        self._check_room(len(beginning) + len(ending), limit)
        inputs = []
        around = len(filled(before, texts)) + len(filled(after, texts))
        for start, end in batches([around + len(document) for document in documents]):
            prompts = [
                self._filled(self.prompt.template, {**texts, "document": document})
                for document in documents[start:end]
            ]
            for index, ids in enumerate(self._all_ids(prompts), start):
                if len(ids) > limit:
                    if cut_to is None:
                        check_length(len(ids), limit, field(index))
                    ids[limit - len(ending) :] = ending
                inputs.append(EncoderInput(np.array(ids, np.int32)))
        return inputs

    def _filled(self, template: str, texts: Mapping[str, str]) -> PromptText:
        text = filled(template, texts)
        if self.special_tokens_in_text:
            return PromptText(text)
        return PromptText(text, self._control_tokens.breaks(text, _places(template, texts)))

    def _ids(self, prompt: PromptText) -> list[int]:
        return self.tokenizer.encode(prompt.text, breaks=prompt.breaks)

    def _all_ids(self, prompts: Sequence[PromptText]) -> list[list[int]]:
        """Returns the ids of each prompt. Few have breaks, so all are encoded as one batch."""
        encoded = self.tokenizer.encode_prompts([prompt.text for prompt in prompts])
        return [
            self._ids(prompt) if prompt.breaks else one.ids
            for prompt, one in zip(prompts, encoded, strict=True)
        ]

    @cached_property
    def _control_tokens(self) -> ControlTokens:
        return ControlTokens(self.tokenizer.added_tokens, self.prompt.template)

    def _check_room(self, length: int, limit: int) -> None:
        if length >= limit:
            raise ContextLengthExceeded(
                f"The prompt is too long: query has {length:,} tokens with the model's own prompt "
                f"around it, which leaves a document none of the {limit:,} that an input may have. "
                f"Shorten it.",
                param="query",
            )
