"""The request fields that say how an answer is sampled, and when it ends.

A field that is neither here nor in the endpoint's own struct nor refused is ignored: see
unsupported_fields.py. docs/api.md has the tables; a test compares them with these structs.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from handlers.api.parsing import TokenId
from handlers.api.response_format import (
    OutputConstraint,
    StructuredOutputFields,
    output_constraint,
)
from handlers.engine.params import SamplingParams
from handlers.errors import InvalidRequest, shortened

# A stop string is searched for at every token; OpenAI allows 4 of them.
StopString = Annotated[str, Meta(max_length=256)]
StopStrings = Annotated[list[StopString], Meta(max_length=16)]
# OpenAI's limit of `n`. The engine refuses what is more than it can hold at once.
MAX_CHOICES = 128
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]

Penalty = Annotated[float, Meta(ge=-2, le=2)]

NO_LIMIT = -1
"""llama-server's and LM Studio's value for all that is left of the context."""
RANDOM_SEED = -1
"""llama-server's and vLLM's value for no seed."""

TokensOrNone = Annotated[int, Meta(ge=NO_LIMIT, le=2**31 - 1)]
Tokens = Annotated[TokensOrNone, Meta(extra_json_schema={"not": {"const": 0}})]

MAX_BIAS = 100
_DIGITS = 9  # fewer than those of 2**31

# A JSON object's keys are strings. The engine checks ids against the vocabulary, which it knows.
LogitBias = Annotated[
    dict[str, Any],
    Meta(
        max_length=1024,
        extra_json_schema={
            "propertyNames": {"pattern": f"^(0|[1-9][0-9]{{0,{_DIGITS - 1}}})$"},
            "additionalProperties": {"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS},
        },
    ),
]

FORMAT_FIELDS = StructuredOutputFields.__struct_fields__

_CONVERTED = (
    "max_tokens",
    "top_k",
    "seed",
    "stop_token_ids",
    "logit_bias",
    "logprobs",
    "prompt_logprobs",
)
_COPIED = tuple(name for name in SamplingParams.__struct_fields__ if name not in _CONVERTED)


class SamplingFields(StructuredOutputFields, frozen=True, kw_only=True):
    """The fields of every generating endpoint.

    `null` and absent mean the default: the model's own, or SamplingParams' where it has none.
    """

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
        """Raises InvalidRequest for what the types cannot express."""
        for name, limit in self.limits.items():
            if limit == 0 and not self.may_be_empty:
                raise InvalidRequest(
                    f"{name} of 0 needs echo: true, which /v1/completions takes. Send 1 or more, "
                    f"or -1 for what is left of the context.",
                    param=name,
                )
        _check_biases(self.logit_bias or {})

    @property
    def output_constraint(self) -> OutputConstraint | None:
        """The format that the answer is held to, None for any text. Raises InvalidRequest."""
        asked = any(getattr(self, name) is not None for name in FORMAT_FIELDS)
        return output_constraint(self) if asked else None

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
        """Returns whether a limit of 0 tokens is accepted."""
        return False

    @property
    def token_limit(self) -> int | None:
        """The most tokens that the answer may have, None for what is left of the context."""
        limit = next((each for each in self.limits.values() if each is not None), NO_LIMIT)
        return None if limit == NO_LIMIT else limit

    def params(self, context_left: int, **defaults: Any) -> SamplingParams:
        """Returns the engine's parameters for one prompt.

        `context_left`: tokens that are left of the context after the prompt, at least 1.
        `defaults`: SamplingParams' fields where the request is silent, and those it cannot set.
        """
        given = {name: getattr(self, name) for name in _COPIED}
        chosen = {name: value for name, value in given.items() if value is not None}
        if self.top_k is not None:
            chosen["top_k"] = max(0, self.top_k)
        limit = context_left if self.token_limit is None else min(self.token_limit, context_left)
        return SamplingParams(
            max_tokens=limit,
            seed=None if self.seed == RANDOM_SEED else self.seed,
            stop_token_ids=frozenset(self.stop_token_ids or ()),
            logit_bias={int(key): bias for key, bias in (self.logit_bias or {}).items()},
            **defaults | chosen,
        )


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI's stream_options."""

    include_usage: bool | None = None
    continuous_usage_stats: Annotated[bool, Meta(extra_json_schema={"const": False})] | None = None
    """vLLM's field for the usage in every chunk."""

    def __post_init__(self) -> None:
        """Raises InvalidRequest for what is not supported."""
        if self.continuous_usage_stats:
            raise InvalidRequest(
                "stream_options.continuous_usage_stats is not supported by this server: send "
                "include_usage, the last chunk then has the usage.",
                param="stream_options.continuous_usage_stats",
            )


def includes_usage(options: StreamOptions | None) -> bool:
    """Returns whether a stream ends with a usage chunk."""
    return bool(options and options.include_usage)


def _check_biases(biases: LogitBias) -> None:
    """Raises InvalidRequest, naming the key, for one that is no token id or has no valid bias."""
    for key, bias in biases.items():
        field = f"logit_bias.{shortened(key)}"
        if not (key.isascii() and key.isdigit() and len(key) <= _DIGITS and key == str(int(key))):
            raise InvalidRequest(
                f"{field}: keys are token ids in decimal digits, such as 1234. POST /tokenize "
                f"gives the ids of a text.",
                param=field,
            )
        number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not (number and -MAX_BIAS <= bias <= MAX_BIAS):
            raise InvalidRequest(
                f"{field}: a bias is a number from -{MAX_BIAS} to {MAX_BIAS}.", param=field
            )
