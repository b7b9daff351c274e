"""POST /infill, llama-server's completion of the middle of a text, which editors ask for.

https://github.com/ggml-org/llama.cpp/tree/master/tools/server#post-infill-for-code-infilling
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from handlers.api import unsupported_fields
from handlers.api.generation import GenerationRequest, StreamSerializer, expand_n, whole_response
from handlers.api.parsing import read_json
from handlers.api.sampling import SamplingFields, TokensOrNone
from handlers.api.schemas import ResponseSchema
from handlers.api.unsupported_fields import UnsupportedFields

if TYPE_CHECKING:
    from handlers.api.generation import Events
    from handlers.api.http import Request, Response, StreamResponse, TokenUsage
    from handlers.api.model import DecoderModel
    from handlers.text.completion import Delta

IGNORED = ("n_predict", "n_indent", "samplers", "t_max_predict_ms", "response_fields")
"""Fields that llama.vim sends. `n_predict` is read; without the others an answer is longer."""
UNSUPPORTED: UnsupportedFields = {
    name: values
    for name, values in (
        unsupported_fields.COMMON | unsupported_fields.CHAT_ONLY | unsupported_fields.THINKING
    ).items()
    if name not in IGNORED
}

NO_SLOT = -1
StopType = Literal["eos", "limit", "word"]


class ExtraFile(msgspec.Struct, frozen=True):
    """Another file, or a part of one, that the model may take things from."""

    text: str
    filename: str = "tmp"


class InfillRequest(SamplingFields, frozen=True, kw_only=True):
    """The body of a request to /infill."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[ExtraFile], Meta(max_length=1024)] | None = None
    prompt: str | None = None
    """Stands after the prefix: the line that the cursor is in."""
    n_predict: TokensOrNone | None = None
    max_tokens: TokensOrNone | None = None
    stream: bool | None = None

    @property
    def limits(self) -> dict[str, int | None]:
        """The fields that limit the tokens of the answer: the first that is given counts."""
        return {"n_predict": self.n_predict, "max_tokens": self.max_tokens}

    @property
    def may_be_empty(self) -> bool:
        """Returns whether a limit of 0 tokens is accepted: editors have prompts read ahead."""
        return True


class InfillTimings(ResponseSchema, frozen=True, kw_only=True):
    """The milliseconds that prompt and answer took, and their tokens."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


class Infilled(ResponseSchema, frozen=True, kw_only=True):
    """The middle of a text, whole or as an event of a stream.

    Only the last event has `stop` true and all members; it has no text.
    """

    index: int
    content: str
    tokens: list[int]
    id_slot: int
    stop: bool
    model: str | UnsetType = UNSET
    tokens_predicted: int
    tokens_evaluated: int
    has_new_line: bool | UnsetType = UNSET
    truncated: bool | UnsetType = UNSET
    stop_type: StopType | UnsetType = UNSET
    stopping_word: str | UnsetType = UNSET
    tokens_cached: int | UnsetType = UNSET
    timings: InfillTimings | UnsetType = UNSET


class InfillSerializer(StreamSerializer):
    """Makes the bodies of an answer, whole or as events."""

    end: ClassVar[bytes] = b""

    def __init__(self, model: str) -> None:
        self._model = model
        self._has_new_line = False

    def start(self) -> Events:
        """Returns nothing: the first event has text."""
        return []

    def delta(self, delta: Delta) -> Events:
        """Returns an event with the text, and another one at the end."""
        self._has_new_line = self._has_new_line or "\n" in delta.text
        events: Events = [self._chunk(delta, delta.text)] if delta.text else []
        return [*events, self._final(delta, "")] if delta.finish_reason else events

    def finish(self, _usage: TokenUsage) -> Events:
        """Returns nothing: the last event has the counts."""
        return []

    def whole(self, choice: Delta) -> Infilled:
        """Returns the body of an answer that is not streamed."""
        self._has_new_line = "\n" in choice.text
        return self._final(choice, choice.text)

    def _chunk(self, delta: Delta, content: str) -> Infilled:
        return Infilled(
            index=0,
            content=content,
            tokens=[],
            id_slot=NO_SLOT,
            stop=False,
            tokens_predicted=delta.stats.completion_tokens,
            tokens_evaluated=delta.stats.prompt_tokens,
        )

    def _final(self, delta: Delta, content: str) -> Infilled:
        return replace(
            self._chunk(delta, content),
            stop=True,
            model=self._model,
            has_new_line=self._has_new_line,
            truncated=False,
            stop_type=_stop_type(delta),
            stopping_word=delta.stop_string or "",
            tokens_cached=delta.stats.cached_tokens,
            timings=_timings(delta),
        )


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Fills in the text between a prefix and a suffix. Raises InvalidRequest where it cannot."""
    body = read_json(request.body, InfillRequest)
    ids = await model.tokenising.run(lambda: _tokenise(model, body))
    model.prompt_encoder.check_room(len(ids), "input_prefix")
    constraint = body.output_constraint
    grammar = await constraint.grammar(model) if constraint else None
    params = body.params(model.engine.context_length - len(ids), **model.sampling)
    ends = params.stop_token_ids | model.infill_format("input_suffix").ends
    generation_request = GenerationRequest(
        expand_n(ids, replace(params, stop_token_ids=ends), 1, grammar),
        body.stop_strings,
        request.deadline,
        prompt_field="input_prefix",
        grammar_field=constraint.field if constraint else None,
    )
    serializer = InfillSerializer(model.id)
    if body.stream:
        return await generation_request.stream(model.completer, serializer)
    (choice,) = choices = await generation_request.run(model.completer)
    return whole_response(serializer.whole(choice), choices, generation_request.usage(choices))


def _tokenise(model: DecoderModel, body: InfillRequest) -> list[int]:
    """Tokenises the prompt. Raises InvalidRequest and ContextLengthExceeded."""
    files = [(extra.filename, extra.text) for extra in body.input_extra or ()]
    texts = (body.input_prefix, body.input_suffix, *(text for _, text in files))
    model.prompt_encoder.check_length(sum(map(len, texts)), "input_prefix")
    prefix = body.input_prefix + (body.prompt or "")
    prompt = model.infill_format("input_suffix").prompt(prefix, body.input_suffix, files)
    return model.prompt_encoder.encode(
        prompt.text, param="input_prefix", add_special_tokens=True, breaks=prompt.breaks
    )


def _stop_type(delta: Delta) -> StopType:
    if delta.stop_string is not None:
        return "word"
    return "limit" if delta.finish_reason == "length" else "eos"


def _timings(delta: Delta) -> InfillTimings:
    stats = delta.stats
    computed = stats.prompt_tokens - stats.cached_tokens
    return InfillTimings(
        cache_n=stats.cached_tokens,
        prompt_n=computed,
        prompt_ms=stats.prefill_ms,
        prompt_per_token_ms=_ratio(stats.prefill_ms, computed),
        prompt_per_second=_ratio(1000 * computed, stats.prefill_ms),
        predicted_n=stats.completion_tokens,
        predicted_ms=stats.decode_ms,
        predicted_per_token_ms=_ratio(stats.decode_ms, stats.completion_tokens),
        predicted_per_second=_ratio(1000 * stats.completion_tokens, stats.decode_ms),
    )


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0
