"""The table of paths, and the one place where a request becomes an answer.

Does not know clouds. Called by the adapters, with a Request of messages.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from msgspec.structs import replace

from handlers.api import error_body, generate, health, models
from handlers.api.aside import Lane
from handlers.api.chat import endpoint as chat
from handlers.api.completions import endpoint as completions
from handlers.api.cors import Cors
from handlers.api.messages import Request, Response, StreamResponse
from handlers.api.model import Engine, Model
from handlers.errors import InvalidApiKey, MethodNotAllowed, NotFound, RequestTooLarge
from handlers.text.completion import Completer

if TYPE_CHECKING:
    from handlers.config import Settings
    from handlers.engine.artifact import Manifest
    from handlers.errors import RequestError
    from handlers.text.template import ChatTemplate
    from handlers.text.tokenizer import Tokenizer

Endpoint = Callable[[Model, Request], Awaitable[Response | StreamResponse]]

HEALTH = "/healthz"


def _late(module: str, name: str) -> Endpoint:
    """An endpoint that most processes never serve: its first request imports it, not the start."""

    async def answer(model: Model, request: Request) -> Response | StreamResponse:
        endpoint: Endpoint = getattr(importlib.import_module(f"handlers.api.{module}"), name)
        return await endpoint(model, request)

    return answer


OPENAPI = _late("openapi.document", "describe")

ROUTES: Mapping[str, Mapping[str, Endpoint]] = {
    "/v1/chat/completions": {"POST": chat.create},
    "/v1/chat/completions/render": {"POST": _late("tokenize", "render")},
    "/v1/completions": {"POST": completions.create},
    "/v1/responses": {"POST": _late("responses.endpoint", "create")},
    "/generate": {"GET": generate.create, "POST": generate.create},
    "/tokenize": {"POST": _late("tokenize", "tokenize")},
    "/detokenize": {"POST": _late("tokenize", "detokenize")},
    models.PATH: {"GET": models.list_all, "HEAD": models.list_all},
    f"{models.PATH}/{{id}}": {"GET": models.retrieve, "HEAD": models.retrieve},
    "/openapi.json": {"GET": OPENAPI, "HEAD": OPENAPI},
    HEALTH: {"GET": health.check, "HEAD": health.check},
}


class Api:
    """All endpoints over one loaded model."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        manifest: Manifest,
        settings: Settings,
        load_ms: Mapping[str, float],
    ) -> None:
        """`load_ms`: milliseconds of each part of startup, for /healthz."""
        held = settings.slots + settings.queue_limit  # of the engine; a lane holds no fewer
        self._model = Model(
            engine,
            Completer(engine, tokenizer),
            tokenizer,
            template,
            # Two, so that one long prompt does not keep the short ones; more would take the CPU.
            tokenising=Lane("tokenising", engine, threads=2, limit=held),
            compiling=Lane("compiling", engine, threads=1, limit=held),
            manifest=manifest,
            load_ms=load_ms,
            needs_key=settings.api_key is not None,
        )
        self._settings = settings
        self._cors = Cors(settings.cors_origins)

    async def handle(self, request: Request) -> Response | StreamResponse:
        """Every request gets an answer: this never raises an Exception."""
        answer = self._cors.preflight(request) or await self._answer(request)
        return self._cors.label(answer, request.headers)

    def refuse(self, error: RequestError, headers: Mapping[str, str]) -> Response:
        """The answer where an adapter cannot hand a request over, or cannot carry its answer.

        `headers`: the request's, as far as they are known.
        """
        return self._cors.label(error_body.render(error), headers)

    async def _answer(self, request: Request) -> Response | StreamResponse:
        try:
            self._admit(request)
            answer = await _endpoint(request)(self._model, request)
        except Exception as error:  # noqa: BLE001 - what is not an error of ours is rendered as 500
            answer = error_body.render(error)
        if request.method == "HEAD" and isinstance(answer, Response):
            return replace(answer, body=b"")
        return answer

    def _admit(self, request: Request) -> None:
        limit = self._settings.max_body_bytes
        if len(request.body) > limit:
            raise RequestTooLarge(f"The body has {len(request.body)} bytes; {limit} are the limit.")
        key = self._settings.api_key
        if key is not None and request.path != HEALTH and not _carries(request, key):
            raise InvalidApiKey("Send the API key as `Authorization: Bearer <key>`.")


def _carries(request: Request, key: str) -> bool:
    import hmac  # it brings OpenSSL, 10 ms, and most processes have no key

    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # The time of this comparison tells nothing of how much of a guess is right.
    same = hmac.compare_digest(_bytes(given.strip()), _bytes(key))
    return same and scheme.lower() == "bearer"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _endpoint(request: Request) -> Endpoint:
    """Raises NotFound and MethodNotAllowed."""
    of_a_model = request.path.startswith(f"{models.PATH}/")
    path = f"{models.PATH}/{{id}}" if of_a_model else request.path
    methods = ROUTES.get(path)
    if methods is None:
        raise NotFound(f"There is no {request.path}. Paths: {', '.join(ROUTES)}.")
    if request.method == "OPTIONS":
        return _options(methods)
    if request.method not in methods:
        raise MethodNotAllowed(
            f"{request.path} takes {' and '.join(methods)}, not {request.method}.",
            allowed=tuple(methods),
        )
    return methods[request.method]


def _options(methods: Mapping[str, Endpoint]) -> Endpoint:
    async def answer(_model: Model, _request: Request) -> Response:
        headers = {"content-type": "text/plain", "allow": ", ".join((*methods, "OPTIONS"))}
        return Response(204, headers, b"")

    return answer
