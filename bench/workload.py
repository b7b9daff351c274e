"""What both servers are asked, and how an answer is timed: from outside, over HTTP.

Time to first token is from before the connection is opened until the first text has arrived.
Decode speed is counted from the first token of the first stream to the last token of the last one,
all streams together: what a machine delivers, and not what one stream would get if it were alone.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bench.servers import ROOT, Server

SHORT, LONG = 38, 512
"""Prompt tokens: of a one-line question in a chat template, and of a page."""
TEXT = ROOT / "model_export" / "corpus" / "evaluation.txt"
TOKENIZER = ROOT / "build" / "model" / "tokenizer.json"
START_LIMIT_SECONDS = 120
SILENCE_LIMIT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds of time.perf_counter."""

    sent: float
    first: float
    last: float


class Prompts:
    """Texts of exactly so many tokens. Never one twice: no cache of either side can help."""

    def __init__(self, tokenizer: Path = TOKENIZER, text: Path = TEXT) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._words = text.read_text().split()
        self._starts = itertools.cycle(range(len(self._words)))

    def take(self, length: int) -> str:
        """The next one, from the next word of the shipped text on."""
        for start in itertools.islice(self._starts, len(self._words)):
            rotated = self._words[start:] + self._words[:start]
            ids = self._tokenizer.encode(" ".join(rotated[:length])).ids[:length]
            prompt: str = self._tokenizer.decode(ids)
            # Both servers add the same special tokens around a bare text, so they are in the count.
            # A cut inside a word may encode in another way than it decoded: then the next start.
            if len(self._tokenizer.encode(prompt).ids) == length:
                return prompt
        raise RuntimeError(f"No part of the text encodes to exactly {length} tokens.")


def cold_start_ms(
    server: Server, process: subprocess.Popen[bytes], started: float, prompts: Prompts
) -> float:
    """From just before the process was started until the first token of its first answer."""
    wait_for_port(server, process, started + START_LIMIT_SECONDS)
    return (ask(server, prompts.take(SHORT), SHORT, 1).first - started) * 1e3


def first_token_ms(server: Server, prompts: Prompts, prompt_tokens: int) -> float:
    """Of one request on an idle, warm server."""
    answer = ask(server, prompts.take(prompt_tokens), prompt_tokens, 1)
    return (answer.first - answer.sent) * 1e3


def decode_tokens_per_second(
    server: Server, prompts: Prompts, streams: int, new_tokens: int
) -> float:
    """Of all streams together, started at the same time."""
    texts = [prompts.take(SHORT) for _ in range(streams)]
    with ThreadPoolExecutor(streams) as pool:
        answers = list(pool.map(lambda text: ask(server, text, SHORT, new_tokens), texts))
    seconds = max(answer.last for answer in answers) - min(answer.first for answer in answers)
    return (streams * new_tokens - 1) / seconds


def ask(server: Server, prompt: str, prompt_tokens: int, new_tokens: int) -> Answer:
    """Streams one greedy completion of exactly `new_tokens`. Raises RuntimeError on any other."""
    body = {
        "prompt": prompt,
        "max_tokens": new_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    times: list[float] = []
    usage: dict[str, int] = {}
    sent = time.perf_counter()
    for event in stream(server, "/v1/completions", body):
        if event.get("choices") and event["choices"][0]["text"]:
            times.append(time.perf_counter())
        usage = event.get("usage") or usage
    counted = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if counted != (prompt_tokens, new_tokens) or not times:
        raise RuntimeError(f"{server.name} counted {counted}, not {(prompt_tokens, new_tokens)}.")
    return Answer(sent, times[0], times[-1])


def stream(server: Server, path: str, body: dict[str, object]) -> Iterator[dict[str, Any]]:
    """The JSON of each server-sent event."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=SILENCE_LIMIT_SECONDS)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{server.name} answered {response.status}: {response.read(500)!r}")
    for line in response:
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])
    connection.close()


def wait_for_port(server: Server, process: subprocess.Popen[bytes], limit: float) -> None:
    """Knocks every 5 ms, which costs the starting server nothing that one could measure."""
    while time.perf_counter() < limit and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", server.port)
        try:
            connection.connect()
        except ConnectionRefusedError:
            time.sleep(0.005)
        else:
            return
        finally:
            connection.close()
    raise RuntimeError(f"{server.name} did not open its port: see build/bench/{server.name}.log.")
