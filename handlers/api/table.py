"""The tables of paths, one for each task, and which route a path means.

Endpoints stand here by their names, so that a process imports those of its own task alone: at
start what most of its requests need, and the others with their first request.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.api.models import PATH as MODELS
from handlers.api.paths import other_spellings, without_empty_parts

if TYPE_CHECKING:
    from handlers.api.http import Request, Response, StreamResponse
    from handlers.artifact.manifest import Task

    Endpoint = Callable[[Any, Request], Awaitable[Response | StreamResponse]]
    """Its first argument is the model of its task, a ServedModel."""

HEALTH_PATHS = ("/healthz", "/health")
"""On Cloud Run Google answers /healthz itself, with 404, unless it is a probe that asks.
https://docs.cloud.google.com/run/docs/known-issues"""
MODEL = f"{MODELS}/{{id}}"

STORED = ("/v1/responses/", "/v1/chat/completions/", "/v1/conversations")
"""The paths by which OpenAI's clients ask for what an earlier request left behind."""

POST = ("POST",)
GET = ("GET", "HEAD")


class Route(msgspec.Struct, frozen=True):
    """Who answers on a path."""

    methods: tuple[str, ...]
    endpoint: str
    """In handlers.api: "models.retrieve"."""
    early: bool = False
    """Whether it is imported at start."""

    def load(self) -> Endpoint:
        """Imports the endpoint, if nobody has, and gives it."""
        module, _, name = self.endpoint.rpartition(".")
        endpoint: Endpoint = getattr(importlib.import_module(f"handlers.api.{module}"), name)
        return endpoint


def load_early(task: Task) -> None:
    """Imports the endpoints that most requests of a task need."""
    for route in TABLES[task].values():
        if route.early:
            route.load()


EVERYWHERE: Mapping[str, Route] = {
    MODELS: Route(GET, "models.list_all", early=True),
    MODEL: Route(GET, "models.retrieve", early=True),
    "/openapi.json": Route(GET, "openapi.document.describe"),
    **{path: Route(GET, "health.check", early=True) for path in HEALTH_PATHS},
}

GENERATION: Mapping[str, Route] = {
    "/v1/chat/completions": Route(POST, "chat.endpoint.create", early=True),
    "/v1/chat/completions/render": Route(POST, "tokenize.render"),
    "/v1/completions": Route(POST, "completions.endpoint.create", early=True),
    "/v1/responses": Route(POST, "responses.endpoint.create"),
    "/v1/responses/input_tokens": Route(POST, "responses.endpoint.count"),
    "/generate": Route(("GET", "POST"), "generate.create", early=True),
    "/tokenize": Route(POST, "tokenize.tokenize"),
    "/detokenize": Route(POST, "text_tokens.detokenize"),
    "/tokenizer_info": Route(GET, "text_tokens.tokenizer_info"),
}

EMBEDDINGS: Mapping[str, Route] = {
    "/v1/embeddings": Route(POST, "encoding.embeddings.create", early=True),
}

CLASSIFICATION: Mapping[str, Route] = {
    "/v1/classify": Route(POST, "encoding.classify.create", early=True),
}

RERANKING: Mapping[str, Route] = {
    "/v1/rerank": Route(POST, "encoding.rerank.create", early=True),
    "/v2/rerank": Route(POST, "encoding.rerank.create"),
    "/rerank": Route(POST, "encoding.rerank.create"),
}

TEXTS: Mapping[str, Route] = {
    "/tokenize": Route(POST, "text_tokens.tokenize"),
    "/detokenize": Route(POST, "text_tokens.detokenize"),
    "/tokenizer_info": Route(GET, "text_tokens.tokenizer_info"),
}

TABLES: Mapping[Task, Mapping[str, Route]] = {
    "text-generation": {**GENERATION, **EVERYWHERE},
    "feature-extraction": {**EMBEDDINGS, **TEXTS, **EVERYWHERE},
    "text-classification": {**CLASSIFICATION, **TEXTS, **EVERYWHERE},
    "text-ranking": {**RERANKING, **TEXTS, **EVERYWHERE},
}


class Match(msgspec.Struct, frozen=True):
    """The route that a request's path means."""

    route: Route
    path: str
    """As the table has it, with the id of a model in place of {id}."""


def match(paths: Iterable[str], table: Mapping[str, Route]) -> Match | None:
    """The route of the first of `paths` that has one in the table, None where none has."""
    for spelling in _spellings(paths):
        key = MODEL if spelling.startswith(f"{MODELS}/") else spelling
        if key in table:
            return Match(table[key], spelling)
    return None


def asks_for_stored(paths: Iterable[str]) -> bool:
    """Whether one of `paths` asks for what an earlier request left behind at OpenAI."""
    return any(spelling.startswith(STORED) for spelling in _spellings(paths))


def _spellings(paths: Iterable[str]) -> Iterator[str]:
    """Yields every path that `paths` may mean, the likeliest first.

    Base URLs end in a slash, have /v1 already or lack it, and clients join them with paths of any
    kind. What they mean is plain, so it is served, but a path as it came goes first.
    """
    plain = [without_empty_parts(path) for path in paths]
    yield from plain
    for path in plain:
        yield from other_spellings(path)


def prefix_before(table: Mapping[str, Route], path: str) -> str | None:
    """The part before one of the table's paths; None where the path ends in none of them."""
    plain = without_empty_parts(path)
    known = max((known for known in table if plain.endswith(known)), key=len, default=None)
    return plain.removesuffix(known) if known else None
