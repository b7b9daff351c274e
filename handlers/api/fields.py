"""The fields that generating endpoints share, and those that all of them refuse.

A field that is neither here nor in the endpoint's own struct is ignored. docs/api.md has the
tables; a test holds them to these structs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from handlers.api.structured import Structured
from handlers.api.texts_or_ids import TokenId
from handlers.engine.sequence import SamplingParams

if TYPE_CHECKING:
    from handlers.api.decoding import Refused

# A stop string is searched for at every token; OpenAI allows 4 of them.
StopString = Annotated[str, Meta(min_length=1, max_length=256)]
StopStrings = Annotated[list[StopString], Meta(max_length=16)]
# OpenAI's limit of `n`. What a process can hold at once is less, and the engine knows it.
MAX_CHOICES = 128

Penalty = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]

Bias = Annotated[float, Meta(ge=-100, le=100)]
# A JSON object's keys are strings.
_LOGIT_BIAS = Meta(
    max_length=1024, extra_json_schema={"propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"}}
)

REFUSED: Refused = {
    "bad_words": ("[]",),
    "allowed_token_ids": ("[]",),
    "use_beam_search": ("false",),
    "prompt_logprobs": (),
    "include_stop_str_in_output": ("false",),
    "skip_special_tokens": ("true",),
    "truncate_prompt_tokens": (),
    "return_tokens_as_token_ids": ("false",),
    "return_token_ids": ("false",),
    "n_predict": (),
    "n_probs": ("0",),
    "repeat_penalty": ("1",),
    "typical_p": ("1",),
    "mirostat": ("0",),
    "dry_multiplier": ("0",),
    "xtc_probability": ("0",),
    "dynatemp_range": ("0",),
}
"""Each would change the answer, so it is not ignored. With it, the JSON that asks for nothing."""

OF_CHATS: Refused = {
    "messages": (),
    "tools": ("[]",),
    "tool_choice": ('"none"', '"auto"'),
    "functions": ("[]",),
    "function_call": ('"none"', '"auto"'),
    "top_logprobs": ("0",),
    "max_completion_tokens": (),
}
"""What only a chat has: refused where a text is continued."""

IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "moderation",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "cache_prompt",
    "reasoning_effort",
    "verbosity",
    "priority",
    "request_id",
)
"""Known, and taken without effect: none changes what the answer may say."""

_OF_SAMPLING_PARAMS = tuple(
    name
    for name in SamplingParams.__struct_fields__
    if name not in ("max_tokens", "top_k", "stop_token_ids", "logprobs", "prompt_logprobs")
)


class Sampling(Structured, frozen=True, kw_only=True):
    """`null` and absent mean the default: the model's own, or else SamplingParams'."""

    max_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """0 and -1 keep all, as in vLLM."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopString | StopStrings | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    """A logit divided by less might leave float32."""
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenId, Bias], _LOGIT_BIAS] | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1024)] | None = None

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none for the default."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def token_limit(self) -> int | None:
        """Tokens of the answer at most, None for what is left of the context."""
        return self.max_tokens

    def params(self, room: int, **defaults: Any) -> SamplingParams:
        """`room`: tokens that are left of the context behind the prompt.

        `defaults`: for what the request does not say, and what it cannot.
        """
        given = {name: getattr(self, name) for name in _OF_SAMPLING_PARAMS}
        chosen = {name: value for name, value in given.items() if value is not None}
        if self.top_k is not None:
            chosen["top_k"] = max(0, self.top_k)
        limit = room if self.token_limit is None else min(self.token_limit, room)
        # A prompt that leaves no room is refused by Engine.submit_all, which knows the figures.
        return SamplingParams(
            max_tokens=max(0 if self.token_limit == 0 else 1, limit),
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            **defaults | chosen,
        )


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's stream_options."""

    include_usage: bool | None = None


class OpenAICall(Sampling, frozen=True, kw_only=True):
    """What OpenAI's two generating endpoints share."""

    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)
