"""POST /v1/completions, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, cast

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from handlers.api import unsupported_fields
from handlers.api.generation import (
    GenerationRequest,
    ResponseMetadata,
    StreamSerializer,
    Usage,
    expand_n,
    whole_response,
)
from handlers.api.logprobs import TextLogprobs
from handlers.api.parsing import PromptInput, as_list, read_json
from handlers.api.prompt_echo import PromptEcho, TokenisedPrompt
from handlers.api.sampling import (
    MAX_CHOICES,
    Choices,
    SamplingFields,
    StreamOptions,
    TokensOrNone,
    includes_usage,
)
from handlers.api.schemas import ResponseSchema
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.api.generation import Events
    from handlers.api.http import Request, Response, StreamResponse, TokenUsage
    from handlers.api.model import DecoderModel
    from handlers.text.completion import Delta

# Spelling 40,000 of them takes 0.13 s, in which the event loop serves nobody, and 1.2 MB of JSON.
MAX_ECHOED_LOGPROBS = 50_000

UNSUPPORTED: UnsupportedFields = (
    unsupported_fields.COMMON
    | unsupported_fields.CHAT_ONLY
    | unsupported_fields.THINKING
    | {
        "max_output_tokens": (),
        "chat_template": (),
        "add_generation_prompt": ("true",),
        "continue_final_message": ("false",),
    }
)


class CompletionRequest(SamplingFields, frozen=True, kw_only=True):
    """The body of a request to /v1/completions."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    model: str | None = None
    """Any name: a process serves one model, and the answer says which."""
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt: PromptInput
    suffix: str | None = None
    """The text after the answer, for a model that was trained to fill in. An empty one is none."""
    max_tokens: TokensOrNone | None = None
    logprobs: (
        Annotated[int, Meta(ge=0, le=20)]
        | Annotated[bool, Meta(extra_json_schema={"const": False})]
        | None
    ) = None
    """OpenAI's limit is 5, vLLM's 20. false is none."""
    echo: bool | None = None
    add_special_tokens: bool | None = None
    """vLLM's: false for a text that has them already, such as a rendered chat."""
    best_of: int | None = None

    @property
    def may_be_empty(self) -> bool:
        """Returns whether a limit of 0 tokens is accepted: an echo returns the prompt alone."""
        return bool(self.echo)

    @property
    def num_choices(self) -> int:
        """Returns how many choices each prompt gets. Raises InvalidRequest."""
        if self.best_of not in {None, self.n or 1}:
            raise InvalidRequest(
                "best_of is not supported by this server: leave it out, or send what n is.",
                param="best_of",
            )
        return self.n or 1

    @property
    def num_top_logprobs(self) -> int | None:
        """Returns how many of the likeliest tokens are wanted, None for no logprobs."""
        return None if self.logprobs is False else self.logprobs

    def check(self) -> None:
        """Raises InvalidRequest for what the types do not say."""
        if self.logprobs is True:
            raise InvalidRequest(
                "logprobs is true, as in a chat: send how many of the likeliest tokens to tell "
                "beside each, 0 to 20.",
                param="logprobs",
            )
        if self.suffix and self.echo:
            raise InvalidRequest(
                "echo gives the prompt back before an answer that continues it, but with a suffix "
                "the answer stands between two texts: leave echo out.",
                param="echo",
            )
        of_ids = isinstance(self.prompt, list) and isinstance(next(iter(self.prompt), 0), int)
        prompts = 1 if of_ids or isinstance(self.prompt, str) else len(self.prompt)
        if prompts * self.num_choices > MAX_CHOICES:
            raise InvalidRequest(
                f"{prompts} prompts with {self.num_choices} choices each are over the limit of "
                f"{MAX_CHOICES} choices: send fewer.",
                param="prompt",
            )

    def check_echo(self, tokens: int) -> None:
        """Raises InvalidRequest for more logprobs than an echo may have.

        `tokens`: those of all prompts together.
        """
        beside = self.num_top_logprobs
        if not self.echo or beside is None:
            return
        if tokens * self.num_choices * (beside + 1) > MAX_ECHOED_LOGPROBS:
            raise InvalidRequest(
                f"An echo of {tokens:,} prompt tokens in {self.num_choices} choices with "
                f"{beside} logprobs beside each is over the limit of "
                f"{MAX_ECHOED_LOGPROBS:,} logprobs: ask for fewer.",
                param="logprobs",
            )


class TextChoice(ResponseSchema, frozen=True, kw_only=True):
    """One continuation of a prompt."""

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


