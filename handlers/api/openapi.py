"""GET /openapi.json: the API as an OpenAPI 3.1 document, made from the routes of the task.

Its schemas are those of the structs that parse the requests and build the answers. Nothing is made
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
from handlers.api.routes import ROUTES
from handlers.api.routing import MODEL_PATH, Operation, Route, load_name
from handlers.api.schemas import Error
from handlers.api.unsupported_fields import EMPTY_VALUES
from handlers.errors import EngineFault, InvalidApiKey, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from handlers.api.http import Request
    from handlers.api.model import ServedModel
    from handlers.api.parsing import RequestBody
    from handlers.api.unsupported_fields import UnsupportedFields
    from handlers.artifact.manifest import Task

Json = dict[str, Any]

TEXT_TYPES = ("string", "number", "integer", "boolean", "null")
"""The types that a query can hold."""

SCHEMA_REF = "#/components/schemas/{name}"
REQUEST_ID = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}


async def describe(model: ServedModel, _request: Request) -> Response:
    """Answers the document of the model's task."""
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
        "paths": {
            path: _path(path, route, schemas, needs_key) for path, route in ROUTES[task].items()
        },
        "components": {
            "schemas": schemas,
            "responses": _error_responses(task),
            "headers": _headers(),
        },
    }
    if needs_key:
        made["components"]["securitySchemes"] = {
            "ApiKey": {"type": "http", "scheme": "bearer"},
            "ApiKeyHeader": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        made["security"] = [{"ApiKey": []}, {"ApiKeyHeader": []}]
    return made


def _path(path: str, route: Route, schemas: Json, needs_key: bool) -> Json:
    methods: Json = {}
    for operation in route.operations:
        described = _operation(path, operation, schemas, needs_key and route.needs_key)
        if needs_key and not route.needs_key:
            described["security"] = []
        methods[operation.method.lower()] = described
        if operation.has_head:
            methods["head"] = _without_body(described)
    return methods


def _operation(path: str, operation: Operation, schemas: Json, needs_key: bool) -> Json:
    kinds = (*operation.errors, EngineFault, *((InvalidApiKey,) if needs_key else ()))
    errors = {
        str(kind.status): {"$ref": f"#/components/responses/{_error_name(operation, kind.status)}"}
        for kind in kinds
    }
    made: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": _parameters(path, operation, schemas),
        "responses": {"200": _success(operation), **errors},
    }
    if operation.request and operation.method == "POST":
        content = {"application/json": {"schema": _reference(load_name(operation.request))}}
        made["requestBody"] = {"required": True, "content": content}
    return made


def _without_body(described: Json) -> Json:
    """Describes HEAD: the same status and headers as GET."""
    responses = {
        status: {"description": HTTPStatus(int(status)).phrase, "headers": REQUEST_ID}
        for status in described["responses"]
    }
    return described | {
        "operationId": described["operationId"] + "Head",
        "responses": responses,
    }


def _success(operation: Operation) -> Json:
    """Describes the answer of status 200."""
    answer = operation.response
    schema = _reference(load_name(answer)) if answer else {"type": "object"}
    content: Json = {"application/json": {"schema": schema}}
    if operation.event:
        content["text/event-stream"] = {"schema": _event_stream(load_name(operation.event))}
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
    """Describes the parameters in the path, or those in the query of a GET."""
    if path == MODEL_PATH:
        return [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    if operation.request is None or operation.method == "POST":
        return []
    request: type[RequestBody] = load_name(operation.request)
    fields = schemas[request.__name__]
    kinds = {name: _in_text(schema) for name, schema in fields["properties"].items()}
    taken = {name: schema for name, schema in kinds.items() if schema}
    for name, no_op_values in request.unsupported.items():
        texts = (*EMPTY_VALUES, "", *(each.strip('"') for each in no_op_values))
        taken[name] = {"type": "string", "enum": [*dict.fromkeys(texts)]}
    return [
        {"name": name, "in": "query", "required": name in fields["required"], "schema": schema}
        for name, schema in taken.items()
    ]


def _in_text(schema: Json) -> Json | None:
    """Returns a field's schema in a query, which has neither lists nor objects."""
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") in TEXT_TYPES]
    if all(each["type"] == "null" for each in kinds):
        return None
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _schemas(task: Task) -> Json:
    """Makes the schemas of all structs, the requests' with the fields that they refuse.

    In one call: of two structs with one name msgspec gives each a longer one, where it sees both.
    """
    operations = [each for route in ROUTES[task].values() for each in route.operations]
    requests: Mapping[type[RequestBody], None] = dict.fromkeys(
        load_name(each.request) for each in operations if each.request
    )
    names = [
        name for each in operations for name in (each.response, each.event, each.error) if name
    ]
    answers: list[type[msgspec.Struct]] = [*map(load_name, names)]
    parts = [part for answer in answers for part in getattr(answer, "parts", ())]
    structs = dict.fromkeys([*requests, *answers, *parts])
    _, schemas = msgspec.json.schema_components(structs, ref_template=SCHEMA_REF)
    for request in requests:
        schemas[request.__name__]["properties"] |= _unsupported(request.unsupported)
    return schemas


def _unsupported(fields: UnsupportedFields) -> Json:
    """Describes the fields that are refused, by the values of them that have no effect."""
    return {
        name: {
            "description": "Not supported: leave it out.",
            "enum": [
                msgspec.json.decode(value) for value in dict.fromkeys((*no_ops, *EMPTY_VALUES))
            ],
        }
        for name, no_ops in fields.items()
    }


def _error_responses(task: Task) -> Json:
    """Describes the answers of all errors, by their status and the struct of their body."""
    by_status: dict[int, list[type[RequestError]]] = {}
    for kind in _subclasses(RequestError):
        by_status.setdefault(kind.status, []).append(kind)
    operations = [each for route in ROUTES[task].values() for each in route.operations]
    by_body = {each.error: each for each in operations}.values()
    return {
        _error_name(operation, status): {
            "description": " ".join(f"{kind.code}: {kind.__doc__}" for kind in kinds),
            "headers": REQUEST_ID | _error_headers(kinds),
            "content": {"application/json": {"schema": _reference(load_name(operation.error))}},
        }
        for operation in by_body
        for status, kinds in by_status.items()
    }


def _error_name(operation: Operation, status: int) -> str:
    """Returns the name of the answer of an error: of OpenAI's body that is the status alone."""
    body = load_name(operation.error)
    return str(status) if body is Error else f"{body.__name__}{status}"


def _error_headers(kinds: list[type[RequestError]]) -> Json:
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
    return {"$ref": SCHEMA_REF.format(name=struct.__name__)}
