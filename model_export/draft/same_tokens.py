"""Proves that two models have the same tokenizer: what one guesses, the other reads alike.

The ids of every token of the vocabulary, special tokens among them, and those of the corpus's texts
and chats. What one of the two has beyond the other's tokens is padding, or never guessed right.
"""

from __future__ import annotations

from model_export.decoder.reference import chats_of
from model_export.fetch.load import LoadedModel
from model_export.reporting import ExportError
from model_export.verify.corpus import corpus, evaluation_text
from model_export.verify.exchange import EncodedText


def check_same_tokens(model: LoadedModel, draft: LoadedModel) -> None:
    """Raises ExportError, a sentence on the first token or text that has other ids."""
    _check_vocabulary(model, draft)
    for text in (*corpus().texts, *corpus().completions, evaluation_text()):
        ours, theirs = (EncodedText.of(text, each.tokenizer) for each in (model, draft))
        _check_ids(text, ours.ids, theirs.ids)
        _check_ids(text, ours.ids_with_special_tokens, theirs.ids_with_special_tokens)
    for chat in chats_of(model)[0]:
        ids = draft.tokenizer.encode(chat.rendered, add_special_tokens=False)
        _check_ids(chat.rendered, chat.ids, ids)


def _check_vocabulary(model: LoadedModel, draft: LoadedModel) -> None:
    theirs = draft.tokenizer.get_vocab()
    rows = draft.vocabulary_size
    ours = sorted(model.tokenizer.get_vocab().items(), key=lambda item: item[1])
    for token, number in ours:
        if number >= model.vocabulary_size:
            continue  # the artefact's tokenizer leaves it out: package.py
        other = theirs.get(token)
        if other is None:
            raise _differ(f"the token {token!r}, {number} in the model, is none of its own")
        if other != number:
            raise _differ(f"the token {token!r} is {number} in the model, and {other} in it")
        if number >= rows:
            raise _differ(f"the token {token!r}, {number}, is beyond its {rows:,} embeddings")


def _check_ids(text: str, ours: list[int], theirs: list[int]) -> None:
    if ours == theirs:
        return
    pairs = zip(ours, theirs, strict=False)
    place = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
    raise _differ(
        f"for {text[:200]!r} the model's ids from position {place} are "
        f"{ours[place : place + 8]}, and its own {theirs[place : place + 8]}"
    )


def _differ(how: str) -> ExportError:
    return ExportError(
        f"its tokenizer is not the model's: {how}. A draft model has to read and write the "
        f"same ids: name one of the same family, or leave the table out."
    )
