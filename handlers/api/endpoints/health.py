"""GET /healthz and /health: what runs here and how busy it is. Neither needs an API key.

Nor does GET /, which says that a server is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from msgspec import UNSET, UnsetType

from handlers import __version__
from handlers.api.http import json_response
from handlers.api.schemas import ResponseSchema

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import ServedModel


class DraftHealth(ResponseSchema, frozen=True, kw_only=True):
    """The draft model, whose guesses the model checks a few at a time."""

    model: str
    layers: int
    """The model's own layers that it is made of; 0 where it is another model."""
    rate: float
    """The share of its guesses that have come true lately, where all before them had."""


class Health(ResponseSchema, frozen=True, kw_only=True):
    """The model that runs, and how busy it is."""

    state: Literal["ready", "draining"]
    version: str
    """Of Kindling."""
    model: str
    task: str
    precision: str
    context_length: int
    slots: int | UnsetType = UNSET
    """How many sequences run at once, of a decoder."""
    sampling_defaults: Mapping[str, float] | UnsetType = UNSET
    """The sampling of a request that asks for none, of a decoder."""
    draft: DraftHealth | UnsetType = UNSET
    """Of a decoder that has one, unless it is switched off."""
    running: int
    waiting: int
    load_ms: Mapping[str, float]
    uptime_seconds: float


class Greeting(ResponseSchema, frozen=True, kw_only=True):
    """The server and its model."""

    server: Literal["Kindling"]
    version: str
    model: str
    openapi: Literal["/openapi.json"]


async def greet(model: ServedModel, _request: Request) -> Response:
    """Answers agents that ask for a server's root before they send it their first request."""
    greeting = Greeting(
        server="Kindling", version=__version__, model=model.id, openapi="/openapi.json"
    )
    return json_response(greeting)


async def check(model: ServedModel, _request: Request) -> Response:
    """Answers as soon as the process serves: before that there is no port."""
    engine, slots, defaults = model.engine, model.slots, model.sampling_defaults
    return json_response(
        Health(
            state="ready" if engine.accepting else "draining",
            version=__version__,
            model=model.id,
            task=model.manifest.task,
            precision=model.manifest.precision,
            context_length=engine.context_length,
            slots=UNSET if slots is None else slots,
            sampling_defaults=UNSET if defaults is None else defaults,
            draft=_draft(model),
            running=engine.running,
            waiting=engine.waiting,
            load_ms=model.load_ms,
            uptime_seconds=round(time.monotonic() - model.ready_since, 3),
        )
    )


def _draft(model: ServedModel) -> DraftHealth | UnsetType:
    info, rate = model.manifest.draft, model.guess_rate
    if info is None or rate is None:
        return UNSET
    return DraftHealth(model=info.model, layers=info.layers, rate=round(rate, 3))
