"""Just enough of /v1/completions, in FastAPI, to be sent the very requests that Kindling is sent.

The plain server and its relatives differ in the model that they put behind it. Where tutorials
lose time without need, this does not: text is not held back until a word ends, so each id is
decoded and sent as soon as it is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Completion(BaseModel):
    """The fields of a completion request that the benchmark sends."""

    prompt: str
    max_tokens: int
    ignore_eos: bool = False


class Model(Protocol):
    """A model as this server asks it."""

    def encode(self, text: str) -> list[int]:
        """The prompt's ids."""

    def decode(self, token: int) -> str:
        """One id's text."""

    def generate(self, ids: list[int], max_tokens: int, ignore_eos: bool) -> Iterator[int]:
        """New ids, greedily, as they come."""


def application(model: Model) -> FastAPI:
    """A server of one model, which is loaded before the port opens."""
    app = FastAPI()

    @app.post("/v1/completions")
    def complete(request: Completion) -> StreamingResponse:
        return StreamingResponse(events(model, request), media_type="text/event-stream")

    return app


def events(model: Model, request: Completion) -> Iterator[str]:
    """One event a token, then the count of both sides."""
    ids = model.encode(request.prompt)
    usage = {"prompt_tokens": len(ids), "completion_tokens": 0}
    for token in model.generate(ids, request.max_tokens, request.ignore_eos):
        usage["completion_tokens"] += 1
        yield event(choices=[{"text": model.decode(token)}])
    yield event(choices=[], usage=usage)
    yield "data: [DONE]\n\n"


def event(**body: object) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body)}\n\n"
