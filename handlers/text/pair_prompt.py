"""Makes inputs of a query and documents in the prompt of a language model that ranks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.encoder.request import EncoderInput
from handlers.errors import ContextLengthExceeded
from handlers.text.encoder_inputs import batches, check_length, check_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.artifact.manifest import PairPrompt
    from handlers.text.encoder_inputs import FieldOf
    from handlers.text.tokenizer import Tokenizer

_PLACEHOLDER = re.compile(r"\{(instruction|query|document)\}")


def filled(template: str, texts: Mapping[str, str]) -> str:
    """Puts the texts into their places. A placeholder within a text stays what it is."""
    return _PLACEHOLDER.sub(lambda place: texts[place[1]], template)


class PairPromptBuilder(msgspec.Struct, frozen=True):
    """Builds inputs of one model's prompt, of `max_tokens` ids at most.

    The prompt has its special tokens in its text. Names of special tokens in a query or a document
    become their ids too, as in every text.
    """

    tokenizer: Tokenizer
    prompt: PairPrompt
    max_tokens: int

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
        before, after = self._around(query, instruction)
        ending = self.tokenizer.encode(after)
        self._check_room(len(self.tokenizer.encode(before)) + len(ending), limit)
        inputs = []
        sizes = [len(before) + len(document) + len(after) for document in documents]
        for start, end in batches(sizes):
            prompts = [f"{before}{document}{after}" for document in documents[start:end]]
            for index, encoded in enumerate(self.tokenizer.encode_prompts(prompts), start):
                ids = encoded.ids
                if len(ids) > limit:
                    if cut_to is None:
                        check_length(len(ids), limit, field(index))
                    ids = [*ids[: limit - len(ending)], *ending]
                inputs.append(EncoderInput(np.array(ids, np.int32)))
        return inputs

    def _around(self, query: str, instruction: str | None) -> tuple[str, str]:
        """Returns the prompt before and after the document."""
        if instruction is None:
            instruction = self.prompt.instruction or ""
        texts = {"instruction": instruction, "query": query}
        before, _, after = self.prompt.template.partition("{document}")
        return filled(before, texts), filled(after, texts)

    def _check_room(self, length: int, limit: int) -> None:
        if length >= limit:
            raise ContextLengthExceeded(
                f"The prompt is too long: query has {length:,} tokens with the model's own prompt "
                f"around it, which leaves a document none of the {limit:,} that an input may have. "
                f"Shorten it.",
                param="query",
            )
