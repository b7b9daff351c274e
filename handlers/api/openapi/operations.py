"""Every path's method with what goes in and what comes out: the tables behind /openapi.json.

A test holds them to table.py's. Those of a task are imported where they are asked for. Imported by
document.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from handlers.api import text_tokens
from handlers.api.openapi import shapes
from handlers.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedMediaType,
)

if TYPE_CHECKING:
    from handlers.api.unsupported_fields import UnsupportedFields
    from handlers.artifact.manifest import Task
    from handlers.errors import RequestError

Errors = tuple["type[RequestError]", ...]

OF_A_BODY: Errors = (InvalidRequest, RequestTimeout, RequestTooLarge, UnsupportedMediaType)
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
    refused: UnsupportedFields = msgspec.field(default_factory=dict)
    event: type[msgspec.Struct] | None = None
    """What a streamed answer's events carry."""
    errors: Errors = ()
    """Besides those that every path may answer."""
    in_query: bool = False
    """Whether `call` is read from the query."""


Table = Mapping[tuple[str, str], Operation]


def operations(task: Task) -> Table:
    """Lists the operations of an image with a model for `task`."""
    if task == "text-generation":
        from handlers.api.openapi import generation

        return {**generation.OPERATIONS, **EVERYWHERE}
    from handlers.api.openapi import encoding

    return {**encoding.OPERATIONS[task], **EVERYWHERE}


EVERYWHERE: Table = {
    ("/detokenize", "POST"): Operation(
        id="detokenize",
        summary="The text of ids.",
        call=text_tokens.DetokenizeCall,
        answer=shapes.Text,
        errors=OF_A_BODY,
    ),
    ("/tokenizer_info", "GET"): Operation(
        id="describeTokenizer",
        summary="The special tokens, the chat template and the longest sequence of the model.",
        answer=shapes.TokenizerInfo,
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
    ("/health", "GET"): Operation(
        id="checkHealthOnCloudRun",
        summary="The same, where Google answers /healthz itself.",
        answer=shapes.Health,
    ),
}
