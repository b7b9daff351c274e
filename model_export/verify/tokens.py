"""Gate 1 of decoders: the runtime's tokenizer and chat template give transformers' ids.

Both are re-implementations here (tokenizers alone, jinja2 alone), and a single wrong space before a
role's name makes a model worse without making it fail.
"""

from __future__ import annotations

from typing import Any

from handlers.errors import InvalidRequest
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.reporting import ExportError
from model_export.verify.exchange import (
    DecoderReference,
    EncodedText,
    RefusedChat,
    RenderedChat,
)


def check_tokens(
    reference: DecoderReference, tokenizer: Tokenizer, template: ChatTemplate
) -> dict[str, Any]:
    """Returns the figures of gate 1. Raises ExportError at the first difference."""
    for encoded in reference.texts:
        _check_text(encoded, tokenizer)
    for chat in reference.chats:
        _check_chat(chat, tokenizer, template)
    for refusal in reference.refusals:
        _check_refusal(refusal, template)
    return {
        "texts": len(reference.texts),
        "chats": len(reference.chats),
        "refused_chats": len(reference.refusals),
    }


def _check_text(encoded: EncodedText, tokenizer: Tokenizer) -> None:
    for add_special_tokens, expected in (
        (False, encoded.ids),
        (True, encoded.ids_with_special_tokens),
    ):
        ids = tokenizer.encode(encoded.text, add_special_tokens=add_special_tokens)
        if ids != expected:
            raise _ids_differ(encoded.text, expected, ids)


def _check_chat(chat: RenderedChat, tokenizer: Tokenizer, template: ChatTemplate) -> None:
    rendered = template.render(chat.messages)
    if rendered != chat.rendered:
        raise ExportError(
            f"Gate 1 failed: the runtime renders the chat {chat.messages!r} as {rendered!r}, "
            f"transformers as {chat.rendered!r}."
        )
    ids = tokenizer.encode(rendered)
    if ids != chat.ids:
        raise _ids_differ(rendered, chat.ids, ids)


def _check_refusal(refusal: RefusedChat, template: ChatTemplate) -> None:
    try:
        rendered = template.render(refusal.messages)
    except InvalidRequest:
        return
    raise ExportError(
        f"Gate 1 failed: the runtime renders the chat {refusal.messages!r} as {rendered!r}, "
        f"transformers refuses it: {refusal.reason}."
    )


def _ids_differ(text: str, expected: list[int], ids: list[int]) -> ExportError:
    shared = next(
        (n for n, pair in enumerate(zip(expected, ids, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(ids)),
    )
    return ExportError(
        f"Gate 1 failed: for {text[:200]!r} the runtime's ids differ from transformers' at "
        f"position {shared}: {ids[shared : shared + 8]} where {expected[shared : shared + 8]} "
        f"is expected."
    )
