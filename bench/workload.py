"""Asks every server the same, and times its answers from outside, over HTTP.

Time to first token is from before the connection is opened until the first text has arrived.
Decode speed is counted from the first token of the first stream to the last token of the last one,
all streams together: what a machine delivers, and not what one stream would get if it were alone.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from bench.prompts import Prompts
from bench.servers import Server, log_of

SHORT = 38
"""Prompt tokens of a one-line question in a chat template."""
PATH = "/v1/completions"
START_LIMIT_SECONDS = 120
SILENCE_LIMIT_SECONDS = 120
KNOCK_SECONDS = 0.005


class NotReady(RuntimeError):
    """A server has opened its port and is still loading: 503."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds of time.perf_counter."""

    sent: float
    first: float
    last: float


def request_body(prompt: str, new_tokens: int) -> dict[str, Any]:
    """A greedy completion of exactly `new_tokens`."""
    return {"prompt": prompt, "max_tokens": new_tokens, "temperature": 0, "ignore_eos": True}


def first_answer(server: Server, process: subprocess.Popen[bytes], prompt: str) -> Answer:
    """The first answer of a process that has just been started: asked until it comes.

    Every 5 ms, which costs the starting server nothing that one could measure. Raises RuntimeError
    when the process ends or stays silent.
    """
    limit = time.perf_counter() + START_LIMIT_SECONDS
    while time.perf_counter() < limit and process.poll() is None:
        try:
            return ask(server, prompt, SHORT, 1)
        except (ConnectionRefusedError, NotReady):
            time.sleep(KNOCK_SECONDS)
    status = process.poll()
    ended = "did not answer" if status is None else f"ended with status {status}"
    raise RuntimeError(f"{server.name} {ended} while starting: see {log_of(server)}.")


def first_token_ms(server: Server, prompts: Prompts, prompt_tokens: int) -> float:
    """Times the first token of one request on an idle, warm server."""
    answer = ask(server, prompts.take(prompt_tokens), prompt_tokens, 1)
    return (answer.first - answer.sent) * 1e3


def decode_tokens_per_second(
    server: Server, prompts: Prompts, streams: int, new_tokens: int, prompt_tokens: int = SHORT
) -> float:
    """Measures the speed of all streams together, started at the same time."""
    texts = [prompts.take(prompt_tokens) for _ in range(streams)]
    with ThreadPoolExecutor(streams) as pool:
        answers = list(pool.map(lambda text: ask(server, text, prompt_tokens, new_tokens), texts))
    seconds = max(answer.last for answer in answers) - min(answer.first for answer in answers)
    return (streams * new_tokens - 1) / seconds


def ask(server: Server, prompt: str, prompt_tokens: int, new_tokens: int) -> Answer:
    """Streams one completion. Raises RuntimeError where it is not of exactly these tokens."""
    body = request_body(prompt, new_tokens)
    body |= {"stream": True, "stream_options": {"include_usage": True}, **server.fields}
    times: list[float] = []
    usage: Mapping[str, int] = {}
    finish = None
    sent = time.perf_counter()
    for event in stream(server, body):
        for choice in event.get("choices", ()):
            if choice["text"]:
                times.append(time.perf_counter())
            finish = choice.get("finish_reason") or finish
        usage = event.get("usage") or usage
    # A server that sends no usage says at least that it stopped at the limit that it was given.
    wanted = {"prompt_tokens": prompt_tokens, "completion_tokens": new_tokens}
    counted = {name: usage.get(name) for name in wanted} if usage else {"finish": finish}
    if counted not in (wanted, {"finish": "length"}) or not times:
        raise RuntimeError(f"{server.name} counted {counted}, not {wanted}.")
    return Answer(sent, times[0], times[-1])


def stream(server: Server, body: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=SILENCE_LIMIT_SECONDS)
    try:
        connection.request("POST", PATH, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status == 503:
            raise NotReady(f"{server.name} is loading.")
        if response.status != 200:
            raise RuntimeError(f"{server.name} answered {response.status}: {response.read(500)!r}")
        for line in response:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])
    finally:
        connection.close()
