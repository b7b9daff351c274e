"""Grammars on the demo model's own vocabulary; the ids are drawn at random from what is allowed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handlers.errors import EngineFault, GrammarTooComplex, InvalidRequest
from handlers.grammar.compiler import GrammarCompiler
from handlers.grammar.constraint import GrammarConstraint
from handlers.grammar.schema.limits import MAX_SOURCE
from handlers.grammar.vocabulary import Vocabulary
from handlers.text.tokenizer import Tokenizer
from tests.support.random_answers import allowed_ids, is_whole, random_answer
from tests.support.tokenizer_kinds import END, KINDS

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
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, vocab_size=49152, eos_token_ids=(2,))


@pytest.mark.parametrize("seed", range(5))
def test_a_schema_leaves_nothing_but_valid_json(
    compiler: GrammarCompiler, tokenizer: Tokenizer, seed: int
) -> None:
    text = random_answer(compiler.json_schema(PERSON), tokenizer, seed).text

    person = json.loads(text)
    assert text == json.dumps(person, ensure_ascii=False)
    assert list(person) == ["name", "age", "city"]
    assert len(person["name"]) <= 8
    assert 0 <= person["age"] <= 150
    assert person["city"] in {"Paris", "Rome"}


def test_a_json_object_is_an_object(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    constraint = compiler.json_object()

    first = {tokenizer.decode([token_id])[0] for token_id in allowed_ids(constraint)}

    assert first == {"{"}


@pytest.mark.parametrize(
    ("compile_", "pattern"),
    [
        (lambda compiler: compiler.regex(r"[a-c]{2}/\"(x|yz)"), r"[a-c]{2}/\"(x|yz)"),
        (lambda compiler: compiler.regex(""), ""),
        (lambda compiler: compiler.regex("ab\\\\"), "ab\\\\"),
        (
            lambda compiler: compiler.choice(["yes", "no", 'a "b"\n\\', "1.5", "é", ""]),
            'yes|no|a "b"\n\\\\|1[.]5|é|',
        ),
        (lambda compiler: compiler.lark('start: "a" b\nb: /[0-9]{3}/'), "a[0-9]{3}"),
        (lambda compiler: compiler.gbnf('root ::= "b" x | "c"\nx ::= [y-z]{2,3}'), "b[yz]{2,3}|c"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_grammar_leaves_what_it_describes(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    compile_: Callable[[GrammarCompiler], GrammarConstraint],
    pattern: str,
    seed: int,
) -> None:
    ended = random_answer(compile_(compiler), tokenizer, seed)

    assert ended.whole
    assert re.fullmatch(pattern, ended.text)


# --- the vocabulary ---


def test_forced_ids_are_those_that_the_tokenizer_gives_the_text(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    schema = {"type": "object", "properties": {"the_weather": {"const": "It's 12:30 in Zürich."}}}
    constraint = compiler.json_schema(
        schema | {"required": ["the_weather"], "additionalProperties": False}
    )

    answer = random_answer(constraint, tokenizer)

    assert answer.text == '{"the_weather": "It\'s 12:30 in Zürich."}'
    assert answer.ids == tokenizer.encode(answer.text)


def test_the_name_of_a_special_token_is_written_out_and_never_the_token(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    answer = random_answer(compiler.choice(["a <|im_end|> b"]), tokenizer)

    assert answer.text == "a <|im_end|> b"
    assert 2 not in answer.ids


def test_any_of_several_end_tokens_may_end_an_answer_and_padding_never_comes(
    tokenizer: Tokenizer,
) -> None:
    compiler = GrammarCompiler(tokenizer, vocab_size=49200, eos_token_ids=(2, 0))

    constraint = compiler.regex("a?")

    assert constraint.allowed().shape == (1538,)
    allowed = allowed_ids(constraint)
    assert {0, 2} <= set(allowed)
    assert max(allowed) < 49152
    assert 1 not in allowed


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace"])
def test_every_tokenizer_of_bytes_can_follow_a_grammar(kind: str) -> None:
    backend = KINDS[kind]()
    tokenizer = Tokenizer(backend)
    eos = backend.token_to_id(END)
    compiler = GrammarCompiler(tokenizer, backend.get_vocab_size(), (eos,))

    constraint = compiler.choice(["the dog", "a fox"])
    answer = random_answer(constraint, tokenizer, eos_token_id=eos)

    assert answer.text in {"the dog", "a fox"}


@pytest.mark.parametrize("kind", ["word_piece", "word_suffix"])
def test_a_tokenizer_of_words_is_refused(kind: str) -> None:
    backend = KINDS[kind]()
    compiler = GrammarCompiler(Tokenizer(backend), backend.get_vocab_size(), (0,))

    with pytest.raises(InvalidRequest, match="spells words"):
        compiler.json_object()


def test_requests_at_once_build_the_vocabulary_once(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = GrammarCompiler(tokenizer, vocab_size=49152, eos_token_ids=(2,))
    built = []

    class Counted(Vocabulary):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            built.append(self)

    monkeypatch.setattr("handlers.grammar.compiler.Vocabulary", Counted)

    threads = [threading.Thread(target=compiler.json_object) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(built) == 1


# --- the constraint ---


def test_a_copy_goes_its_own_way(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    constraint = compiler.choice(["yes", "no"])
    other = constraint.copy()

    constraint.accept(tokenizer.encode("yes")[0])

    assert constraint.complete
    assert not other.complete
    assert random_answer(other, tokenizer, 1).text in {"yes", "no"}


def test_a_complete_answer_leaves_only_the_end(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = compiler.regex("ab")

    for token_id in constraint.forced():
        constraint.accept(token_id)

    assert constraint.complete
    assert list(allowed_ids(constraint)) == [2]
    assert constraint.forced() == []


def test_an_id_that_is_not_allowed_is_a_fault_of_ours(compiler: GrammarCompiler) -> None:
    with pytest.raises(EngineFault, match="does not allow the id 100"):
        compiler.regex("ab").accept(100)


# --- a panic of llguidance ---


class PanicException(BaseException):
    """As pyo3's, which cannot be imported."""


