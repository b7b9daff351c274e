"""GET /openapi.json: the API as an OpenAPI 3.1 document.

Made from the structs that read the requests, so it cannot allow what they refuse. Nothing is made
at start: the first request imports this module and makes the document, the next ones get it again.
https://spec.openapis.org/oas/v3.1.1.html
"""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from handlers import __version__
from handlers.api.http import JSON_HEADERS, Response
from handlers.api.openapi.operations import Operation, operations
from handlers.api.openapi.shapes import Error
from handlers.api.unsupported_fields import EMPTY_VALUES
from handlers.errors import EngineFault, InvalidApiKey, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.api.http import Request
    from handlers.api.model import ServedModel
    from handlers.api.openapi.operations import Table
    from handlers.api.unsupported_fields import UnsupportedFields
    from handlers.artifact.manifest import Task

Json = dict[str, Any]

OPEN = ("/healthz", "/health")
"""The paths that need no key."""

TEXT_TYPES = ("string", "number", "integer", "boolean", "null")
"""Those that a query can hold."""

STRUCTS = "#/components/schemas/{name}"
REQUEST_ID = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}


async def describe(model: ServedModel, _request: Request) -> Response:
    """The document."""
    return Response(200, JSON_HEADERS, _encoded(model.manifest.task, model.needs_key))


@cache
def _encoded(task: Task, needs_key: bool) -> bytes:
    return msgspec.json.encode(document(task, needs_key))


def document(task: Task, needs_key: bool) -> Json:
    """Makes the document. `needs_key`: whether an API key is configured."""
    schemas = _schemas(task)
    made: Json = {
        "openapi": "3.1.1",
        "info": {
            "title": "Kindling",
            "version": __version__,
            "summary": "A language model behind the API that OpenAI's clients know.",
        },
        "paths": _paths(operations(task), schemas, needs_key),
        "components": {
            "schemas": schemas,
            "responses": _error_responses(),
            "headers": _headers(),
        },
    }
    if needs_key:
        made["components"]["securitySchemes"] = {"ApiKey": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"ApiKey": []}]
    return made


def _paths(table: Table, schemas: Json, needs_key: bool) -> Json:
    paths: Json = {}
    for (path, method), operation in table.items():
        described = _operation(path, operation, schemas, needs_key)
        paths.setdefault(path, {})[method.lower()] = described
        if method == "GET" and not operation.in_query:
            paths[path]["head"] = _without_body(described)
    return paths


def _operation(path: str, operation: Operation, schemas: Json, needs_key: bool) -> Json:
    is_open = path in OPEN
    kinds = (
        *operation.errors,
        EngineFault,
        *((InvalidApiKey,) if needs_key and not is_open else ()),
    )
    errors = {str(kind.status): {"$ref": f"#/components/responses/{kind.status}"} for kind in kinds}
    made: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": _parameters(path, operation, schemas),
        "responses": {"200": _success(operation), **errors},
    }
    if operation.call and not operation.in_query:
        content = {"application/json": {"schema": _reference(operation.call)}}
        made["requestBody"] = {"required": True, "content": content}
    if needs_key and is_open:
        made["security"] = []
    return made


def _without_body(described: Json) -> Json:
    """HEAD: the same status and headers."""
    responses = {
        status: {"description": HTTPStatus(int(status)).phrase, "headers": REQUEST_ID}
        for status in described["responses"]
    }
    return described | {
        "operationId": described["operationId"] + "Head",
        "responses": responses,
    }


def _success(operation: Operation) -> Json:
    schema = _reference(operation.answer) if operation.answer else {"type": "object"}
    content: Json = {"application/json": {"schema": schema}}
    if operation.event:
        content["text/event-stream"] = {"schema": _event_stream(operation.event)}
    return {"description": "The answer.", "headers": REQUEST_ID, "content": content}


def _event_stream(event: type[msgspec.Struct]) -> Json:
    """Describes one event: OpenAPI 3.1 has no word for a stream, and tools expect that of one."""
    chunk = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": _reference(event),
    }
    return {
        "description": "One event of the answer to a request with `stream`.",
        "type": "object",
        "properties": {"data": {"anyOf": [{"const": "[DONE]"}, chunk]}},
        "required": ["data"],
    }


def _parameters(path: str, operation: Operation, schemas: Json) -> list[Json]:
    if "{id}" in path:
        return [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    if operation.call is None or not operation.in_query:
        return []
    fields = schemas[operation.call.__name__]
    texts = {
        name: dict.fromkeys((*EMPTY_VALUES, "", *(each.strip('"') for each in harmless)))
        for name, harmless in operation.refused.items()
    }
    kinds = {name: _in_text(schema) for name, schema in fields["properties"].items()}
    taken = {name: schema for name, schema in kinds.items() if schema}
    taken |= {name: {"type": "string", "enum": [*texts[name]]} for name in texts}
    return [
        {"name": name, "in": "query", "required": name in fields["required"], "schema": schema}
        for name, schema in taken.items()
    ]


def _in_text(schema: Json) -> Json | None:
    """A field's schema where it is read from a query, which has neither lists nor objects."""
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") in TEXT_TYPES]
    if all(each["type"] == "null" for each in kinds):
        return None
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _schemas(task: Task) -> Json:
    """Every struct, the requests' with the fields that they refuse.

    In one call: of two structs with one name msgspec gives each a longer one, where it sees both.
    """
    table = operations(task).values()
    calls = {each.call: each.refused for each in table if each.call}
    answers = [struct for each in table for struct in (each.answer, each.event)]
    structs = [*calls, Error, *(struct for struct in answers if struct)]
    _, schemas = msgspec.json.schema_components(structs, ref_template=STRUCTS)
    for call, refused in calls.items():
        schemas[call.__name__]["properties"] |= _refused(refused)
    return schemas


def _refused(refused: UnsupportedFields) -> Json:
    return {
        name: {
            "description": "Not supported: leave it out.",
            "enum": [
                msgspec.json.decode(value) for value in dict.fromkeys((*harmless, *EMPTY_VALUES))
            ],
        }
        for name, harmless in refused.items()
    }


def _error_responses() -> Json:
    by_status: dict[int, list[type[RequestError]]] = {}
    for kind in _subclasses(RequestError):
        by_status.setdefault(kind.status, []).append(kind)
    return {
        str(status): {
            "description": " ".join(f"{kind.code}: {kind.__doc__}" for kind in kinds),
            "headers": REQUEST_ID | _headers_of(kinds),
            "content": {"application/json": {"schema": _reference(Error)}},
        }
        for status, kinds in by_status.items()
    }


def _headers_of(kinds: list[type[RequestError]]) -> Json:
    if any(kind.retry_after for kind in kinds):
        return {"retry-after": {"$ref": "#/components/headers/RetryAfter"}}
    return {}


def _headers() -> Json:
    return {
        "RequestId": {
            "description": "The client's own, where it sent one.",
            "schema": {"type": "string"},
        },
        "RetryAfter": {
            "description": "Seconds to wait.",
            "schema": {"type": "integer", "minimum": 0},
        },
    }


def _subclasses(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _reference(struct: type[msgspec.Struct]) -> Json:
    return {"$ref": STRUCTS.format(name=struct.__name__)}
