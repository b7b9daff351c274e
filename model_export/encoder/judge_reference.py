"""Asks transformers for what the export of a language model that ranks has to reproduce.

The ids of its prompt around pairs of the corpus, and the two logits that its score is made of. As
in reference.py, each pair alone and without padding, on the model as it was loaded.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from model_export.encoder.reference import CUT, LONGEST
from model_export.reporting import ExportError
from model_export.verify.corpus import DOCUMENTS, odd_pairs, passages, query_document_pairs
from model_export.verify.exchange import EncodedInput, EncoderReference, OutputRow

if TYPE_CHECKING:
    from model_export.encoder.judge import Judge
    from model_export.encoder.source import EncoderSource


def make_judge_reference(source: EncoderSource, judge: Judge) -> EncoderReference:
    """Encodes and judges the shipped corpus. Raises ExportError."""
    limit = source.info.max_tokens
    ranked = query_document_pairs()
    odd = (pair for pair in odd_pairs() if "\0" not in "".join(pair))  # refused at run time
    pairs = (*odd, *ranked)
    prompt = max(len(_ids(source, judge, (query, ""))) for query, _ in pairs)
    if prompt >= limit:
        raise ExportError(
            f"The prompt around a query has {prompt} tokens, which leaves a document none of "
            f"max_tokens, {limit}: name more in [export] max_tokens."
        )
    longest = (ranked[0][0], " ".join(passages()))
    return EncoderReference(
        whole=[_encode(source, judge, pair, None) for pair in pairs],
        cut={
            length: [_encode(source, judge, pair, length) for pair in pairs]
            for length in sorted({min(limit, prompt + CUT), limit})
        },
        max_tokens=limit,
        answers=[_answer(source, judge, _encode(source, judge, pair, limit)) for pair in ranked],
        longest=_answer(source, judge, _encode(source, judge, longest, min(limit, LONGEST))),
        documents=DOCUMENTS,
    )


def _ids(source: EncoderSource, judge: Judge, pair: tuple[str, str]) -> list[int]:
    """Returns the ids of the whole prompt. The corpus has no placeholders in its texts."""
    query, document = pair
    text = judge.prompt.template.replace("{instruction}", judge.prompt.instruction or "")
    text = text.replace("{query}", query).replace("{document}", document)
    return _tokenize(source, text)


def _tokenize(source: EncoderSource, text: str) -> list[int]:
    ids: list[int] = source.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _encode(
    source: EncoderSource, judge: Judge, pair: tuple[str, str], limit: int | None
) -> EncodedInput:
    """Encodes a pair, cut as sentence-transformers cuts it: what follows the document is kept."""
    ids = _ids(source, judge, pair)
    if limit is not None and len(ids) > limit:
        ending = judge.prompt.template.partition("{document}")[2].replace("{query}", pair[0])
        ending = ending.replace("{instruction}", judge.prompt.instruction or "")
        kept = _tokenize(source, ending)
        ids = ids[: limit - len(kept)] + kept
    return EncodedInput(texts=pair, ids=ids, type_ids=[0] * len(ids))


def _answer(source: EncoderSource, judge: Judge, encoded: EncodedInput) -> OutputRow:
    import torch

    model: Any = source.loaded.model
    ids = torch.tensor([encoded.ids])
    # Of all tokens, a vocabulary's logits would be hundreds of megabytes.
    taken = inspect.signature(model.forward).parameters
    options = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}
    with torch.no_grad():
        output = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **options
        )
    logits = output.logits[0, -1]
    no = 0.0 if judge.no is None else float(logits[judge.no])
    return OutputRow(encoded=encoded, row=[float(logits[judge.yes]) - no])
