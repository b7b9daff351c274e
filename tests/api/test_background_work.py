"""Tests what the endpoints do beside the event loop, and what they refuse before they do it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from handlers.api import tools
from handlers.api.app import Api
from handlers.api.http import Request, Response, StreamResponse
from handlers.api.model import DecoderModel
from handlers.config import Settings
from handlers.grammar.compiler import GrammarCompiler
from handlers.grammar.constraint import GrammarConstraint
from handlers.text.chat_template import ChatTemplate
from tests.api.client import MANIFEST, TEMPLATE, TOKENIZER, Client, saying
from tests.support.scripted_engine import ScriptedEngine
from tests.support.servers import PATIENCE_SECONDS

MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
RENDERING: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": MESSAGES,
    "/v1/chat/completions/render": MESSAGES,
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": MESSAGES | {"max_tokens": 9},
    "/v1/messages/count_tokens": MESSAGES,
    "/generate": {"prompt": "Hello"},
    "/tokenize": MESSAGES,
}


class WatchedTemplate(ChatTemplate):
    """Remembers in which threads it renders, and renders only when it is let."""

    def __init__(self) -> None:
        super().__init__(TEMPLATE, {})
        self.threads: list[int] = []
        self.begun = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def prompt(self, *messages: Any, **more: Any) -> str:
        self.threads.append(threading.get_ident())
        self.begun.set()
        self.open.wait(PATIENCE_SECONDS)
        return super().prompt(*messages, **more)


def threaded(template: ChatTemplate, environ: Mapping[str, str] | None = None) -> Api:
    """An Api over an engine that says it has a thread."""
    engine = saying("yes")
    engine.threaded = True
    settings = Settings.from_environ({"MODEL_DIR": "unused", **(environ or {})})
    return Api(DecoderModel.of(engine, TOKENIZER, template, MANIFEST, settings, {}), settings)


def request(path: str, fields: Mapping[str, Any]) -> Request:
    return Request("POST", path, {}, {}, msgspec.json.encode(fields))


def status(answer: Response | StreamResponse) -> int:
    assert isinstance(answer, Response)
    return answer.status


@pytest.mark.parametrize("path", RENDERING)
def test_no_chat_is_rendered_in_the_event_loops_thread(path: str) -> None:
    template = WatchedTemplate()

    answer = asyncio.run(threaded(template).handle(request(path, RENDERING[path])))

    assert status(answer) == 200
    assert len(template.threads) == 1
    assert threading.get_ident() not in template.threads


CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLED: dict[str, Any] = {"messages": [{"role": "assistant", "tool_calls": [CALL]}]}
USED = {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
ITEM = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CALLED),
        ("/v1/chat/completions/render", CALLED),
        ("/tokenize", CALLED),
        ("/v1/responses", {"input": [ITEM]}),
        ("/v1/responses/input_tokens", {"input": [ITEM]}),
        ("/v1/messages", {"messages": [USED], "max_tokens": 9}),
        ("/v1/messages/count_tokens", {"messages": [USED]}),
    ],
)
def test_no_past_call_is_read_in_the_event_loops_thread(
    path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def watched(given: object) -> str:
        threads.append(threading.get_ident())
        return str(given)

    monkeypatch.setattr(tools, "_template_arguments", watched)

    answer = asyncio.run(threaded(ChatTemplate(TEMPLATE, {})).handle(request(path, body)))

    assert status(answer) == 200
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_request_is_answered_while_a_chat_is_rendered() -> None:
    template = WatchedTemplate()
    template.open.clear()
    api = threaded(template)

    async def ask() -> None:
        chat = asyncio.ensure_future(api.handle(request("/v1/chat/completions", MESSAGES)))
        assert await asyncio.to_thread(template.begun.wait, PATIENCE_SECONDS)
        assert status(await api.handle(request("/v1/completions", {"prompt": "Hello"}))) == 200
        assert not chat.done()
        template.open.set()
        assert status(await chat) == 200

    asyncio.run(ask())


def test_more_prompts_than_the_server_holds_are_answered_429() -> None:
    template = WatchedTemplate()
    template.open.clear()
    api = threaded(template, {"KINDLING_SLOTS": "1", "KINDLING_QUEUE_LIMIT": "0"})

    async def ask() -> None:
        chat = asyncio.ensure_future(api.handle(request("/v1/chat/completions", MESSAGES)))
        assert await asyncio.to_thread(template.begun.wait, PATIENCE_SECONDS)
        refused = await api.handle(request("/tokenize", MESSAGES))
        template.open.set()
        assert status(refused) == 429
        assert refused.headers["retry-after"] == "1"
        assert status(await chat) == 200

    asyncio.run(ask())


@pytest.mark.parametrize(
    "fields",
    [
        {"guided_regex": "("},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 1}}}]},
    ],
)
def test_a_server_that_is_stopping_compiles_nothing(fields: dict[str, Any]) -> None:
    engine = saying("yes")
    engine.accepting = False

    code, _ = Client(engine).error("POST", "/v1/chat/completions", MESSAGES | fields)

    assert code == 503


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/render"])
def test_a_chat_of_more_text_than_the_context_holds_is_not_rendered(path: str) -> None:
    client = Client(ScriptedEngine(context_length=20), template="{{ raise_exception('rendered') }}")
    turn = {"role": "user", "content": "a" * (10 * TOKENIZER.longest_token)}

    code, error = client.error("POST", path, {"messages": [turn, turn, turn]})

    assert (code, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/generate"])
def test_no_grammar_is_compiled_for_a_prompt_that_leaves_no_room(path: str) -> None:
    client = Client(ScriptedEngine(context_length=2))

    code, error = client.error("POST", path, RENDERING[path] | {"guided_regex": "("})

    assert (code, error["code"]) == (400, "context_length_exceeded")


def test_a_grammar_is_compiled_while_another_one_compiles() -> None:
    api = threaded(WatchedTemplate())
    compiler = WatchedCompiler()
    api._model.__dict__["grammar_compiler"] = compiler

    async def ask() -> None:
        slow = asyncio.ensure_future(
            api.handle(request("/v1/chat/completions", MESSAGES | {"guided_regex": "slow"}))
        )
        assert await asyncio.to_thread(compiler.begun.wait, PATIENCE_SECONDS)
        quick = api.handle(request("/v1/chat/completions", MESSAGES | {"guided_regex": "yes"}))
        assert status(await quick) == 200
        assert not slow.done()
        compiler.open.set()
        assert status(await slow) == 200

    asyncio.run(ask())


class WatchedCompiler(GrammarCompiler):
    """Compiles "slow" only when it is let."""

    def __init__(self) -> None:
        super().__init__(TOKENIZER, MANIFEST.vocab_size, MANIFEST.eos_token_ids)
        self.begun = threading.Event()
        self.open = threading.Event()

    def regex(self, pattern: str) -> GrammarConstraint:
        if pattern == "slow":
            self.begun.set()
            self.open.wait(PATIENCE_SECONDS)
        return super().regex(pattern)
