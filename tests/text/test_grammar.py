"""Grammars on the demo model's own vocabulary; the ids are drawn at random from what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from handlers.text.grammar import GrammarConstraint, Grammars
from handlers.text.tokenizer import Tokenizer
from tests.support.random_answers import allowed_ids, random_answer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "city": {"enum": ["Paris", "Rome"]},
    },
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(demo_artifact: Path) -> Tokenizer:
    return Tokenizer.load(demo_artifact / "tokenizer.json")


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Grammars:
    return Grammars(tokenizer, vocab_size=49152, eos_token_ids=(2,))


@pytest.mark.parametrize("seed", range(5))
def test_a_schema_leaves_nothing_but_valid_json(
    grammars: Grammars, tokenizer: Tokenizer, seed: int
) -> None:
    text = random_answer(grammars.json_schema(PERSON), tokenizer, seed).text

    person = json.loads(text)
    assert text == json.dumps(person, ensure_ascii=False)
    assert list(person) == ["name", "age", "city"]
    assert len(person["name"]) <= 8
    assert 0 <= person["age"] <= 150
    assert person["city"] in {"Paris", "Rome"}


def test_a_json_object_is_an_object(grammars: Grammars, tokenizer: Tokenizer) -> None:
    constraint = grammars.json_object()

    first = {tokenizer.decode([token_id])[0] for token_id in allowed_ids(constraint)}

    assert first == {"{"}


@pytest.mark.parametrize(
    ("compile_", "pattern"),
    [
        (lambda grammars: grammars.regex(r"[a-c]{2}/\"(x|yz)"), r"[a-c]{2}/\"(x|yz)"),
        (lambda grammars: grammars.regex(""), ""),
        (
            lambda grammars: grammars.choice(["yes", "no", 'a "b"\n\\', "1.5", "é", ""]),
            'yes|no|a "b"\n\\\\|1[.]5|é|',
        ),
        (lambda grammars: grammars.lark('start: "a" b\nb: /[0-9]{3}/'), "a[0-9]{3}"),
        (lambda grammars: grammars.gbnf('root ::= "b" x | "c"\nx ::= [y-z]{2,3}'), "b[yz]{2,3}|c"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_grammar_leaves_what_it_describes(
    grammars: Grammars,
    tokenizer: Tokenizer,
    compile_: Callable[[Grammars], GrammarConstraint],
    pattern: str,
    seed: int,
) -> None:
    ended = random_answer(compile_(grammars), tokenizer, seed)

    assert ended.whole
    assert re.fullmatch(pattern, ended.text)
