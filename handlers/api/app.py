"""Answers a request: finds its route, authorises it, and turns errors into answers."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import force_setattr, replace

from handlers.api.content_coding import CONTENT_ENCODING, decompress, parse_coding
from handlers.api.cors import Answer, Cors
from handlers.api.error_responses import error_response
from handlers.api.http import Request, Response, StreamResponse
from handlers.api.routes import ROUTES
from handlers.api.routing import (
    Match,
    Route,
    asks_for_stored,
    match,
    prefix_before,
    speaks_anthropic,
    without_empty_parts,
    without_prefix,
)
from handlers.api.unsupported_fields import NOTHING_STORED
from handlers.errors import (
    InvalidApiKey,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    ends_a_task,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from handlers.api.model import ServedModel
    from handlers.artifact.manifest import Task
    from handlers.config import Settings

# A body's bytes. The platform has checked the header already, so another value is ignored.
LENGTH = re.compile(r"[0-9]{1,18}")


class Admitted(msgspec.Struct, frozen=True):
    """A request that has passed the checks of its head, and the route that answers it."""

    route: Route
    request: Request
    """With the path as the table of routes has it, perhaps without its body."""


class Api:
    """All endpoints over one loaded model."""

    def __init__(self, model: ServedModel, settings: Settings) -> None:
        self._model = model
        self._routes = ROUTES[model.manifest.task]
        self._settings = settings
        self._cors = Cors(settings.cors_origins) if settings.cors_origins else None

    @property
    def task(self) -> Task:
        """The task of the model."""
        return self._model.manifest.task

    async def handle(self, request: Request) -> Response | StreamResponse:
        """Answers every request: this raises nothing but what ends the task."""
        admitted = self.admit(request)
        if isinstance(admitted, Response):
            return admitted
        return await self.answer(admitted, request.body)

    def admit(self, request: Request) -> Admitted | Response:
        """Checks a request's head, so that an adapter need not read the body of a refused one.

        Returns the answer where the head alone decides it: a preflight's, or the error of a missing
        key, an unknown path, or a promised body that is too large.
        """
        preflight = self._cors.preflight(request) if self._cors else None
        if preflight is not None:
            return self._finished(request, preflight)
        try:
            found = self._route(request)
        except BaseException as error:  # what is not an error of ours is answered 500
            if ends_a_task(error):
                raise
            return self._finished(request, error_response(error))
        return Admitted(found.route, replace(request, path=found.path))

    async def answer(self, admitted: Admitted, body: bytes) -> Response | StreamResponse:
        """Answers an admitted request. Raises nothing but what ends the task."""
        try:
            response = await self._respond(admitted, body)
        except BaseException as error:  # as above
            if ends_a_task(error):
                raise
            response = error_response(error)
        return self._finished(admitted.request, response)

    def refuse(self, error: BaseException, request: Request | None) -> Response:
        """Answers for an adapter that cannot hand a request over, or cannot carry its answer.

        `request`: its head, None where it cannot be read.
        """
        refusal = error_response(error)
        return self._with_cors(refusal, {}) if request is None else self._finished(request, refusal)

    def reset_uptime(self) -> None:
        """Restarts the uptime, after the process has been restored from a snapshot."""
        force_setattr(self._model, "ready_since", time.monotonic())

    def _finished(self, request: Request, answer: Answer) -> Answer:
        """Leaves out the body where HEAD asks, and adds the headers of CORS.

        A client of Anthropic's gets errors in its API's shape.
        """
        if speaks_anthropic(request):
            from handlers.api.anthropic_errors import anthropic_answer  # most processes never do

            answer = anthropic_answer(answer, request.id)
        if request.method == "HEAD" and isinstance(answer, Response):
            answer = replace(answer, body=b"", left_out=len(answer.body))
        return self._with_cors(answer, request.headers)

    def _with_cors(self, answer: Answer, headers: Mapping[str, str]) -> Answer:
        return self._cors.with_headers(answer, headers) if self._cors else answer

    async def _respond(self, admitted: Admitted, body: bytes) -> Response | StreamResponse:
        """Lets the endpoint answer. Raises what `decompress` and the endpoint raise."""
        request = admitted.request
        if request.method == "OPTIONS":
            return _options(admitted.route)
        coding = _coding(request)
        if coding is not None:
            body = decompress(body, coding, self._settings.max_body_bytes)
        return await admitted.route.load()(self._model, replace(request, body=body))

    def _route(self, request: Request) -> Match:
        """Finds the route. Raises the errors that a request's head can bring."""
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
        _coding(request)
        return found

    def _paths(self, request: Request) -> Iterator[str]:
        """Yields the paths that the request may mean, the likeliest first."""
        for path in (request.path, *request.inner_paths):
            yield path
            if self._settings.base_path:
                yield without_prefix(without_empty_parts(path), self._settings.base_path)

    def _not_found(self, path: str, paths: Sequence[str]) -> NotFound:
        known = ", ".join(self._routes)
        tasks = [task for task, table in ROUTES.items() if match(paths, table)]
        if tasks:
            return NotFound(
                f"This image serves the task {self.task} with {self._model.id}; {shortened(path)} "
                f"needs {' or '.join(tasks)}. Paths: {known}."
            )
        if asks_for_stored(paths):
            return NotFound(
                f"There is no {shortened(path)}: {NOTHING_STORED}, so no answer can be read, "
                "changed or cancelled later. Send the whole conversation with every request."
            )
        prefix = prefix_before(self._routes, path) or ""
        hint = (
            f"If {shortened(prefix)} is a base path, name it in KINDLING_BASE_PATH or map the API "
            f"at the root. "
        )
        return NotFound(f"There is no {shortened(path)}. {hint if prefix else ''}Paths: {known}.")

    def _authorise(self, request: Request, found: Match | None) -> None:
        key = self._settings.api_key
        needs_key = found is None or found.route.needs_key
        if key is not None and needs_key and not _has_key(request, key):
            raise InvalidApiKey(
                "Send the API key as `Authorization: Bearer <key>`, or as `x-api-key: <key>`."
            )

    def _check_size(self, request: Request) -> None:
        limit = self._settings.max_body_bytes
        promised = request.headers.get("content-length", "")
        size = max(len(request.body), int(promised) if LENGTH.fullmatch(promised) else 0)
        if size > limit:
            raise RequestTooLarge(f"The body has {size:,} bytes; {limit:,} are the limit.")


def _has_key(request: Request, key: str) -> bool:
    """Returns whether the request has the API key, compared in constant time.

    In either of two headers: x-api-key is Anthropic's, and API Gateway has keys of its own there.
    """
    import hmac  # it brings OpenSSL, 10 ms, and most processes have no key

    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    bearer = given.strip() if scheme.lower() == "bearer" else ""
    candidates = (bearer, request.headers.get("x-api-key", "").strip())
    same = [hmac.compare_digest(_bytes(each), _bytes(key)) for each in candidates]
    return any(same)


def _coding(request: Request) -> str | None:
    """Returns the content coding of a body that is read. Raises UnsupportedMediaType."""
    named = request.headers.get(CONTENT_ENCODING)
    return parse_coding(named) if named and request.method == "POST" else None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _options(route: Route) -> Response:
    headers = {"content-type": "text/plain", "allow": ", ".join((*route.methods, "OPTIONS"))}
    return Response(204, headers, b"")
