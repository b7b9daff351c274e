"""GET and POST /generate: a prompt in, {"response": ...} out. The plainest call there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from handlers.api import unsupported_fields
from handlers.api.answer import collect, timed_response
from handlers.api.conversation import Conversation, read
from handlers.api.fields import Sampling
from handlers.api.parsing import read_json, read_query
from handlers.api.prompt_options import Kwargs, prompt_options
from handlers.api.structured import form_of
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.api.usage import usage_body

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


class GenerateCall(Sampling, frozen=True, kw_only=True):
    """The body or the query."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    prompt: str
    chat_template_kwargs: Kwargs | None = None
    enable_thinking: bool | None = None

    @property
    def conversation(self) -> Conversation:
        """The prompt as one user's message. Raises InvalidRequest."""
        messages = [{"role": "user", "content": self.prompt}]
        options = prompt_options(self.chat_template_kwargs, self.enable_thinking)
        return Conversation(messages, form_of(self), field="prompt", options=options)


async def create(model: DecoderModel, request: Request) -> Response:
    """Answers `prompt` as one user's message.

    Greedy unless told otherwise, so that a GET gives the same answer each time.
    """
    if request.method == "GET":
        body = read_query(request.query, GenerateCall)
    else:
        body = read_json(request.body, GenerateCall)
    conversation, ids = await read(model, lambda: body.conversation)
    call = await conversation.call(model, ids, body, request.deadline, temperature=0.0)
    (answer,) = answers = await collect(model.completer, call)
    return timed_response(
        {
            "response": answer.text,
            "finish_reason": answer.finish_reason,
            "usage": usage_body(call.usage([answer.usage])),
        },
        call,
        answers,
    )