class Panicking:
    """A matcher that panics at once, or has done so within."""

    def __init__(self, *_: object, **__: object) -> None:
        raise PanicException("index out of bounds")


class Panicked:
    def __init__(self, *_: object, **__: object) -> None: ...

    def is_error(self) -> bool:
        return True

    def get_error(self) -> str:
        return "panic: index out of bounds\n<backtrace>"


@pytest.mark.parametrize("matcher", [Panicking, Panicked])
def test_a_panic_is_a_fault_of_ours_and_ends_one_request(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch, matcher: type
) -> None:
    monkeypatch.setattr("llguidance.LLMatcher", matcher)

    with pytest.raises(EngineFault, match="index out of bounds"):
        compiler.json_object()


# --- what is refused ---

Compile = Callable[[GrammarCompiler], object]


def strictly(schema: dict[str, Any]) -> Compile:
    return lambda compiler: compiler.json_schema(schema, strict=True)


@pytest.mark.parametrize(
    ("compile_", "words"),
    [
        (strictly({"if": {}, "not": {}}), 'the keyword "if" is not supported'),
        (strictly({"type": "string", "format": "colour"}), "format 'colour' is not supported"),
        (strictly({"type": "objekt"}), "type 'objekt' is not supported"),
        (strictly({"oneOf": [{"minimum": 1}, {"maximum": 2}]}), "use anyOf"),
        (strictly({"$ref": "https://example.com/schema"}), "$ref to 'https://example.com/schema'"),
        (strictly({"$ref": "#/$defs/none"}), "which is not in this schema"),
        (strictly({"$ref": "#"}), "no value can end"),
        (strictly({"type": "string", "pattern": "(?=a)b"}), "look-ahead"),
        (strictly({"x-guidance": {"lenient": True}, "not": {}}), "not supported"),
        (strictly({"const": "\ud800"}), "cannot be used"),
        (lambda compiler: compiler.regex("("), "unclosed group"),
        (lambda compiler: compiler.regex("\ud800"), "surrogate"),
        (lambda compiler: compiler.regex("ab\\"), "ends in a backslash"),
        (lambda compiler: compiler.regex("ab\\\\\\"), "ends in a backslash"),
        (lambda compiler: compiler.lark("start: x"), "unknown name"),
        (lambda compiler: compiler.gbnf("root ::= x"), "Rule 'x' not found"),
        (lambda compiler: compiler.gbnf('root ::= "a'), "end of input"),
        (lambda compiler: compiler.gbnf('root ::= "a"{²}'), "a number that cannot be read"),
        (lambda compiler: compiler.gbnf('root ::= "a\\'), "ends in a backslash"),
        (lambda compiler: compiler.choice([]), "empty"),
    ],
)
def test_what_cannot_be_compiled_is_refused_in_a_sentence(
    compiler: GrammarCompiler, compile_: Compile, words: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(words)) as refused:
        compile_(compiler)

    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")


