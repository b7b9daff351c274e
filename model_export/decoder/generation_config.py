"""Reads how a model's authors would have it sampled, and which ids end an answer.

Sampling: the fields of generation_config.json that a request can send too, where a request may send
the value. They are the defaults of a request without them, as in vLLM, also where `do_sample` is
false.

Stop tokens: the model's own, and its chat template's end of turn. Many chat models declare only the
id that ended a pre-training document, and end a turn with another: without that one the model would
go on and write the user's next question itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2
import msgspec

from handlers.artifact.manifest import SamplingDefaults
from model_export.fetch.load import GENERATION_CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedTokenizerFast

    from model_export.fetch.load import LoadedModel

_FIELDS = SamplingDefaults.__struct_fields__
_NO_OP_VALUES: dict[str, tuple[Any, ...]] = {
    "do_sample": (True,),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "top_h": (),
    "num_beams": (1,),
    "penalty_alpha": (0.0,),
    "no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1.0,),
    "guidance_scale": (1.0,),
    "bad_words_ids": ([],),
    "sequence_bias": ({}, []),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "max_new_tokens": (),
}
"""Fields that no request can send, and their values that change no answer."""

# Any text will do that no template writes by itself.
_ANSWER = "kindling answers"


def sampling_defaults(generation_config: Mapping[str, Any]) -> SamplingDefaults:
    """Returns the fields of a generation_config.json that requests can send."""
    return SamplingDefaults(**_usable(generation_config))


def unsupported_defaults(generation_config: Mapping[str, Any]) -> str | None:
    """Returns a line for people about all other fields, None where there is none."""
    usable = _usable(generation_config)
    values = {name: value for name, value in generation_config.items() if value is not None}
    left_out = [
        f"{name} {values[name]!r}"
        for name, harmless in (_NO_OP_VALUES | dict.fromkeys(_FIELDS, ())).items()
        if name in values and name not in usable and values[name] not in harmless
    ]
    if not left_out:
        return None
    return f"{GENERATION_CONFIG}: not taken as defaults are {', '.join(left_out)}"


def _usable(generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a request can send, by name. A top_k of -1, as in vLLM, keeps all: that is 0."""
    found = {name: generation_config.get(name) for name in _FIELDS}
    if found["top_k"] == -1:
        found["top_k"] = 0
    return {
        name: value for name, value in found.items() if value is not None and _fits(name, value)
    }


def _fits(name: str, value: Any) -> bool:
    try:
        msgspec.convert({name: value}, SamplingDefaults)
    except msgspec.ValidationError:
        return False
    return True


def stop_token_ids(loaded: LoadedModel) -> tuple[int, ...]:
    """Returns the ids that end an answer, sorted; none for a model that declares no end."""
    configs = (loaded.model.config.get_text_config(), loaded.model.generation_config)
    ids = {token_id for config in configs for token_id in _as_ids(config)}
    if not ids:
        ids.update(_as_ids(loaded.tokenizer))
    ids.update(_end_of_turn(loaded.tokenizer, loaded.chat_template))
    return tuple(sorted(ids))


def _as_ids(holder: Any) -> tuple[int, ...]:
    """Reads `holder.eos_token_id`: one id, a list of ids or None."""
    value = getattr(holder, "eos_token_id", None)
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)


def _end_of_turn(tokenizer: PreTrainedTokenizerFast, template: str | None) -> tuple[int, ...]:
    """Finds the added token that the template writes right after an assistant's message."""
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
