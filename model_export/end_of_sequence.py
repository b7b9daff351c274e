"""Which ids end an answer: the model's own, and its chat template's end of turn.

Many chat models declare only the id that ended a pre-training document, and end a turn with
another: without that one the model would go on and write the user's next question itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from model_export.fetch.load import LoadedModel

# Any text will do that no template writes by itself.
_ANSWER = "kindling answers"


def eos_token_ids(loaded: LoadedModel) -> tuple[int, ...]:
    """Sorted, without repeats. Empty for a model that declares no end."""
    configs = (loaded.model.config.get_text_config(), loaded.model.generation_config)
    ids = {token_id for config in configs for token_id in _as_ids(config)}
    if not ids:
        ids.update(_as_ids(loaded.tokenizer))
    ids.update(_end_of_turn(loaded.tokenizer, loaded.chat_template))
    return tuple(sorted(ids))


def _as_ids(holder: Any) -> tuple[int, ...]:
    """`holder.eos_token_id`: one id, a list of ids or None."""
    value = getattr(holder, "eos_token_id", None)
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def _end_of_turn(tokenizer: PreTrainedTokenizerFast, template: str | None) -> tuple[int, ...]:
    """The added token that the template writes right after an assistant's message, if any."""
    if template is None:
        return ()
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": _ANSWER}]
    try:
        rendered = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False)
    except jinja2.TemplateError:  # it may ask for a system message first
        return ()
    _, found, after = str(rendered).rpartition(_ANSWER)
    if not found:
        return ()
    for token_id in tokenizer.encode(after, add_special_tokens=False):
        if token_id in tokenizer.added_tokens_decoder:
            return (token_id,)
        if tokenizer.decode([token_id]).strip():
            return ()
    return ()
