from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from handlers.api.routes import ROUTES
from handlers.api.routing import load_name
from handlers.errors import RequestError
from tests.api.client import Client, saying
from tests.support.scripted_engine import subclasses

DECODER_ROUTES = ROUTES["text-generation"]
OPERATIONS = [each for route in DECODER_ROUTES.values() for each in route.operations]
SESAME = {"authorization": "Bearer sesame"}


@pytest.fixture
def document() -> Any:
    return Client(saying("")).json("GET", "/openapi.json")


@pytest.fixture
def with_a_key() -> Any:
    client = Client(saying(""), {"KINDLING_API_KEY": "sesame"})
    return client.json("GET", "/openapi.json", headers=SESAME)


@pytest.mark.parametrize("name", ["document", "with_a_key"])
def test_the_document_is_valid(name: str, request: pytest.FixtureRequest) -> None:
    OpenAPIV31SpecValidator(request.getfixturevalue(name)).validate()


def test_every_path_and_method_is_described(document: Any) -> None:
    described = {
        (path, method.upper()) for path, methods in document["paths"].items() for method in methods
    }

    assert described == {
        (path, method) for path, route in DECODER_ROUTES.items() for method in route.methods
    }


def test_every_operation_has_an_id_of_its_own() -> None:
    assert len({operation.id for operation in OPERATIONS}) == len(OPERATIONS)


def test_a_field_has_the_range_that_the_code_reads(document: Any) -> None:
    chat = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]

    assert chat["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}


def test_a_part_of_an_input_is_not_taken_for_a_part_of_an_answer(document: Any) -> None:
    schemas = document["components"]["schemas"]
    part = schemas["InputItem"]["properties"]["content"]["anyOf"][1]["items"]["$ref"]

    members = schemas[part.rpartition("/")[2]]["properties"]
    assert set(members) == {"type", "text", "refusal", "thinking", "reasoning"}


def test_every_refused_field_says_what_is_let_through(document: Any) -> None:
    schemas = document["components"]["schemas"]
    requests = {load_name(operation.request) for operation in OPERATIONS if operation.request}

    assert sum(bool(request.unsupported) for request in requests) == 8
    for request in requests:
        properties = schemas[request.__name__]["properties"]
        assert all(None in properties[name]["enum"] for name in request.unsupported)


def test_every_error_of_a_request_is_described(document: Any) -> None:
    described = document["components"]["responses"]

    for kind in subclasses(RequestError):
        for name in (str(kind.status), f"AnthropicError{kind.status}"):
            assert f"{kind.code}: " in described[name]["description"]


def test_a_path_of_anthropics_is_described_with_its_errors(document: Any) -> None:
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        answers = document["paths"][path]["post"]["responses"]
        assert answers["400"] == {"$ref": "#/components/responses/AnthropicError400"}


@pytest.mark.parametrize(
    "path", ["/tokenize", "/v1/chat/completions/render", "/v1/chat/completions"]
)
def test_what_waits_to_be_read_may_be_refused_as_too_much_or_too_late(
    document: Any, path: str
) -> None:
    assert {"429", "503"} <= document["paths"][path]["post"]["responses"].keys()


def test_a_key_is_asked_for_everywhere_but_at_the_health_check(
    document: Any, with_a_key: Any
) -> None:
    assert "security" not in document
    assert with_a_key["security"] == [{"ApiKey": []}, {"ApiKeyHeader": []}]
    open_paths = [
        path
        for path, methods in with_a_key["paths"].items()
        if any(operation.get("security") == [] for operation in methods.values())
    ]
    assert open_paths == ["/healthz", "/health", "/", "/api/hello"]


def test_the_document_needs_the_key_too() -> None:
    status, error = Client(saying(""), {"KINDLING_API_KEY": "x"}).error("GET", "/openapi.json")

    assert (status, error["code"]) == (401, "invalid_api_key")
