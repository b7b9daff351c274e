"""schemathesis sends the server what its OpenAPI document allows, and what it forbids."""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import assume
from schemathesis.generation.meta import TestPhase
from schemathesis.specs.openapi.checks import positive_data_acceptance

from handlers.api.openapi import document
from handlers.api.routes import ROUTES
from handlers.artifact.manifest import Task
from tests.support.examples import few_or, is_drawn
from tests.support.infill_tokenizers import filling_copy
from tests.support.servers import CloudRun, cloud_run


@pytest.fixture(scope="module")
def server(
    tiny_artifact: Path, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CloudRun]:
    """A context so short that every answer is: thousands of them are made here."""
    filling = filling_copy(tiny_artifact, tmp_path_factory.mktemp("filling") / "model")
    with cloud_run(filling, directory, KINDLING_CONTEXT_LENGTH="96") as running:
        yield running


@pytest.fixture(scope="module")
def encoders(tiny_encoders: dict[Task, Path], directory: Path) -> Iterator[dict[Task, CloudRun]]:
    with contextlib.ExitStack() as stack:
        yield {
            task: stack.enter_context(cloud_run(artifact, directory))
            for task, artifact in tiny_encoders.items()
        }


SCHEMA, EMBEDDER, CLASSIFIER, RANKER = (
    schemathesis.openapi.from_dict(document(task, needs_key=False)) for task in ROUTES
)

_numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case[Any]) -> bool:
    """Keeps a part of the listed cases, and all that are drawn at random."""
    if case.meta is None or case.meta.phase.name != TestPhase.COVERAGE:
        return True
    return is_drawn(next(_numbers[case.operation.label]))


# What a body may break though its schema allows it, because JSON Schema cannot say it.
BEYOND_A_SCHEMA = (
    "the context",
    "the model takes",
    "The model takes no instruction",
    "are over the limit",
    "but tiny-",
    "but the prompts of",
    "has a null character",
    "has half of a surrogate pair",
    "is empty",
    "which leaves nothing of an input",
    "is required",
    "is not a JSON object",
    "but only functions are offered here",
    "begins another: send one of them",
    "is a name that the template is given",
    "so it cannot be continued",
    "but the last message ends with tool_calls",
    "chat template refuses",
    "the vocabulary ends at",
    "outside 0 to",
    "over the limit of",
    "answers at once",
    "cannot go with",
    "cannot be used",
    "is not supported by this server",  # a member of a format that nobody knows
    "leave it out, or send what n is",
    "of 0 needs echo: true",
    "needs logprobs: true",
    "with a suffix it has to be a text",
    "leave echo out",
    "but there are no tools",
    "must be greater than thinking.budget_tokens",
    "is none of the tools",
    "is the name of two tools",
    "must be 1 to 128 printable",
    "must be of type object",
    "Send one of prompt",
    "but known are",
)


@SCHEMA.parametrize()
@few_or(500, few=20)
def test_every_answer_is_one_that_the_document_describes(
    case: schemathesis.Case[Any], server: CloudRun
) -> None:
    check(case, server)


@EMBEDDER.parametrize()
@few_or(200, few=12)
def test_so_is_every_answer_of_an_embedder(
    case: schemathesis.Case[Any], encoders: dict[Task, CloudRun]
) -> None:
    check(case, encoders["feature-extraction"])


@CLASSIFIER.include(path="/v1/classify").parametrize()
@few_or(200, few=12)
def test_so_is_every_answer_of_a_classifier(
    case: schemathesis.Case[Any], encoders: dict[Task, CloudRun]
) -> None:
    check(case, encoders["text-classification"])


@RANKER.include(path="/v1/rerank").parametrize()
@few_or(200, few=12)
def test_so_is_every_answer_of_a_ranker(
    case: schemathesis.Case[Any], encoders: dict[Task, CloudRun]
) -> None:
    check(case, encoders["text-ranking"])


def check(case: schemathesis.Case[Any], server: CloudRun) -> None:
    # A line break in a path is answered by Starlette, not by us.
    assume("%0A" not in case.path_parameters.get("id", ""))
    answer = case.call_and_validate(base_url=server.url, excluded_checks=[positive_data_acceptance])

    if answer.status_code == 400 and case.meta and case.meta.generation.mode.is_positive:
        message = answer.json()["error"]["message"]
        assert any(reason in message for reason in BEYOND_A_SCHEMA), message
