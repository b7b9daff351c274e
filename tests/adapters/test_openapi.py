"""schemathesis sends the server what its OpenAPI document allows, and what it forbids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import assume, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from handlers.api.openapi.document import document
from tests.support.servers import CloudRun, cloud_run


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, directory: Path) -> Iterator[CloudRun]:
    """A context so short that every answer is: thousands of them are made here."""
    with cloud_run(tiny_artifact, directory, KINDLING_CONTEXT_LENGTH="96") as running:
        yield running


SCHEMA = schemathesis.openapi.from_dict(document("text-generation", needs_key=False))

# What a body may break though its schema allows it, because JSON Schema cannot say it.
BEYOND_A_SCHEMA = (
    "the context",
    "has a null character",
    "has half of a surrogate pair",
    "is empty",
    "is required",
    "is not a JSON object",
    "chat template refuses",
    "the vocabulary ends at",
    "outside 0 to",
    "over the limit of",
    "answers at once",
    "cannot go with",
    "cannot be used",
    "leave it out, or send what n is",
    "of 0 needs echo: true",
    "needs logprobs: true",
    "but there are no tools",
    "is none of the tools",
    "is the name of two tools",
    "must be 1 to 64 letters",
    "must be of type object",
    "Send one of prompt, content and messages",
    ", got `float`",  # to JSON Schema 1.0 is an integer
)


# The same cases in every run: a failure is then a change's fault, not a draw's.
@SCHEMA.parametrize()
@settings(max_examples=120, derandomize=True)
def test_every_answer_is_one_that_the_document_describes(
    case: schemathesis.Case[Any], server: CloudRun
) -> None:
    # A line break in a path is answered by Starlette, not by us.
    assume("%0A" not in case.path_parameters.get("id", ""))
    answer = case.call_and_validate(base_url=server.url, excluded_checks=[positive_data_acceptance])

    if answer.status_code == 400 and case.meta and case.meta.generation.mode.is_positive:
        message = answer.json()["error"]["message"]
        assert any(reason in message for reason in BEYOND_A_SCHEMA), message
