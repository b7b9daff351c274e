"""Every path's method with what goes in and what comes out: the table behind /openapi.json.

A test holds it to routes.py's table. Imported by document.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from handlers.api import generate, tokenize
from handlers.api.chat import endpoint as chat
from handlers.api.completions import endpoint as completions
from handlers.api.openapi import chat_shapes, response_shapes, shapes
from handlers.api.responses import endpoint as responses
from handlers.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    RequestTooLarge,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

    from handlers.api.decoding import Refused
    from handlers.errors import RequestError

Errors = tuple["type[RequestError]", ...]

OF_A_BODY: Errors = (InvalidRequest, RequestTooLarge)
OF_A_READING: Errors = (*OF_A_BODY, Overloaded, NotReady)
OF_A_GENERATION: Errors = (*OF_A_READING, DeadlineExceeded)


class Operation(msgspec.Struct, frozen=True):
    """One method of one path."""

    id: str
    """OpenAI's own where the path is OpenAI's: generated clients name their methods by it."""
    summary: str
    answer: type[msgspec.Struct] | None
    """None for any JSON object."""
    call: type[msgspec.Struct] | None = None
    refused: Refused = msgspec.field(default_factory=dict)
    event: type[msgspec.Struct] | None = None
    """What a streamed answer's events carry."""
    errors: Errors = ()
    """Besides those that every path may answer."""
    in_query: bool = False
    """Whether `call` is read from the query."""


OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("/v1/chat/completions", "POST"): Operation(
        id="createChatCompletion",
        summary="Answers a conversation.",
        call=chat.ChatCall,
        refused=chat.REFUSED,
        answer=chat_shapes.ChatCompletion,
        event=chat_shapes.ChatCompletionChunk,
        errors=OF_A_GENERATION,
    ),
    ("/v1/chat/completions/render", "POST"): Operation(
        id="renderChatCompletion",
        summary="The prompt that a chat with this body would give to the model.",
        call=chat.ChatCall,
        refused=chat.REFUSED,
        answer=shapes.Prompt,
        errors=OF_A_READING,
    ),
    ("/v1/completions", "POST"): Operation(
        id="createCompletion",
        summary="Continues a text.",
        call=completions.CompletionCall,
        refused=completions.REFUSED,
        answer=shapes.Completion,
        event=shapes.Completion,
        errors=OF_A_GENERATION,
    ),
    ("/v1/responses", "POST"): Operation(
        id="createResponse",
        summary="Answers an input.",
        call=responses.ResponseCall,
        refused=responses.REFUSED,
        answer=response_shapes.Response,
        event=response_shapes.ResponseEvent,
        errors=OF_A_GENERATION,
    ),
    ("/generate", "GET"): Operation(
        id="generateFromQuery",
        summary="A prompt in, a response out. Greedy unless told otherwise.",
        call=generate.GenerateCall,
        refused=generate.REFUSED,
        in_query=True,
        answer=shapes.Generated,
        errors=OF_A_GENERATION,
    ),
    ("/generate", "POST"): Operation(
        id="generate",
        summary="A prompt in, a response out. Greedy unless told otherwise.",
        call=generate.GenerateCall,
        refused=generate.REFUSED,
        answer=shapes.Generated,
        errors=OF_A_GENERATION,
    ),
    ("/tokenize", "POST"): Operation(
        id="tokenize",
        summary="The ids of a text.",
        call=tokenize.TokenizeCall,
        refused=tokenize.REFUSED,
        answer=shapes.Tokens,
        errors=OF_A_READING,
    ),
    ("/detokenize", "POST"): Operation(
        id="detokenize",
        summary="The text of ids.",
        call=tokenize.DetokenizeCall,
        answer=shapes.Text,
        errors=OF_A_BODY,
    ),
    ("/v1/models", "GET"): Operation(
        id="listModels",
        summary="The one model that is served, as a list.",
        answer=shapes.ModelList,
    ),
    ("/v1/models/{id}", "GET"): Operation(
        id="retrieveModel",
        summary="The model that is served, by its id.",
        answer=shapes.ModelCard,
        errors=(NotFound,),
    ),
    ("/openapi.json", "GET"): Operation(
        id="describeApi",
        summary="This document.",
        answer=None,
    ),
    ("/healthz", "GET"): Operation(
        id="checkHealth",
        summary="What runs and how busy it is. Open also where a key is needed.",
        answer=shapes.Health,
    ),
}
