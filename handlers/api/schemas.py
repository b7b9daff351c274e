"""The structs of answers, which tests/clouds/test_openapi.py holds the endpoints to."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType


class ResponseSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON object of an answer: it has these members and no others, and leaves UNSET ones out."""


class PromptTokensDetails(ResponseSchema, frozen=True, kw_only=True):
    """`cached_tokens` of the prompt were read from an earlier request's cache."""

    cached_tokens: int


class CompletionTokensDetails(ResponseSchema, frozen=True, kw_only=True):
    """No model here hides its reasoning."""

    reasoning_tokens: int


class Usage(ResponseSchema, frozen=True, kw_only=True):
    """Tokens of the prompt and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(ResponseSchema, frozen=True, kw_only=True):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob, frozen=True, kw_only=True):
    """A token that came, and the likeliest ones in its place."""

    top_logprobs: list[TopLogprob]


class TextLogprobs(ResponseSchema, frozen=True, kw_only=True):
    """OpenAI's older form: four lists with an entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(ResponseSchema, frozen=True, kw_only=True):
    """One continuation."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(ResponseSchema, frozen=True, kw_only=True):
    """The continuation of a text, whole or as an event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET


class Generated(ResponseSchema, frozen=True, kw_only=True):
    """The answer to a prompt."""

    response: str
    finish_reason: Literal["stop", "length"]
    usage: Usage


class Tokens(ResponseSchema, frozen=True, kw_only=True):
    """The ids of a text."""

    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str | None] | None


class Prompt(ResponseSchema, frozen=True, kw_only=True):
    """What a model sees of a chat."""

    prompt: str
    token_ids: list[int]
    count: int
    max_model_len: int


class Text(ResponseSchema, frozen=True, kw_only=True):
    """The text of ids, twice."""

    prompt: str
    content: str


class TokenizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What reads texts. A model may have more special tokens than these, such as cls_token."""

    tokenizer_class: Literal["PreTrainedTokenizerFast"]
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    model_max_length: int
    chat_template: str | None


class ModelCard(ResponseSchema, frozen=True, kw_only=True):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int


class ModelList(ResponseSchema, frozen=True, kw_only=True):
    """One model."""

    object: Literal["list"]
    data: list[ModelCard]


class Health(ResponseSchema, frozen=True, kw_only=True):
    """What runs and how busy it is."""

    state: Literal["ready", "draining"]
    version: str
    """Of Kindling."""
    model: str
    task: str
    precision: str
    context_length: int
    slots: int | UnsetType = UNSET
    sampling_defaults: dict[str, float] | UnsetType = UNSET
    """Of a request that says nothing of them."""
    running: int
    waiting: int
    load_ms: dict[str, float]
    uptime_seconds: float


class ErrorDetail(ResponseSchema, frozen=True, kw_only=True):
    """`param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class Error(ResponseSchema, frozen=True, kw_only=True):
    """Every error's body."""

    error: ErrorDetail
