"""Checks of a deployed Kindling. Each returns what it saw, in words, or raises Failure."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from deploy.smoke.failure import Failure, Silence
from deploy.smoke.streamed import read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deploy.smoke.endpoint import Endpoint

# Not /healthz, which Google answers itself.
HEALTH = "/health"
CHAT = "/v1/chat/completions"
QUESTION = {
    "messages": [{"role": "user", "content": "Name the planets of the solar system."}],
    "max_tokens": 64,
    "temperature": 0,
}
# 64 tokens take longer to write than a prompt of 40 takes to read; if they all arrive within this
# share of the time to the first of them, something on the way has held them back.
AT_ONCE = 0.05
# Far more than a warm instance takes, and a cold one of a model as small as those served so.
SOON_SECONDS = 15.0


def health(endpoint: Endpoint) -> str:
    """The first request: a cold start is in its time."""
    started = time.perf_counter()
    answer = endpoint.send("GET", HEALTH)
    seconds = time.perf_counter() - started
    if answer.status != 200:
        raise Failure(f"{HEALTH} answered {answer.status}: {answer.excerpt}")
    state = answer.json
    if not isinstance(state, dict) or state.get("state") != "ready":
        raise Failure(f"{HEALTH} says that it is not ready: {answer.excerpt}")
    return f"{state.get('model')} is ready, {seconds * 1e3:.0f} ms after it was asked"


def chat(endpoint: Endpoint) -> str:
    """A whole answer, with its count of tokens."""
    text, tokens = _completion(endpoint, QUESTION)
    return f"{tokens} tokens: {' '.join(text.split())[:60]!r}"


def stream(endpoint: Endpoint) -> str:
    """Time to the first token, and tokens a second after it; the text begins as a whole one does.

    Their first word is compared: further on another instance's processor may round otherwise.
    """
    call = QUESTION | {"stream": True, "stream_options": {"include_usage": True}}
    streamed = read(endpoint.stream(CHAT, call))
    whole, _ = _completion(endpoint, QUESTION | {"max_tokens": 8})
    if streamed.text.split()[:1] != whole.split()[:1]:
        raise Failure(f"streamed it begins {streamed.text[:40]!r}, whole {whole[:40]!r}.")
    first = streamed.arrivals[0] * 1e3
    return f"first token after {first:.0f} ms, {_speed(streamed.arrivals, streamed.tokens)}"


def error(endpoint: Endpoint) -> str:
    """A bad request is told what is wrong with it, and does no harm."""
    answer = endpoint.send("POST", CHAT, {"messages": "not a list"})
    if answer.status != 400:
        raise Failure(f"a bad request was answered {answer.status}, not 400: {answer.excerpt}")
    try:
        message = answer.json["error"]["message"]
    except (KeyError, TypeError) as missing:
        raise Failure(f"the error has no message: {answer.excerpt}") from missing
    if not (isinstance(message, str) and message.strip()):
        raise Failure(f"the error has no message: {answer.excerpt}")
    if endpoint.send("GET", HEALTH).status != 200:
        raise Failure(f"{HEALTH} fails after a bad request.")
    return f"400: {message}"


def no_body(endpoint: Endpoint) -> str:
    """An answer without a body ends, too: uptime checks send HEAD, and browsers OPTIONS."""
    patient = replace(endpoint, timeout=min(endpoint.timeout, SOON_SECONDS))
    seen = []
    for method, path in (("HEAD", HEALTH), ("OPTIONS", CHAT)):
        try:
            answer = patient.send(method, path)
        except Silence as silence:
            raise Failure(
                f"{method} hangs: {silence} Browsers and uptime checks would wait for minutes. A "
                f"function URL in RESPONSE_STREAM mode does so where it is posted no body: deploy "
                f"an image that posts one, or set RuntimeClient=awslambdaric."
            ) from silence
        if answer.status not in {200, 204}:
            raise Failure(f"{method} {path} answered {answer.status}: {answer.excerpt}")
        seen.append(f"{method} {answer.status}")
    return ", ".join(seen)


def stranger(endpoint: Endpoint) -> str:
    """Checks that nobody gets an answer without key and signature, where there is one."""
    if not endpoint.is_guarded:
        return "not tried: nothing was shown, and everyone gets in"
    answer = endpoint.send("POST", CHAT, QUESTION, stranger=True)
    if answer.status not in {401, 403}:
        raise Failure(f"who shows no credentials is answered {answer.status}, not 401 or 403.")
    return f"{answer.status} without credentials"


CHECKS: Mapping[str, Callable[[Endpoint], str]] = {
    "health": health,
    "chat": chat,
    "stream": stream,
    "error": error,
    "no body": no_body,
    "stranger": stranger,
}


def _completion(endpoint: Endpoint, call: object) -> tuple[str, int]:
    """Text and count of tokens of a whole answer."""
    answer = endpoint.send("POST", CHAT, call)
    if answer.status != 200:
        raise Failure(f"{CHAT} answered {answer.status}: {answer.excerpt}")
    try:
        choice = answer.json["choices"][0]
        text, tokens = choice["message"]["content"], answer.json["usage"]["completion_tokens"]
        is_finished = bool(choice.get("finish_reason"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Failure(f"{CHAT} answered no completion: {answer.excerpt}") from error
    if not (isinstance(text, str) and text.strip() and is_finished):
        raise Failure(f"the completion is empty or has no end: {answer.excerpt}")
    if not (isinstance(tokens, int) and tokens > 0):
        raise Failure(f"the completion has no count of its tokens: {answer.excerpt}")
    return text, tokens


def _speed(arrivals: list[float], tokens: int) -> str:
    """The speed of the tokens after the first, if they came one after the other."""
    first, last = arrivals[0], arrivals[-1]
    if last - first < first * AT_ONCE:
        return f"all {tokens} at once: {tokens / last:.1f} tokens/s, the prompt included"
    return f"then {(tokens - 1) / (last - first):.1f} tokens/s"
