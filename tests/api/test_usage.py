"""Tests what an answer has taken, and who gave it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from handlers.api.generation import Usage, answer_timing, stream_timing, total_usage
from handlers.api.http import Response, StreamResponse, TokenUsage
from handlers.artifact.manifest import FileInfo
from handlers.engine.params import GenerationStats
from tests.api.client import MANIFEST, TOKENIZER, Client, saying
from tests.support.scripted_engine import drain


def taken(prompt: int, cached: int, completion: int, milliseconds: float = 0.0) -> GenerationStats:
    return GenerationStats(
        prompt, cached, completion, milliseconds, 2 * milliseconds, 3 * milliseconds
    )


def test_a_prompt_counts_once_however_many_choices_it_has() -> None:
    first = [taken(5, 1, 10), taken(5, 5, 20)]
    second = [taken(7, 2, 30), taken(7, 7, 40)]

    usage = Usage.of(total_usage(first + second, n=2))
    assert msgspec.to_builtins(usage) == {
        "prompt_tokens": 12,
        "completion_tokens": 100,
        "total_tokens": 112,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_drafts_of_all_choices_are_added_up() -> None:
    stats = [replace(taken(5, 1, 10), drafted_tokens=n, accepted_tokens=n - 2) for n in (3, 4)]

    usage = total_usage(stats, n=2)
    assert (usage.drafted_tokens, usage.accepted_tokens) == (7, 3)


def test_of_several_choices_the_longest_times_are_told() -> None:
    assert answer_timing([taken(1, 0, 1, 4.0), taken(1, 0, 1, 5.04)]) == {
        "server-timing": "queue;dur=5.0, prefill;dur=10.1, decode;dur=15.1"
    }


def test_a_head_tells_what_is_over() -> None:
    assert stream_timing(taken(1, 0, 1, 4.0)) == {"server-timing": "queue;dur=4.0, prefill;dur=8.0"}


def fingerprint(**hashes: str) -> str:
    files = {name: FileInfo(1, digest) for name, digest in hashes.items()}
    manifest = msgspec.structs.replace(MANIFEST, files=files)
    client = Client(saying("yes"), manifest=manifest)
    answer = client.json("POST", "/v1/completions", {"prompt": "Hello"})
    return str(answer["system_fingerprint"])


def test_another_artefact_has_another_fingerprint_and_the_same_the_same() -> None:
    one = fingerprint(graph="a1", tokenizer="b2")

    assert one.startswith("fp_")
    assert one == fingerprint(tokenizer="b2", graph="a1")
    assert one != fingerprint(graph="a1", tokenizer="b3")


BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]},
    "/generate": {"prompt": "Hello"},
}


@pytest.mark.parametrize("path", BODIES)
def test_a_whole_answer_carries_the_tokens_of_its_body(path: str) -> None:
    engine = saying("yes")
    answer = Client(engine).send("POST", path, BODIES[path])

    assert isinstance(answer, Response)
    usage = msgspec.json.decode(answer.body)["usage"]
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    assert answer.usage == TokenUsage(prompt, completion)
    assert (prompt, completion) == (len(engine.prompt_ids), len(TOKENIZER.encode("yes")))


@pytest.mark.parametrize("path", [path for path in BODIES if path != "/generate"])
def test_a_stream_carries_its_tokens_once_it_has_ended(path: str) -> None:
    engine = saying("yes")
    answer = Client(engine).send("POST", path, BODIES[path] | {"stream": True})

    assert isinstance(answer, StreamResponse)
    assert answer.usage is None
    drain(answer.chunks)
    assert answer.usage == TokenUsage(len(engine.prompt_ids), len(TOKENIZER.encode("yes")))
