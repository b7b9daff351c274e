"""Every parameter of OpenAI's own client is a field that is taken, refused or ignored."""

from __future__ import annotations

import sys
import typing

import pytest
from openai.types import completion_create_params as text_params
from openai.types import embedding_create_params as embedding_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as response_params

from handlers.api import unsupported_fields
from scripts.docs_tables import body_of


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/v1/chat/completions", chat_params.CompletionCreateParamsStreaming),
        ("/v1/completions", text_params.CompletionCreateParamsStreaming),
        ("/v1/embeddings", embedding_params.EmbeddingCreateParams),
        ("/v1/responses", response_params.ResponseCreateParamsStreaming),
    ],
)
def test_every_parameter_is_taken_refused_or_ignored(path: str, parameters: type) -> None:
    body = body_of(path)
    taken = set(body.__struct_fields__)
    refused = {*body.unsupported, *getattr(sys.modules[body.__module__], "IGNORED", ())}
    lists = [taken, refused, set(unsupported_fields.IGNORED) - taken]

    for name in typing.get_type_hints(parameters):
        assert sum(name in one for one in lists) == 1, name
