"""Tests what docs/clients.md says of refusals and cut answers, for agents and in JavaScript.

Each language's clients are asked by one program: to import them takes longer than the asking.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.pages import output_of
from tests.support.servers import CloudRun

ADA = "Ada is 36 years old. Who is she?"
WAYS = {
    "wrong key": {"server": "full", "key": "wrong", "prompt": ADA},
    "full": {"server": "full", "key": "secret", "prompt": ADA},
    "too long": {"server": "free", "key": "unused", "prompt": "word " * 6000},
    "cut": {"server": "free", "key": "unused", "prompt": ADA},
}
# What each client raises, in the order of the ways.
JAVASCRIPT = {
    "openai": [
        "AuthenticationError",
        "RateLimitError",
        "BadRequestError",
        "LengthFinishReasonError",
    ],
    "ai": ["APICallError 401", "APICallError 429", "APICallError 400", "NoObjectGeneratedError"],
    "langchain": [
        "AuthenticationError",
        "RateLimitError",
        "BadRequestError",
        "LengthFinishReasonError",
    ],
}
PYTHON = {
    "openai_agents": [
        "AuthenticationError",
        "RateLimitError",
        "BadRequestError",
        "ModelBehaviorError",
    ],
    "pydantic_ai_agent": [
        "ModelHTTPError from AuthenticationError",
        "ModelHTTPError from RateLimitError",
        "ModelHTTPError from BadRequestError",
        "UnexpectedModelBehavior",
    ],
    "instructor_client": [
        "InstructorRetryException from AuthenticationError",
        "InstructorRetryException from RateLimitError",
        "InstructorRetryException from BadRequestError",
        "IncompleteOutputException",
    ],
    "smolagents_agent": [
        "AgentGenerationError from AuthenticationError",
        "AgentGenerationError from RateLimitError",
        "AgentGenerationError from BadRequestError",
        "nothing",  # it has no forms, and goes on with what it got
    ],
}


@pytest.mark.parametrize(
    ("language", "program", "raised"),
    [("js", "failures.mjs", JAVASCRIPT), ("python", "failures.py", PYTHON)],
    ids=["js", "python"],
)
def test_refusals_and_cut_forms_are_known_as_such(
    server: CloudRun,
    full_server: CloudRun,
    language: str,
    program: str,
    raised: dict[str, list[str]],
) -> None:
    block = (Path(__file__).parent / program).read_text(encoding="utf-8")
    urls = {"localhost:8080": server.url, "localhost:8081": full_server.url}
    ways = json.dumps([way | {"limit": 5} for way in WAYS.values()])
    printed = output_of(language, block, urls, ways)
    assert json.loads(printed.splitlines()[-1]) == raised
