"""How the model's authors would have it sampled: what the manifest takes of generation_config.json.

Those fields that a request can send too, where a request may send the value; it is the default of a
request that is silent, as in vLLM, whatever `do_sample` says. Called by pack.py and the pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from handlers.artifact.manifest import SamplingDefaults
from model_export.fetch.load import GENERATION_CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASKS_FOR_NOTHING: dict[str, tuple[Any, ...]] = {
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
"""What would change an answer and no default here has, with the values that change nothing."""


def sampling_defaults(generation_config: Mapping[str, Any]) -> SamplingDefaults:
    """What can be honoured of a generation_config.json; nothing of one that is empty."""
    return SamplingDefaults(**_usable(generation_config))


def not_honoured(generation_config: Mapping[str, Any]) -> str | None:
    """A line for people about the rest; None where there is none."""
    usable = _usable(generation_config)
    values = {name: value for name, value in generation_config.items() if value is not None}
    left_out = [
        f"{name} {values[name]!r}"
        for name, harmless in (_ASKS_FOR_NOTHING | dict.fromkeys(_FIELDS, ())).items()
        if name in values and name not in usable and values[name] not in harmless
    ]
    if not left_out:
        return None
    return f"{GENERATION_CONFIG}: not taken as defaults are {', '.join(left_out)}"


_FIELDS = SamplingDefaults.__struct_fields__


def _usable(generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """By their names in a request. A top_k of -1, as in vLLM, keeps all: that is 0."""
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
