"""Requests to an Api without a cloud around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from handlers.api.app import Api
from handlers.api.http import Request, Response, StreamResponse, run_sync
from handlers.api.model import DecoderModel
from handlers.artifact.dialect import Dialect
from handlers.artifact.manifest import SCHEMA, Manifest, ModelInfo
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from tests.support.scripted_engine import ScriptedEngine, drain, steps
from tests.support.tokenizer_kinds import byte_level
from tests.support.tool_formats import dialect_by_words

TOKENIZER = Tokenizer(byte_level())
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"
)
MANIFEST = Manifest(
    schema=SCHEMA,
    task="text-generation",
    model=ModelInfo("Tiny", "here", "1", "LlamaForCausalLM", "Apache-2.0"),
    precision="fp32",
    vocab_size=401,
    context_length=256,
    eos_token_ids=(400,),
    special_tokens={},
    files={},
    created=1_700_000_000,
    versions={},
    verification={},
)


class ApiClient:
    """Requests to one Api."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def send(
        self,
        method: str,
        path: str,
        body: object = b"",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Response | StreamResponse:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        request = Request(method, path, query or {}, headers or {}, raw, deadline)
        return run_sync(self.api.handle(request))

    def json(self, method: str, path: str, body: object = b"", **more: Any) -> Any:
        """The body of an answer with status 200."""
        answer = self.send(method, path, body, **more)
        assert isinstance(answer, Response)
        assert answer.status == 200, answer.body
        return msgspec.json.decode(answer.body)

    def error(self, method: str, path: str, body: object = b"", **more: Any) -> Any:
        """The status and the error of a refused request."""
        answer = self.send(method, path, body, **more)
        assert isinstance(answer, Response)
        decoded = msgspec.json.decode(answer.body)
        assert list(decoded) in (["error"], ["type", "error", "request_id"])  # Anthropic's
        return answer.status, decoded["error"]

    def events(self, path: str, body: dict[str, object]) -> list[Any]:
        """The events of a streamed answer, `[DONE]` as that string."""
        answer = self.send("POST", path, {**body, "stream": True})
        assert isinstance(answer, StreamResponse), answer.body
        assert answer.status == 200
        return parse(b"".join(drain(answer.chunks)))


class Client(ApiClient):
    """One decoder's Api over one engine."""

    def __init__(
        self,
        engine: Engine,
        environ: Mapping[str, str] | None = None,
        *,
        template: str = TEMPLATE,
        manifest: Manifest = MANIFEST,
        dialect: Dialect | None = None,
    ) -> None:
        settings = Settings.from_environ({"MODEL_DIR": str(Path("unused")), **(environ or {})})
        compiled = ChatTemplate(template, {}, dialect=dialect or dialect_by_words(template))
        self.model = DecoderModel.of(
            engine, TOKENIZER, compiled, manifest, settings, {"process": 5.0}
        )
        super().__init__(Api(self.model, settings))


def parse(stream: bytes) -> list[Any]:
    """Server-sent events, each of one `data:` line."""
    *events, rest = stream.decode().split("\n\n")
    assert rest == ""
    data = [event.removeprefix("data: ") for event in events]
    return [item if item == "[DONE]" else msgspec.json.decode(item) for item in data]


FINGERPRINT = "fp_00000000"
"""Of a manifest without files."""


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, object]:
    """Returns OpenAI's usage object."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def saying(text: str, **more: Any) -> ScriptedEngine:
    """An engine that answers `text`."""
    return ScriptedEngine(steps(TOKENIZER.encode(text)), **more)
