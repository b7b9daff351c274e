"""Asks transformers for what an encoder's export has to reproduce: ids, segments, rows.

The only part of the gates that needs torch. It runs before the export, on the model as it was
loaded, each text alone and without padding; its result is plain data.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from model_export.reporting import ExportError
from model_export.verify.corpus import DOCUMENTS, passages, query_document_pairs, texts_and_pairs
from model_export.verify.exchange import EncodedInput, EncoderReference, OutputRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_export.encoder.source import EncoderSource

CUT = 32
"""Tokens that most of the corpus is longer than, where few texts reach what a model takes."""
LONGEST = 1024
"""Tokens of the longest text that is encoded: attention over more takes gigabytes."""


def make_reference(source: EncoderSource, task: str) -> EncoderReference:
    """Encodes the shipped corpus. Takes 3 s for 22M weights on two cores, nearly all of it rows."""
    limit = source.info.max_tokens
    ranks = task == "text-ranking"
    inputs: Sequence[tuple[str, ...]]
    inputs = query_document_pairs() if ranks else [(text,) for text in passages()]
    longest = _longest(source, inputs[0], min(limit, LONGEST))
    return EncoderReference(
        whole=[_encode(source, texts, None) for texts in texts_and_pairs()],
        cut={
            length: [_encode(source, texts, length) for texts in texts_and_pairs()]
            for length in sorted({min(limit, CUT), limit})
        },
        max_tokens=limit,
        answers=[_answer(source, _encode(source, texts, limit)) for texts in inputs],
        longest=longest,
        documents=DOCUMENTS if ranks else 0,
    )


def _longest(source: EncoderSource, texts: tuple[str, ...], length: int) -> OutputRow:
    """Encodes a text so long that a wrong `max_tokens` shows. Raises ExportError."""
    everything = " ".join(passages())
    encoded = _encode(source, (*texts[:-1], everything), length)
    try:
        return _answer(source, encoded)
    except (IndexError, RuntimeError) as error:
        raise ExportError(
            f"The model takes no {len(encoded.ids)} tokens, where max_tokens is "
            f"{source.info.max_tokens}: {error}. Name fewer in [export] max_tokens."
        ) from None


def _encode(source: EncoderSource, texts: tuple[str, ...], limit: int | None) -> EncodedInput:
    options: dict[str, Any] = {"truncation": False}
    if limit is not None:
        options = {"truncation": "longest_first", "max_length": limit}
    output = source.loaded.tokenizer(*texts, return_token_type_ids=True, **options)
    return EncodedInput(texts=texts, ids=output["input_ids"], type_ids=output["token_type_ids"])


def _answer(source: EncoderSource, encoded: EncodedInput) -> OutputRow:
    import torch

    model: Any = source.loaded.model  # torch types a module's attributes as tensors
    ids, type_ids = torch.tensor([encoded.ids]), torch.tensor([encoded.type_ids])
    mask = torch.ones_like(ids)
    segments = {"token_type_ids": type_ids} if _has_segments(source) else {}
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask, **segments)
        row = output.logits if source.head is None else source.head(output.last_hidden_state, mask)
    return OutputRow(encoded=encoded, row=row[0].tolist())


def _has_segments(source: EncoderSource) -> bool:
    """Tells whether tokenizer and model have segments: DistilBERT's tokenizer may, alone."""
    taken = inspect.signature(source.loaded.model.forward).parameters
    return "token_type_ids" in {*source.loaded.tokenizer.model_input_names} & {*taken}