@dataclass(frozen=True, slots=True)
class CompletionSerializer(StreamSerializer):
    """Makes the bodies of an answer, which are the same whole and as events."""

    metadata: ResponseMetadata
    echo: PromptEcho | None
    wants_logprobs: bool
    include_usage: bool
    _begun: set[int] = field(default_factory=set)
    """Choices of which a chunk was made."""
    _waiting: dict[int, list[Delta]] = field(default_factory=dict)
    """Deltas that wait for a prompt's logprobs, by the index of the choice that brings them."""

    def whole(self, choices: Sequence[Delta], usage: TokenUsage) -> Completion:
        """Returns the body of an answer that is not streamed."""
        return self._body([self._choice(choice) for choice in choices], Usage.of(usage))

    def start(self) -> Events:
        """Returns nothing: a text has no role to announce."""
        return []

    def delta(self, delta: Delta) -> Events:
        """Returns a chunk with the text and its finish_reason.

        A prompt's logprobs come with its first choice: the others' chunks wait for that one.
        """
        if self.echo and self.wants_logprobs:
            first = self.echo.first(delta.index)
            if delta.index != first and first not in self._begun:
                self._waiting.setdefault(first, []).append(delta)
                return []
        usage = None if self.include_usage else UNSET
        ready = (delta, *self._waiting.pop(delta.index, ()))
        return [self._body([self._choice(each)], usage) for each in ready]

    def finish(self, usage: TokenUsage) -> Events:
        """Returns the usage, if the request wants it."""
        return [self._body([], Usage.of(usage))] if self.include_usage else []

    def _choice(self, delta: Delta) -> TextChoice:
        echo = self.echo if delta.index not in self._begun else None
        self._begun.add(delta.index)
        logprobs = None
        if self.wants_logprobs:
            offset = len(self.echo.text(delta.index)) if self.echo else 0
            logprobs = TextLogprobs.of(delta.tokens, echo.tokens(delta) if echo else (), offset)
        return TextChoice(
            index=delta.index,
            text=echo.text(delta.index) + delta.text if echo else delta.text,
            logprobs=logprobs,
            finish_reason=cast('Literal["stop", "length"] | None', delta.finish_reason),
        )

    def _body(self, choices: list[TextChoice], usage: Usage | UnsetType | None) -> Completion:
        return Completion(
            id=f"cmpl-{self.metadata.key}",
            object="text_completion",
            created=self.metadata.created,
            model=self.metadata.model,
            system_fingerprint=self.metadata.system_fingerprint,
            choices=choices,
            usage=usage,
        )


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Continues texts. No chat template: a prompt is all that the model sees."""
    body = read_json(request.body, CompletionRequest)
    body.check()
    prompts = await model.tokenising.run(lambda: _tokenise(model, body))
    for prompt in prompts:
        model.prompt_encoder.check_room(len(prompt.ids), "prompt")
    body.check_echo(sum(len(prompt.ids) for prompt in prompts))
    generation_request = await _generation_request(model, body, prompts, request.deadline)
    echo = PromptEcho(model.tokenizer, prompts, body.num_choices) if body.echo else None
    serializer = CompletionSerializer(
        ResponseMetadata.of(model),
        echo,
        body.num_top_logprobs is not None,
        includes_usage(body.stream_options),
    )
    if body.stream:
        return await generation_request.stream(model.completer, serializer)
    choices = await generation_request.run(model.completer)
    usage = generation_request.usage(choices)
    return whole_response(serializer.whole(choices, usage), choices, usage)


def _tokenise(model: DecoderModel, body: CompletionRequest) -> list[TokenisedPrompt]:
    """Tokenises texts. Raises InvalidRequest and ContextLengthExceeded.

    The engine checks prompts that came as ids.
    """

    def tokenised(part: str | list[int], field: str) -> TokenisedPrompt:
        if not isinstance(part, str):
            if body.suffix:
                raise InvalidRequest(
                    f"{field} is a list of ids, but with a suffix it has to be a text.", param=field
                )
            return TokenisedPrompt(part, None)
        adds = body.add_special_tokens is not False
        text, breaks = part, cast("Sequence[int]", ())
        if body.suffix:
            prompt = model.infill_format("suffix").prompt(part, body.suffix)
            text, breaks = prompt.text, prompt.breaks
        ids = model.prompt_encoder.encode(text, param=field, add_special_tokens=adds, breaks=breaks)
        return TokenisedPrompt(ids, part)

    if isinstance(body.prompt, str):
        return [tokenised(body.prompt, "prompt")]
    parts = as_list(body.prompt, "prompt")
    return [tokenised(part, f"prompt[{index}]") for index, part in enumerate(parts)]


async def _generation_request(
    model: DecoderModel,
    body: CompletionRequest,
    prompts: Sequence[TokenisedPrompt],
    deadline: float | None,
) -> GenerationRequest:
    constraint, logprobs = body.output_constraint, body.num_top_logprobs
    grammar = await constraint.grammar(model) if constraint else None
    choices = []
    for prompt in prompts:
        params = body.params(
            model.engine.context_length - len(prompt.ids),
            **model.sampling,
            logprobs=logprobs,
            prompt_logprobs=logprobs if body.echo else None,
        )
        if body.suffix:
            ends = model.infill_format("suffix").ends
            params = replace(params, stop_token_ids=params.stop_token_ids | ends)
        choices += expand_n(prompt.ids, params, body.num_choices, grammar)
    return GenerationRequest(
        choices,
        body.stop_strings,
        deadline,
        prompt_field="prompt",
        n=body.num_choices,
        grammar_field=constraint.field if constraint else None,
    )
