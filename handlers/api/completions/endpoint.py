"""POST /v1/completions, as OpenAI defines it.

https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from handlers.api import unsupported_fields
from handlers.api.answer import Call, Stamp, collect, spread, stream, timed_response
from handlers.api.completions.choices import Echo, TextShape
from handlers.api.completions.prompts import TextPrompt, read_prompts, spelt
from handlers.api.fields import MAX_CHOICES, OpenAICall, TokensOrNone
from handlers.api.parsing import PromptInput, read_json
from handlers.api.structured import form_of
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.api.http import Request, Response, StreamResponse
    from handlers.api.model import DecoderModel
    from handlers.engine.params import SamplingParams

# Spelling 40,000 of them takes 0.13 s, in which the event loop serves nobody, and 1.2 MB of JSON.
MAX_ECHOED_LOGPROBS = 50_000

UNSUPPORTED: UnsupportedFields = (
    unsupported_fields.COMMON
    | unsupported_fields.CHAT_ONLY
    | {
        "suffix": (),
        "max_output_tokens": (),
        "chat_template": (),
        "chat_template_kwargs": (),
        "enable_thinking": (),
        "add_generation_prompt": ("true",),
        "continue_final_message": ("false",),
    }
)


class CompletionCall(OpenAICall, frozen=True, kw_only=True):
    """The body."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    prompt: PromptInput
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
        """Whether an answer of no tokens can be asked for: an echo gives the prompt alone."""
        return bool(self.echo)

    @property
    def choices(self) -> int:
        """How many choices each prompt gets. Raises InvalidRequest."""
        if self.best_of not in {None, self.n or 1}:
            raise InvalidRequest(
                "best_of is not supported by this server: leave it out, or send what n is.",
                param="best_of",
            )
        return self.n or 1

    def check(self) -> None:
        """Raises InvalidRequest for what the types do not say."""
        if self.logprobs is True:
            raise InvalidRequest(
                "logprobs is true, as in a chat: send how many of the likeliest tokens to tell "
                "beside each, 0 to 20.",
                param="logprobs",
            )
        if self._prompts * self.choices > MAX_CHOICES:
            raise InvalidRequest(
                f"{self._prompts} prompts with {self.choices} choices each are over the limit of "
                f"{MAX_CHOICES} choices: send fewer.",
                param="prompt",
            )

    @property
    def _prompts(self) -> int:
        of_ids = isinstance(self.prompt, list) and isinstance(next(iter(self.prompt), 0), int)
        return 1 if of_ids or isinstance(self.prompt, str) else len(self.prompt)

    @property
    def told_logprobs(self) -> int | None:
        """How many of the likeliest tokens to tell, None for no logprobs at all."""
        return None if self.logprobs is False else self.logprobs

    def check_echo(self, tokens: int) -> None:
        """Raises InvalidRequest for more logprobs than an echo may have.

        `tokens`: those of all prompts together.
        """
        beside = self.told_logprobs
        if not self.echo or beside is None:
            return
        told = tokens * self.choices * (beside + 1)
        if told > MAX_ECHOED_LOGPROBS:
            raise InvalidRequest(
                f"An echo of {tokens:,} prompt tokens in {self.choices} choices with "
                f"{beside} logprobs beside each is over the limit of "
                f"{MAX_ECHOED_LOGPROBS:,} logprobs: ask for fewer.",
                param="logprobs",
            )

    def prompt_params(self, room: int, defaults: Mapping[str, float]) -> SamplingParams:
        """The engine's parameters for one prompt, behind which `room` tokens are left."""
        told = self.told_logprobs
        return self.params(
            room, **defaults, logprobs=told, prompt_logprobs=told if self.echo else None
        )


async def create(model: DecoderModel, request: Request) -> Response | StreamResponse:
    """Continues texts. No chat template: a prompt is all that the model sees."""
    body = read_json(request.body, CompletionCall)
    body.check()
    adds = body.add_special_tokens is not False
    prompts = await model.tokenising.run(lambda: read_prompts(model, body.prompt, adds))
    for prompt in prompts:
        model.reader.check_room(len(prompt.ids), "prompt")
    body.check_echo(sum(len(prompt.ids) for prompt in prompts))
    call = await _call(model, body, prompts, request.deadline)
    shape = TextShape(
        Stamp.of(model, "cmpl"),
        call,
        Echo(model.tokenizer, call, spelt(model, prompts)) if body.echo else None,
        body.told_logprobs is not None,
        body.wants_usage,
    )
    if body.stream:
        return await stream(model.completer, call, shape)
    answers = await collect(model.completer, call)
    return timed_response(shape.whole(answers), call, answers)


async def _call(
    model: DecoderModel, body: CompletionCall, prompts: list[TextPrompt], deadline: float | None
) -> Call:
    form = form_of(body)
    grammar = await form.grammar(model) if form else None
    context, defaults = model.engine.context_length, model.sampling
    params = (body.prompt_params(context - len(prompt.ids), defaults) for prompt in prompts)
    spreads = (
        spread(prompt.ids, each, body.choices, grammar)
        for prompt, each in zip(prompts, params, strict=True)
    )
    everything = [prompt for choices in spreads for prompt in choices]
    return Call(everything, body.stop_strings, deadline, "prompt", body.choices)
