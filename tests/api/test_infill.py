"""The middle of a text: /infill as llama-server has it, and `suffix` of /v1/completions."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.api.app import Api
from handlers.api.model import DecoderModel
from handlers.config import Settings
from handlers.engine.params import FinishReason
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from tests.api.client import MANIFEST, ApiClient, Client, saying
from tests.support.infill_tokenizers import QWEN, with_marks
from tests.support.scripted_engine import ScriptedEngine, steps
from tests.support.tokenizer_kinds import byte_level

PRE, SUF, MID, _, REPO, SEP = QWEN
TOKENIZER = Tokenizer(with_marks(byte_level(), QWEN))
ENDS = {TOKENIZER.added_ids[mark] for mark in QWEN}
BODY = {"input_prefix": "def f(", "input_suffix": "):\n  pass"}


class Filling(ApiClient):
    """One decoder's Api, whose tokenizer has marks for filling in."""

    def __init__(self, text: str = "x\n", end: FinishReason = FinishReason.EOS) -> None:
        self.engine = ScriptedEngine(steps(TOKENIZER.encode(text), end))
        settings = Settings.from_environ({"MODEL_DIR": "unused"})
        template = ChatTemplate(None, {})
        model = DecoderModel.of(self.engine, TOKENIZER, template, MANIFEST, settings, {})
        super().__init__(Api(model, settings))

    @property
    def prompt(self) -> str:
        return TOKENIZER.decode(self.engine.prompt_ids, skip_special_tokens=False)


def test_the_answer_is_llama_servers() -> None:
    client = Filling()
    answer = client.json("POST", "/infill", BODY)
    assert client.prompt == f"{PRE}def f({SUF}):\n  pass{MID}"
    timings = answer.pop("timings")
    count, prompt = len(TOKENIZER.encode("x\n")), len(client.engine.prompt_ids)
    assert answer == {
        "index": 0,
        "content": "x\n",
        "tokens": [],
        "id_slot": -1,
        "stop": True,
        "model": "Tiny",
        "tokens_predicted": count,
        "tokens_evaluated": prompt,
        "has_new_line": True,
        "truncated": False,
        "stop_type": "eos",
        "stopping_word": "",
        "tokens_cached": 0,
    }
    assert (timings["prompt_n"], timings["predicted_n"]) == (prompt, count)
    assert timings.keys() >= {"prompt_ms", "prompt_per_second", "predicted_ms"}


@pytest.mark.parametrize(
    ("end", "fields", "kind", "word", "content"),
    [
        (FinishReason.EOS, {}, "eos", "", "a b END c"),
        (FinishReason.LENGTH, {}, "limit", "", "a b END c"),
        (FinishReason.EOS, {"stop": ["END"]}, "word", "END", "a b "),
    ],
)
def test_it_says_why_it_stopped(
    end: FinishReason, fields: dict[str, Any], kind: str, word: str, content: str
) -> None:
    answer = Filling("a b END c", end).json("POST", "/infill", {**BODY, **fields})
    found = (answer["stop_type"], answer["stopping_word"], answer["content"])
    assert found == (kind, word, content)


def test_a_stream_has_pieces_and_an_end_with_the_counts() -> None:
    body: dict[str, object] = {**BODY, "stop": ["END"]}
    *pieces, last = Filling("a\nb END").events("/infill", body)
    whole = Filling("a\nb END").json("POST", "/infill", body)
    assert "".join(piece["content"] for piece in pieces) == whole["content"] == "a\nb "
    assert not any(piece["stop"] for piece in pieces)
    assert all("timings" not in piece for piece in pieces)
    for answer in (last, whole):
        answer.pop("timings")
    assert last == {**whole, "content": ""}


