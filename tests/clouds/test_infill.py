"""A real server fills in: the same answer by /infill, streamed or whole, and by a suffix."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.support.infill_tokenizers import QWEN, filling_copy
from tests.support.openai_clients import openai_client
from tests.support.servers import CloudRun, cloud_run

PRE, SUF, MID, *_ = QWEN
BODY = {"input_prefix": "The quick ", "input_suffix": " dog", "temperature": 0, "n_predict": 12}


@pytest.fixture(scope="module")
def model(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filling_copy(tiny_artifact, tmp_path_factory.mktemp("filling") / "model")


@pytest.fixture(scope="module")
def server(model: Path, directory: Path) -> Iterator[CloudRun]:
    with cloud_run(model, directory) as running:
        yield running


def test_all_ways_give_one_answer(server: CloudRun) -> None:
    whole = server.post("/infill", BODY).json()
    events = server.post("/infill", {**BODY, "stream": True}).body.decode().split("\n\n")
    pieces = [json.loads(event.removeprefix("data: ")) for event in events if event]
    assert "".join(piece["content"] for piece in pieces) == whole["content"] != ""
    assert [piece["stop"] for piece in pieces] == [*[False] * (len(pieces) - 1), True]
    with openai_client(server) as client:
        completion = client.completions.create(
            model="any", prompt="The quick ", suffix=" dog", temperature=0, max_tokens=12
        )
    assert completion.choices[0].text == whole["content"]
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == whole["tokens_evaluated"]


def test_the_prompt_is_that_of_the_marks(server: CloudRun, model: Path) -> None:
    prompt = f"{PRE}The quick {SUF} dog{MID}"
    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode(prompt).ids
    raw = {"prompt": ids, "temperature": 0, "max_tokens": 12}
    answer = server.post("/v1/completions", raw).json()
    assert answer["choices"][0]["text"] == server.post("/infill", BODY).json()["content"]


def test_text_is_no_mark(server: CloudRun) -> None:
    body = {**BODY, "input_prefix": f"{MID}{PRE}", "input_suffix": "<|im_end|>", "n_predict": 1}
    answer = server.post("/infill", body)
    assert answer.status == 200
    assert answer.json()["tokens_evaluated"] > 15


def test_a_prompt_that_was_read_ahead_is_in_the_cache(server: CloudRun) -> None:
    body = {**BODY, "input_prefix": "the keeper wound the clock and counted ships " * 3}
    ahead = server.post("/infill", {**body, "n_predict": 0}).json()
    assert (ahead["content"], ahead["tokens_predicted"]) == ("", 0)
    assert server.post("/infill", body).json()["tokens_cached"] > 0
