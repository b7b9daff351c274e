"""The fields that generating endpoints share, and those that all of them refuse.

A field that is neither here nor in the endpoint's own struct is ignored. docs/api.md has the
tables; a test holds them to these structs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from handlers.engine.sequence import SamplingParams

if TYPE_CHECKING:
    from handlers.api.decoding import Refused

# A stop string is searched for at every token; OpenAI allows 4 of them.
StopString = Annotated[str, Meta(min_length=1, max_length=256)]
StopStrings = Annotated[list[StopString], Meta(max_length=16)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]

REFUSED: Refused = {
    "n": ("1",),
    "logprobs": ("false",),
    "logit_bias": ("{}",),
    "stop_token_ids": ("[]",),
    "bad_words": ("[]",),
    "response_format": ('{"type":"text"}',),
    "structured_outputs": (),
    "json_schema": (),
    "grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
}
"""Each would change the answer, so it is not ignored. With it, the JSON that asks for nothing."""

_OF_SAMPLING_PARAMS = tuple(
    name for name in SamplingParams.__dataclass_fields__ if name not in ("max_tokens", "top_k")
)


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """`null` and absent mean the default, which is SamplingParams' own."""

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
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None

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
        """`room`: tokens that are left of the context behind the prompt."""
        given = {name: getattr(self, name, None) for name in _OF_SAMPLING_PARAMS}
        chosen = {name: value for name, value in given.items() if value is not None}
        limit = room if self.token_limit is None else min(self.token_limit, room)
        # A prompt that leaves no room is refused by Engine.submit, which knows the figures.
        return SamplingParams(
            max_tokens=max(1, limit), top_k=max(0, self.top_k or 0), **defaults | chosen
        )


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's stream_options."""

    include_usage: bool | None = None


class OpenAICall(Sampling, frozen=True, kw_only=True):
    """What OpenAI's two generating endpoints share."""

    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)
