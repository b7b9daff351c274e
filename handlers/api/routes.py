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
from handlers.api.paths import without_empty_parts, without_prefix
from handlers.api.table import HEALTH_PATHS, TABLES, Match, Route, match, prefix_before
from handlers.errors import InvalidApiKey, MethodNotAllowed, NotFound, RequestTooLarge, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
            answer = await self._respond(request)
        except Exception as error:  # noqa: BLE001 - what is not an error of ours is rendered as 500
            answer = error_body.render(error)
        if request.method == "HEAD" and isinstance(answer, Response):
            return replace(answer, body=b"")
        return answer

    async def _respond(self, request: Request) -> Response | StreamResponse:
        """Raises what `_route` raises, and what the endpoint does."""
        found = self._route(request)
        if request.method == "OPTIONS":
            return _options(found.route)
        return await found.route.load()(self._model, replace(request, path=found.path))

    def _route(self, request: Request) -> Match:
        """Raises InvalidApiKey, NotFound, MethodNotAllowed and RequestTooLarge."""
        paths = [*self._paths(request)]
        found = match(paths, self._routes)
        self._authorise(request, found)
        if found is None:
            raise self._not_found(request.path, paths)
        if request.method not in (*found.route.methods, "OPTIONS"):
            raise MethodNotAllowed(
                f"{found.path} takes {' and '.join(found.route.methods)}, not {request.method}.",
                allowed=found.route.methods,
            )
        self._check_size(request)
        return found

    def _paths(self, request: Request) -> Iterator[str]:
        """What the request's path may be, the likeliest first."""
        for path in (request.path, *request.inner_paths):
            yield path
            if self._settings.base_path:
                yield without_prefix(without_empty_parts(path), self._settings.base_path)

    def _not_found(self, path: str, paths: Sequence[str]) -> NotFound:
        served, known = self._model.manifest.task, ", ".join(self._routes)
        tasks = [task for task, table in TABLES.items() if match(paths, table)]
        if tasks:
            return NotFound(
                f"This image serves the task {served} with {self._model.id}; {shortened(path)} "
                f"needs {' or '.join(tasks)}. Paths: {known}."
            )
        prefix = prefix_before(self._routes, path) or ""
        hint = (
            f"If {shortened(prefix)} is a base path, name it in KINDLING_BASE_PATH or map the API "
            f"at the root. "
        )
        return NotFound(f"There is no {shortened(path)}. {hint if prefix else ''}Paths: {known}.")

    def _authorise(self, request: Request, found: Match | None) -> None:
        key = self._settings.api_key
        is_open = found is not None and found.path in HEALTH_PATHS
        if key is not None and not is_open and not _carries(request, key):
            raise InvalidApiKey("Send the API key as `Authorization: Bearer <key>`.")

    def _check_size(self, request: Request) -> None:
        limit = self._settings.max_body_bytes
        if len(request.body) > limit:
            raise RequestTooLarge(f"The body has {len(request.body)} bytes; {limit} are the limit.")


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
