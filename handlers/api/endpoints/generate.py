"""GET and POST /generate: a prompt in, {"response": ...} out. The plainest endpoint there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, cast

from msgspec import UNSET, UnsetType

from handlers.api import unsupported_fields
from handlers.api.conversation import Conversation, prompt_options, tokenise
from handlers.api.generation import Usage, whole_response
from handlers.api.parsing import read_json, read_query
from handlers.api.schemas import ResponseSchema
from handlers.api.thinking import ThinkingFields
from handlers.api.unsupported_fields import UnsupportedFields

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import DecoderModel

UNSUPPORTED: UnsupportedFields = (
    unsupported_fields.COMMON
    | unsupported_fields.CHAT_ONLY
    | {
        "stream": ("false",),
        "n": ("1",),
        "best_of": ("1",),
        "logprobs": ("false",),
        "echo": ("false",),
        "suffix": (),
        "max_output_tokens": (),
        "chat_template": (),
        "add_generation_prompt": ("true",),
        "continue_final_message": ("false",),
    }
)


class GenerateRequest(ThinkingFields, frozen=True, kw_only=True):
    """The body of a POST to /generate, or the query of a GET."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    prompt: str

    @property
    def conversation(self) -> Conversation:
        """The prompt as one user's message. Raises InvalidRequest."""
        messages = [{"role": "user", "content": self.prompt}]
        options = prompt_options("prompt", self.chat_template_kwargs, self.enable_thinking)
        return Conversation(
            messages, self.output_constraint, options=options, thinking=self.thinking_options
        )


class Generated(ResponseSchema, frozen=True, kw_only=True):
    """The answer to a prompt."""

    response: str
    thinking: str | UnsetType = UNSET
    """The thoughts before the answer, where there are some: Ollama's name."""
    finish_reason: Literal["stop", "length"]
    usage: Usage


async def create(model: DecoderModel, request: Request) -> Response:
    """Answers `prompt` as one user's message.

    Greedy unless the request samples, so that a GET gives the same answer each time.
    """
    if request.method == "GET":
        body = read_query(request.query, GenerateRequest)
    else:
        body = read_json(request.body, GenerateRequest)
    conversation, ids = await tokenise(model, lambda: body.conversation)
    generation_request = await conversation.generation_request(
        model, ids, body, request.deadline, temperature=0.0
    )
    (choice,) = choices = await generation_request.run(model.completer)
    usage = generation_request.usage(choices)
    generated = Generated(
        response=choice.text,
        thinking=choice.reasoning or UNSET,
        finish_reason=cast('Literal["stop", "length"]', choice.finish_reason),
        usage=Usage.of(usage),
    )
    return whole_response(generated, choices, usage)
