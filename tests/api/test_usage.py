"""What an answer has taken, and who gave it."""

from __future__ import annotations

import msgspec

from handlers.api.usage import timing_head, timing_whole, usage_body
from handlers.artifact.manifest import FileInfo
from handlers.engine.params import GenerationStats
from tests.api.client import MANIFEST, Client, saying


def taken(prompt: int, cached: int, completion: int, milliseconds: float = 0.0) -> GenerationStats:
    return GenerationStats(
        prompt, cached, completion, milliseconds, 2 * milliseconds, 3 * milliseconds
    )


def test_a_prompt_counts_once_however_many_choices_it_has() -> None:
    first = [taken(5, 1, 10), taken(5, 5, 20)]
    second = [taken(7, 2, 30), taken(7, 7, 40)]

    assert usage_body(first + second, choices_each=2) == {
        "prompt_tokens": 12,
        "completion_tokens": 100,
        "total_tokens": 112,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_of_several_choices_the_longest_times_are_told() -> None:
    assert timing_whole([taken(1, 0, 1, 4.0), taken(1, 0, 1, 5.04)]) == {
        "server-timing": "queue;dur=5.0, prefill;dur=10.1, decode;dur=15.1"
    }


def test_a_head_tells_what_is_over() -> None:
    assert timing_head(taken(1, 0, 1, 4.0)) == {"server-timing": "queue;dur=4.0, prefill;dur=8.0"}


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
