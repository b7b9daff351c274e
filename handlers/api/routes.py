"""The one place where a request becomes an answer.

Knows neither clouds nor endpoints, which are in table.py. Called by the adapters, with a Request
of messages.py.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import force_setattr, replace

from handlers.api import error_body
from handlers.api.cors import Cors
from handlers.api.messages import Request, Response, StreamResponse
from handlers.api.models import PATH as MODELS
from handlers.api.table import HEALTH_PATHS, MODEL, STORED, TABLES, Route
from handlers.errors import InvalidApiKey, MethodNotAllowed, NotFound, RequestTooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.api.served import Served
    from handlers.config import Settings
    from handlers.engine.artifact import Task
    from handlers.errors import RequestError


class Api:
    """All endpoints over one loaded model."""

    def __init__(self, model: Served, settings: Settings) -> None:
        self._model = model
        self._routes = TABLES[model.manifest.task]
        self._settings = settings
        self._cors = Cors(settings.cors_origins)

    @property
    def task(self) -> Task:
        """What the model does."""
        return self._model.manifest.task

    async def handle(self, request: Request) -> Response | StreamResponse:
        """Every request gets an answer: this never raises an Exception."""
        answer = self._cors.preflight(request) or await self._answer(request)
        return self._cors.label(answer, request.headers)

    def refuse(self, error: RequestError, headers: Mapping[str, str]) -> Response:
        """The answer where an adapter cannot hand a request over, or cannot carry its answer.

        `headers`: the request's, as far as they are known.
        """
        return self._cors.label(error_body.render(error), headers)

    def restored(self) -> None:
        """The process goes on as a copy of what it was: the uptime begins anew."""
        force_setattr(self._model, "ready_since", time.monotonic())

    async def _answer(self, request: Request) -> Response | StreamResponse:
        try:
            self._admit(request)
            answer = await self._respond(request)
        except Exception as error:  # noqa: BLE001 - what is not an error of ours is rendered as 500
            answer = error_body.render(error)
        if request.method == "HEAD" and isinstance(answer, Response):
            return replace(answer, body=b"")
        return answer

    async def _respond(self, request: Request) -> Response | StreamResponse:
        """Raises NotFound, MethodNotAllowed and what the endpoint raises."""
        route = self._route(request.path)
        if request.method == "OPTIONS":
            return _options(route)
        if request.method not in route.methods:
            raise MethodNotAllowed(
                f"{request.path} takes {' and '.join(route.methods)}, not {request.method}.",
                allowed=route.methods,
            )
        return await route.load()(self._model, request)

    def _route(self, path: str) -> Route:
        path = MODEL if path.startswith(f"{MODELS}/") else path
        if path in self._routes:
            return self._routes[path]
        served = self._model.manifest.task
        tasks = [task for task, table in TABLES.items() if path in table]
        if tasks:
            raise NotFound(
                f"This image serves the task {served} with {self._model.id}; {path} needs "
                f"{' or '.join(tasks)}. Paths: {', '.join(self._routes)}."
            )
        if path.startswith(STORED):
            raise NotFound(
                f"There is no {path}: nothing is stored here, so no answer can be read, changed or "
                "cancelled later. Send the whole conversation with every request."
            )
        raise NotFound(f"There is no {path}. Paths: {', '.join(self._routes)}.")

    def _admit(self, request: Request) -> None:
        limit = self._settings.max_body_bytes
        if len(request.body) > limit:
            raise RequestTooLarge(f"The body has {len(request.body)} bytes; {limit} are the limit.")
        key = self._settings.api_key
        if key is not None and request.path not in HEALTH_PATHS and not _carries(request, key):
            raise InvalidApiKey("Send the API key as `Authorization: Bearer <key>`.")


def _carries(request: Request, key: str) -> bool:
    import hmac  # it brings OpenSSL, 10 ms, and most processes have no key

    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # The time of this comparison tells nothing of how much of a guess is right.
    same = hmac.compare_digest(_bytes(given.strip()), _bytes(key))
    return same and scheme.lower() == "bearer"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _options(route: Route) -> Response:
    headers = {"content-type": "text/plain", "allow": ", ".join((*route.methods, "OPTIONS"))}
    return Response(204, headers, b"")