def test_what_the_editor_sends_is_taken() -> None:
    """llama.vim's own fields."""
    client = Filling()
    extra = [{"filename": "a.py", "text": "import os"}, {"text": "y = 1"}]
    fields = {
        "input_extra": extra,
        "prompt": "  re",
        "n_predict": 7,
        "stop": [],
        "n_indent": 4,
        "top_k": 40,
        "top_p": 0.9,
        "samplers": ["top_k", "top_p", "infill"],
        "stream": False,
        "cache_prompt": True,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 1000,
        "id_slot": 0,
        "response_fields": ["content", "timings/prompt_n"],
    }
    assert client.json("POST", "/infill", {**BODY, **fields})["content"] == "x\n"
    assert client.prompt == (
        f"{REPO}myproject\n{SEP}a.py\nimport os{SEP}tmp\ny = 1{SEP}filename\n"
        f"{PRE}def f(  re{SUF}):\n  pass{MID}"
    )
    params = client.engine.prompts[0].params
    assert (params.max_tokens, params.top_k, params.top_p) == (7, 40, 0.9)
    assert params.stop_token_ids >= ENDS


def test_a_prompt_may_only_be_read_ahead() -> None:
    client = Filling("", FinishReason.LENGTH)
    answer = client.json("POST", "/infill", {**BODY, "n_predict": 0})
    assert (answer["content"], answer["tokens_predicted"]) == ("", 0)
    assert client.engine.prompts[0].params.max_tokens == 0


def test_a_suffix_asks_for_the_middle() -> None:
    client = Filling()
    body = {"prompt": ["def f(", "x"], "suffix": "):", "stop_token_ids": [5], "n": 2}
    answer = client.json("POST", "/v1/completions", body)
    assert len(answer["choices"]) == 4
    assert client.prompt == f"{PRE}def f({SUF}):{MID}"
    for prompt in client.engine.prompts:
        assert prompt.params.stop_token_ids == ENDS | {5}


@pytest.mark.parametrize("suffix", [None, ""])
def test_an_empty_suffix_is_none(suffix: str | None) -> None:
    client = Filling()
    client.json("POST", "/v1/completions", {"prompt": f"a{PRE}", "suffix": suffix})
    assert client.engine.prompt_ids == TOKENIZER.encode(f"a{PRE}")
    assert not client.engine.prompts[0].params.stop_token_ids


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/infill", {"input_prefix": f"a{SUF}", "input_suffix": MID, "prompt": f"{SEP}<|fim"}),
        ("/v1/completions", {"prompt": f"a{SUF}{SEP}<|fim", "suffix": MID}),
    ],
)
def test_texts_are_no_marks(path: str, body: dict[str, Any]) -> None:
    client = Filling()
    client.json("POST", path, body)
    assert client.prompt == f"{PRE}a{SUF}{SEP}<|fim{SUF}{MID}{MID}"
    marks = [token_id for token_id in client.engine.prompt_ids if token_id in ENDS]
    assert marks == [TOKENIZER.added_ids[mark] for mark in (PRE, SUF, MID)]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/infill", {"input_prefix": "a"}, "input_suffix"),
        ("/infill", {**BODY, "input_extra": [{"filename": "a"}]}, "input_extra[0].text"),
        ("/infill", {**BODY, "input_prefix": "a" * 9999}, "input_prefix"),
        ("/infill", {**BODY, "input_prefix": "a\0"}, "input_prefix"),
        ("/infill", {**BODY, "n_probs": 3}, "n_probs"),
        ("/v1/completions", {"prompt": [1, 2], "suffix": "b"}, "prompt[0]"),
        ("/v1/completions", {"prompt": "a", "suffix": "b", "echo": True}, "echo"),
    ],
)
def test_what_cannot_be_is_refused(path: str, body: dict[str, Any], param: str) -> None:
    status, error = Filling().error("POST", path, body)
    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/infill", BODY, "input_suffix"),
        ("/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix"),
    ],
)
def test_a_model_without_marks_refuses(path: str, body: dict[str, Any], param: str) -> None:
    status, error = Client(saying("")).error("POST", path, body)
    assert (status, error["param"]) == (400, param)
    assert error["message"] == (
        f"{param} is not supported by this model: its tokenizer has no tokens for filling in the "
        f"middle of a text, such as <|fim_middle|>."
    )