def test_a_bug_in_the_reader_of_gbnf_is_no_fault_of_the_client(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_: str) -> str:
        raise KeyError

    monkeypatch.setattr("llguidance.gbnf_to_lark.gbnf_to_lark", faulty)

    with pytest.raises(KeyError):
        compiler.gbnf('root ::= "a"')


def test_a_colon_that_begins_no_rule_counts_for_none(compiler: GrammarCompiler) -> None:
    literals = " | ".join(f'"{number}:"' for number in range(1001))

    assert not is_whole(compiler.lark(f"start: {literals}"))


def nested(depth: int, leads_to: str = "") -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": f"#/$defs/{leads_to}"} if leads_to else {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def chain(length: int) -> dict[str, Any]:
    """A schema that leads to another, and so on."""
    links: dict[str, Any] = {
        f"d{place}": {"properties": {"a": {"$ref": f"#/$defs/d{place + 1}"}}}
        for place in range(length)
    }
    return {"$ref": "#/$defs/d0", "$defs": links | {f"d{length}": {}}}


# Each took seconds, gigabytes or the process with it, without the limits that refuse it.
TOO_MUCH: dict[str, Compile] = {
    "long": lambda compiler: compiler.json_schema({"const": "x" * MAX_SOURCE}),
    "deep": lambda compiler: compiler.json_schema(nested(10_000)),
    "deeper than llguidance reads": lambda compiler: compiler.json_schema(nested(200)),
    "wide": lambda compiler: compiler.json_schema(
        {"properties": {f"p{number}": {"type": "string"} for number in range(6000)}}
    ),
    "product": lambda compiler: compiler.json_schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"a{i}{j}": {"type": "string"}}} for j in range(5)]}
                for i in range(8)
            ]
        }
    ),
    "multiple": strictly({"type": "integer", "multipleOf": 999983}),
    "multiples": strictly(
        {"allOf": [{"type": "integer", "multipleOf": prime} for prime in (11, 13, 17, 19)]}
    ),
    "fractions": strictly({"multipleOf": 1.23457e-300}),
    "chain of $ref": lambda compiler: compiler.json_schema(chain(2000)),
    "chain of $ref through deep schemas": lambda compiler: compiler.json_schema(
        {"$ref": "#/$defs/d0", "$defs": {f"d{n}": nested(40, f"d{n + 1}") for n in range(40)}}
    ),
    "patternProperties": strictly(
        {"patternProperties": {f"^x{number}_.*$": {} for number in range(500)}}
    ),
    "chain of rules": lambda compiler: compiler.lark(
        "start: a0\n" + "\n".join(f"a{n}: a{n + 1}" for n in range(5000)) + '\na5000: "x"'
    ),
    "chain of tokens with attributes": lambda compiler: compiler.lark(
        "start: a0\n"
        + "\n".join(f' ?a{n}[stop="x"]: a{n + 1}' for n in range(5000))
        + '\na5000: "x"'
    ),
    "chain of GBNF's rules": lambda compiler: compiler.gbnf(
        "root ::= a0\n" + "\n".join(f"a{n} ::= a{n + 1}" for n in range(5000)) + '\na5000 ::= "x"'
    ),
    "schema in Lark": lambda compiler: compiler.lark("start: %json " + json.dumps(chain(2000))),
    "regex": lambda compiler: compiler.regex("(a|ab|abc|abcd)*" * 2000),
    "brackets": lambda compiler: compiler.regex("(" * 5000 + ")" * 5000),
    "gbnf": lambda compiler: compiler.gbnf("root ::= " + "(" * 5000 + '"a"' + ")" * 5000),
    "lark": lambda compiler: compiler.lark(
        "start: A0\n" + "\n".join(f"A{n}: A{n + 1} A{n + 1}" for n in range(40)) + '\nA40: "x"'
    ),
}


