"""Routes and which of them a request's path means."""

from __future__ import annotations

import importlib
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from itertools import dropwhile
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from handlers.errors import RequestError

if TYPE_CHECKING:
    from handlers.api.http import Request, Response, StreamResponse

    Endpoint = Callable[[Any, Request], Awaitable[Response | StreamResponse]]
    """Its first argument is the ServedModel of its task."""

MODEL_PREFIX = "/v1/models/"
MODEL_PATH = f"{MODEL_PREFIX}{{id}}"

STORED = (
    "/v1/responses/",
    "/v1/chat/completions/",
    "/v1/conversations",
    "/v1/messages/batches",
)
"""The paths by which clients ask for what an earlier request left behind."""


ANTHROPIC_VERSION = "anthropic-version"
"""The header that every client of Anthropic's sends."""

_MESSAGES_PATH = re.compile(r"(?:.*/v1)?/+messages(?:/.*)?", re.DOTALL)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One method of a path, as the OpenAPI document describes it.

    Its structs are named as `load_name` takes them: only the document imports them by these names.
    """

    method: Literal["GET", "POST"]
    id: str
    """OpenAI's own where the path is OpenAI's: generated clients name their methods by it."""
    summary: str
    request: str | None = None
    """The struct of the body, or of a GET's query; None where nothing is read."""
    response: str | None = None
    """The struct of the answer, None for any JSON object."""
    event: str | None = None
    """The struct of a streamed answer's events."""
    error: str = "schemas.Error"
    """The struct of an error's body."""
    errors: tuple[type[RequestError], ...] = ()
    """Besides those that every path may answer."""

    @property
    def has_head(self) -> bool:
        """Returns whether HEAD is answered too: where a GET reads no query."""
        return self.method == "GET" and self.request is None


class Route(msgspec.Struct, frozen=True):
    """The endpoint of a path, and the methods that it answers."""

    endpoint: str
    """A coroutine function, as `load_name` takes it: a process imports those of its own task."""
    operations: tuple[Operation, ...]
    preload: bool = False
    """Whether the endpoint is imported at start, since most requests need it."""
    needs_key: bool = True
    """Whether a request needs the API key, where one is configured."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it answers, besides OPTIONS."""
        methods: list[str] = []
        for operation in self.operations:
            methods += (operation.method, "HEAD") if operation.has_head else (operation.method,)
        return tuple(methods)

    def load(self) -> Endpoint:
        """Imports the endpoint, unless it is imported already, and returns it."""
        endpoint: Endpoint = load_name(self.endpoint)
        return endpoint


class Match(msgspec.Struct, frozen=True):
    """The route that a request's path means."""

    route: Route
    path: str
    """As the table has it, with the id of a model in place of {id}."""


def load_name(name: str) -> Any:
    """Imports what has this name within handlers.api, such as "endpoints.health.check"."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(f"handlers.api.{module}"), attribute)


def match(paths: Iterable[str], table: Mapping[str, Route]) -> Match | None:
    """Returns the route of the first of `paths` that has one in the table, or None."""
    for path in _variants(paths):
        key = MODEL_PATH if path.startswith(MODEL_PREFIX) else path
        if key in table:
            return Match(table[key], path)
    return None


def asks_for_stored(paths: Iterable[str]) -> bool:
    """Returns whether one of `paths` asks for what an earlier request left behind elsewhere."""
    return any(path.startswith(STORED) for path in _variants(paths))


def speaks_anthropic(request: Request) -> bool:
    """Returns whether a request expects errors in the shape of Anthropic's API."""
    named = ANTHROPIC_VERSION in request.headers
    return named or _MESSAGES_PATH.fullmatch(request.path) is not None


def prefix_before(table: Mapping[str, Route], path: str) -> str | None:
    """Returns what stands before one of the table's paths, None where the path ends in none."""
    plain = without_empty_parts(path)
    known = max((known for known in table if plain.endswith(known)), key=len, default=None)
    return plain.removesuffix(known) if known else None


def without_empty_parts(path: str) -> str:
    """Returns the path with one slash between its parts and none at its end."""
    return "/" + "/".join(filter(None, path.split("/")))


def without_prefix(path: str, prefix: str) -> str:
    """Returns the path without `prefix`, where it begins with all parts of the prefix."""
    return path[len(prefix) :] if f"{path}/".startswith(f"{prefix}/") else path


def _variants(paths: Iterable[str]) -> Iterator[str]:
    """Yields every path that `paths` may mean, the likeliest first.

    Base URLs end in a slash, have /v1 already or lack it, and clients join them with paths of any
    kind. What they mean is plain, so it is served, but a path as it came takes precedence.
    """
    plain = [without_empty_parts(path) for path in paths]
    yield from plain
    for path in plain:
        rest = "/".join(dropwhile("v1".__eq__, path.split("/")[1:]))
        yield f"/v1/{rest}"
        yield f"/{rest}"
