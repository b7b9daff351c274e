"""The fields that generating endpoints share.

A field that is neither here nor in the endpoint's own struct nor refused is ignored: see
unsupported_fields.py. docs/api.md has the tables; a test holds them to these structs.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from handlers.api.logit_bias import LogitBias, biases, check_biases
from handlers.api.parsing import TokenId
from handlers.api.structured import Structured
from handlers.engine.params import SamplingParams
from handlers.errors import InvalidRequest

# A stop string is searched for at every token; OpenAI allows 4 of them.
StopString = Annotated[str, Meta(max_length=256)]
StopStrings = Annotated[list[StopString], Meta(max_length=16)]
# OpenAI's limit of `n`. What a process can hold at once is less, and the engine knows it.
MAX_CHOICES = 128

Penalty = Annotated[float, Meta(ge=-2, le=2)]

NO_LIMIT = -1
"""llama-server's and LM Studio's way to ask for what is left of the context."""
FRESH_SEED = -1
"""llama-server's and vLLM's way to ask for no seed."""

TokensOrNone = Annotated[int, Meta(ge=NO_LIMIT, le=2**31 - 1)]
Tokens = Annotated[TokensOrNone, Meta(extra_json_schema={"not": {"const": 0}})]

_MADE_OF_MORE = (
    "max_tokens",
    "top_k",
    "seed",
    "stop_token_ids",
    "logit_bias",
    "logprobs",
    "prompt_logprobs",
)
_OF_SAMPLING_PARAMS = tuple(
    name for name in SamplingParams.__struct_fields__ if name not in _MADE_OF_MORE
)


class Sampling(Structured, frozen=True, kw_only=True):
    """`null` and absent mean the default: the model's own, or else SamplingParams'."""

    max_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    """0 keeps the likeliest alone."""
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    """0 and -1 keep all, as in vLLM."""
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: StopString | StopStrings | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    """A logit divided by less might leave float32."""
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=1024)] | None = None

    def __post_init__(self) -> None:
        """Raises InvalidRequest for what the types cannot say, whatever the endpoint."""
        for name, limit in self.limits.items():
            if limit == 0 and not self.may_be_empty:
                raise InvalidRequest(
                    f"{name} of 0 needs echo: true, which /v1/completions takes. Send 1 or more, "
                    f"or -1 for what is left of the context.",
                    param=name,
                )
        check_biases(self.logit_bias)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings, none for the default. An empty one would stop nothing."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(filter(None, given))

    @property
    def limits(self) -> dict[str, int | None]:
        """The fields that limit the tokens of the answer: the first that is given counts."""
        return {"max_tokens": self.max_tokens}

    @property
    def may_be_empty(self) -> bool:
        """Whether an answer of no tokens can be asked for."""
        return False

    @property
    def token_limit(self) -> int | None:
        """Tokens of the answer at most, None for what is left of the context."""
        limit = next((each for each in self.limits.values() if each is not None), NO_LIMIT)
        return None if limit == NO_LIMIT else limit

    def params(self, room: int, **defaults: Any) -> SamplingParams:
        """The engine's parameters for one prompt.

        `room`: tokens that are left of the context behind the prompt, at least 1.
        `defaults`: for what the request does not say, and what it cannot.
        """
        given = {name: getattr(self, name) for name in _OF_SAMPLING_PARAMS}
        chosen = {name: value for name, value in given.items() if value is not None}
        if self.top_k is not None:
            chosen["top_k"] = max(0, self.top_k)
        limit = room if self.token_limit is None else min(self.token_limit, room)
        return SamplingParams(
            max_tokens=limit,
            seed=None if self.seed == FRESH_SEED else self.seed,
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            logit_bias=biases(self.logit_bias),
            **defaults | chosen,
        )


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's stream_options."""

    include_usage: bool | None = None
    continuous_usage_stats: Annotated[bool, Meta(extra_json_schema={"const": False})] | None = None
    """vLLM's wish for the usage in every chunk."""

    def __post_init__(self) -> None:
        """Raises InvalidRequest for what is not supported."""
        if self.continuous_usage_stats:
            raise InvalidRequest(
                "stream_options.continuous_usage_stats is not supported by this server: send "
                "include_usage, the last chunk then has the usage.",
                param="stream_options.continuous_usage_stats",
            )


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