@pytest.mark.parametrize("source", TOO_MUCH)
def test_what_would_take_too_long_is_refused(compiler: GrammarCompiler, source: str) -> None:
    with pytest.raises(InvalidRequest):
        TOO_MUCH[source](compiler)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a|b)*a(a|b){200}",
        "((a{1,100}){1,100}){1,100}",
        ".{1,10000}x.{1,10000}",
        "(x+x+)+y",
        "(((((a*)*)*)*)*)*",
        "(.*[ab].{12}[cd].{13}.*)+",
        r"\p{L}{1,5000}",
        "a{100000}",
    ],
)
def test_a_nasty_regular_expression_is_enforced_all_the_same(
    compiler: GrammarCompiler, tokenizer: Tokenizer, pattern: str
) -> None:
    answer = random_answer(compiler.regex(pattern), tokenizer, max_tokens=100)

    assert answer.ids
    assert not answer.whole or re.fullmatch(pattern.replace(r"\p{L}", r"[^\W\d_]"), answer.text)


@pytest.mark.parametrize(
    "compile_",
    [
        lambda compiler: compiler.lark('start: (((("x"{1000}){1000}){1000}){1000}){1000}'),
        lambda compiler: compiler.lark("start: " + "|".join(f'"{n} x"' for n in range(20_001))),
        lambda compiler: compiler.regex("(a{1000}){1000}"),
    ],
)
def test_a_grammar_that_outgrows_its_limits_in_mid_answer_is_the_requests_fault(
    compiler: GrammarCompiler,
    tokenizer: Tokenizer,
    compile_: Callable[[GrammarCompiler], GrammarConstraint],
) -> None:
    constraint = compile_(compiler)

    with pytest.raises(GrammarTooComplex, match="too large or too complex") as refused:
        random_answer(constraint.copy(), tokenizer)

    assert refused.value.status == 400
    assert "\n" not in str(refused.value)


def test_a_schema_as_large_as_openai_allows_is_enforced(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    names = [f"property_{number}" for number in range(5000)]
    schema = {"type": "object", "properties": {name: {"type": "boolean"} for name in names}}

    constraint = compiler.json_schema(schema | {"required": names, "additionalProperties": False})

    text = random_answer(constraint, tokenizer).text
    assert re.match('{"property_0": (true|false), "property_1": ', text)


def test_a_token_without_a_logit_is_text_and_a_logit_without_a_token_is_never_chosen() -> None:
    backend = KINDS["byte_level"]()
    backend.add_special_tokens(["<image>"])
    backend.add_tokens(["<plain>"])
    tokenizer = Tokenizer(backend)
    end, image, plain = (backend.token_to_id(name) for name in (END, "<image>", "<plain>"))
    text = "a <image> and <plain>"
    fewer = GrammarCompiler(tokenizer, vocab_size=image, eos_token_ids=(end, image))
    more = GrammarCompiler(tokenizer, vocab_size=plain + 65, eos_token_ids=(end,))

    answers = [random_answer(each.choice([text]), tokenizer, 0) for each in (fewer, more)]

    assert [answer.text for answer in answers] == [text, text]
    assert max(allowed_ids(fewer.regex("(?s).*"))) <= end
    assert max(allowed_ids(more.regex("(?s).*"))) <= plain


def test_a_model_without_an_end_cannot_follow_a_grammar(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="no token that ends an answer"):
        GrammarCompiler(tokenizer, vocab_size=49152, eos_token_ids=()).json_object()
