"""GET and POST /generate: a prompt in, {"response": ...} out. The plainest call there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.api import fields
from handlers.api.answer import Call, collect, json_response
from handlers.api.decoding import Refused, read_json, read_query
from handlers.api.fields import Sampling

if TYPE_CHECKING:
    from handlers.api.messages import Request, Response
    from handlers.api.model import Model

REFUSED: Refused = fields.REFUSED | {"stream": ("false",)}


class GenerateCall(Sampling, frozen=True, kw_only=True):
    """The body or the query."""

    prompt: str


async def create(model: Model, request: Request) -> Response:
    """The answer to `prompt` as one user's message.

    Greedy unless told otherwise, so that a GET gives the same answer each time.
    """
    if request.method == "GET":
        body = read_query(request.query, GenerateCall, REFUSED)
    else:
        body = read_json(request.body, GenerateCall, REFUSED)
    prompt = model.template.render([{"role": "user", "content": body.prompt}])
    prompt_ids = model.completer.encode(prompt, param="prompt")
    room = model.engine.context_length - len(prompt_ids)
    params = body.params(room, temperature=0.0)
    call = Call(prompt_ids, params, body.stop_strings, request.deadline, "prompt")
    answer = await collect(model.completer, call)
    return json_response({"response": answer.text, "finish_reason": answer.finish_reason})
