"""Answers that begin with thoughts, on the demo model's vocabulary, which has no token for a mark.

And on the same vocabulary with a token for each mark, as most models that think have.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from handlers.artifact.dialect import HERMES, Thinking
from handlers.engine.params import Constraint
from handlers.errors import EngineFault
from handlers.grammar.compiler import GrammarCompiler
from handlers.grammar.thinking import ThinkingConstraint, after_thoughts
from handlers.grammar.thinking_marks import ThinkingMarks
from handlers.grammar.tool_grammar import Tool, ToolChoice, compile_tool_grammar
from handlers.text.tokenizer import Tokenizer
from tests.support.random_answers import allowed_ids, allows_id, random_answer
from tests.support.tokenizer_kinds import KINDS

EOS = 2
VOCABULARY = 49152
LOGITS = VOCABULARY + 64
QWEN = Thinking(begin="<think>\n", end="\n</think>\n\n")
TIGHT = Thinking(begin="<think>", end="</think>")
PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["Ann", "Bob"]}},
    "required": ["name"],
}


@pytest.fixture(scope="module", params=["pieces", "tokens"])
def tokenizer(request: pytest.FixtureRequest, demo_artifact: Path) -> Tokenizer:
    """`pieces`: marks are several tokens; `tokens`: each is one."""
    backend = tokenizers.Tokenizer.from_file(str(demo_artifact / "tokenizer.json"))
    if request.param == "tokens":
        backend.add_tokens(["<think>"])
        backend.add_special_tokens(["</think>"])
    return Tokenizer(backend)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, LOGITS, (EOS,))


def made(
    compiler: GrammarCompiler,
    *,
    thinks: bool = True,
    budget: int | None = None,
    thinking: Thinking = QWEN,
    form: bool = True,
) -> ThinkingConstraint:
    grammar = compiler.json_schema(PERSON) if form else None
    constraint = after_thoughts(grammar, thinking, thinks, compiler, budget)
    assert isinstance(constraint, ThinkingConstraint)
    return constraint


def accept(constraint: Constraint, ids: Iterable[int]) -> list[int]:
    """Chooses these ids as the engine does, forced ones between them. Returns all of them."""
    accepted = []
    for token_id in ids:
        assert allows_id(constraint, token_id), token_id
        constraint.accept(token_id)
        accepted.append(token_id)
        for forced in constraint.forced():
            constraint.accept(forced)
            accepted.append(forced)
    return accepted


def write(constraint: Constraint, tokenizer: Tokenizer, text: str) -> str:
    return tokenizer.decode(accept(constraint, tokenizer.encode(text)), skip_special_tokens=False)


def test_nothing_is_constrained_without_a_grammar_and_without_a_budget(
    compiler: GrammarCompiler,
) -> None:
    assert after_thoughts(None, QWEN, True, compiler) is None
    assert after_thoughts(None, None, False, compiler, budget=5) is None


def test_a_grammar_stays_as_it_is_where_no_thoughts_are_expected(
    compiler: GrammarCompiler,
) -> None:
    grammar = compiler.json_schema(PERSON)

    assert after_thoughts(grammar, None, False, compiler, budget=5) is grammar
    unmarked = Thinking(begin="", end="</think>")
    assert after_thoughts(grammar, unmarked, False, compiler) is grammar


@pytest.mark.parametrize(
    "thoughts", ["So, {1 < 2}?", "", "</thin", "<</think", "</ think>", "東京"]
)
def test_a_form_begins_after_the_thoughts_and_the_templates_white_space(
    compiler: GrammarCompiler, tokenizer: Tokenizer, thoughts: str
) -> None:
    constraint = made(compiler)

    text = write(constraint, tokenizer, f"{thoughts}\n</think>")
    assert text == f'{thoughts}\n</think>\n\n{{"name": "'
    rest = random_answer(constraint, tokenizer)

    assert rest.whole
    assert json.loads('{"name": "' + rest.text)["name"] in {"Ann", "Bob"}


def test_no_id_ends_an_answer_within_thoughts_that_a_form_follows(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler)
    for token_id in tokenizer.encode("So {1 <"):
        assert EOS not in allowed_ids(constraint)
        assert len(allowed_ids(constraint)) > VOCABULARY - 500
        accept(constraint, [token_id])
    assert not constraint.complete


def test_any_id_may_come_within_thoughts_and_after_them_where_only_a_budget_is_kept(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler, form=False, budget=100)
    for token_id in tokenizer.encode("So.\n</think>\n\nHello") * 2:
        assert constraint.allowed() is None
        assert constraint.forced() == []
        assert constraint.valid_prefix([token_id, token_id]) == 2
        constraint.accept(token_id)
    assert not constraint.ends_answer
    assert not constraint.complete


@pytest.mark.parametrize("form", [True, False])
@pytest.mark.parametrize("budget", [1, 2, 7])
def test_a_budget_ends_thoughts_after_so_many_tokens(
    compiler: GrammarCompiler, tokenizer: Tokenizer, budget: int, form: bool
) -> None:
    constraint = made(compiler, budget=budget, form=form)
    thoughts = tokenizer.encode("one two three four five six seven eight nine ten")[:budget]

    text = tokenizer.decode(accept(constraint, thoughts), skip_special_tokens=False)

    expected = tokenizer.decode(thoughts) + "\n</think>\n\n"
    assert text == expected + ('{"name": "' if form else "")
    free = tokenizer.encode("\n\n")
    assert constraint.valid_prefix(free) == (0 if form else len(free))


@pytest.mark.parametrize("form", [True, False])
def test_a_budget_of_nothing_ends_the_thoughts_of_the_prompt_at_once(
    compiler: GrammarCompiler, tokenizer: Tokenizer, form: bool
) -> None:
    constraint = made(compiler, budget=0, form=form)
    assert len(constraint.forced()) > 1
    (first,) = allowed_ids(constraint)

    text = tokenizer.decode(accept(constraint, [int(first)]), skip_special_tokens=False)

    assert text == "\n</think>\n\n" + ('{"name": "' if form else "")


@pytest.mark.parametrize("form", [True, False])
def test_thoughts_that_the_model_begins_and_a_budget_of_nothing_ends_are_as_in_the_template(
    compiler: GrammarCompiler, tokenizer: Tokenizer, form: bool
) -> None:
    constraint = made(compiler, thinks=False, budget=0, form=form)

    text = write(constraint, tokenizer, "<think>")

    assert text == "<think>\n\n</think>\n\n" + ('{"name": "' if form else "")


def test_a_budget_does_not_cut_a_character(compiler: GrammarCompiler, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("東京タワー🎉")
    for budget in range(1, len(ids)):
        constraint = made(compiler, budget=budget, form=False)
        written: list[int] = []
        while not constraint.forced():
            constraint.accept(ids[len(written)])
            written.append(ids[len(written)])
        assert budget <= len(written) < budget + 4
        assert "\ufffd" not in tokenizer.decode(written)


@pytest.mark.parametrize("thinking", [QWEN, TIGHT, Thinking("\n\n<think>\n", "\n</think>\n")])
def test_a_model_may_think_first_or_begin_the_form(
    compiler: GrammarCompiler, tokenizer: Tokenizer, thinking: Thinking
) -> None:
    constraint = made(compiler, thinks=False, thinking=thinking)
    first = {tokenizer.token_bytes[int(token_id)][:1] for token_id in allowed_ids(constraint)}
    assert first == {b"<", b"{"}

    write(constraint, tokenizer, "<think>Hm.</think>")
    thought = random_answer(constraint, tokenizer)
    constraint = made(compiler, thinks=False, thinking=thinking)
    direct = write(constraint, tokenizer, '{"') + random_answer(constraint, tokenizer).text

    assert thought.whole
    assert json.loads('{"name": "' + thought.text)["name"] in {"Ann", "Bob"}
    assert json.loads(direct)["name"] in {"Ann", "Bob"}


def test_white_space_may_come_before_thoughts_that_a_budget_counts(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler, thinks=False, budget=0, form=False)

    assert write(constraint, tokenizer, "\n <think>") == "\n <think>\n\n</think>\n\n"


def test_text_that_is_not_thoughts_is_free_of_a_budget(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    constraint = made(compiler, thinks=False, budget=0, form=False)

    assert write(constraint, tokenizer, "<thin> <think>") == "<thin> <think>"
    assert constraint.allowed() is None


@pytest.mark.parametrize("text", ["Hello.", "<thin> I", "\n<think>Call it.</think>I have"])
def test_a_model_that_may_call_tools_talks_or_thinks_first(
    compiler: GrammarCompiler, tokenizer: Tokenizer, text: str
) -> None:
    grammar = compile_tool_grammar(compiler, HERMES, [Tool("now")], ToolChoice())
    constraint = after_thoughts(grammar, TIGHT, False, compiler)
    assert constraint is not None

    assert write(constraint, tokenizer, text) == text
    assert EOS in allowed_ids(constraint)
    call = write(constraint, tokenizer, "<tool_call>")

    assert call.startswith('<tool_call>\n{"name": "now')


def test_each_choice_has_a_constraint_of_its_own(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    first = made(compiler, thinks=False, budget=3)
    second = first.copy()

    write(first, tokenizer, "<think>a b c")

    assert write(second, tokenizer, '{"') == '{"name": "'


def test_an_id_that_is_not_allowed_is_a_fault(
    compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    (other,) = tokenizer.encode("x")
    for constraint in (made(compiler, budget=0), made(compiler, thinks=False)):
        with pytest.raises(EngineFault, match="does not allow"):
            constraint.accept(other)


@pytest.fixture(scope="module")
def joined() -> GrammarCompiler:
    """A vocabulary in which the mark's last byte may have text after it, or white space."""
    backend = KINDS["byte_level"]()
    backend.add_tokens([">{", ">\n", ">\n\n", "> x", "</think>!", "nk>{", "</think>\n"])
    return GrammarCompiler(Tokenizer(backend), backend.get_vocab_size(), (0,))


def ids_of(compiler: GrammarCompiler, *tokens: str) -> list[int]:
    return [compiler.tokenizer.encode(token)[0] for token in tokens]


@pytest.mark.parametrize(
    ("written", "kept", "vetoed"),
    [
        ("So ", [">{", "> x", "nk>{", "</think>\n"], ["</think>!"]),
        ("So </thi", [">{", "> x"], ["nk>{", "</think>!"]),
        ("So </think", [">\n", ">\n\n", "nk>{"], [">{", "> x"]),
        ("So <</think", [">\n"], [">{"]),
    ],
)
def test_no_token_has_the_end_of_thoughts_and_text_of_the_form(
    joined: GrammarCompiler, written: str, kept: list[str], vetoed: list[str]
) -> None:
    constraint = made(joined)
    for token_id in joined.tokenizer.encode(written):
        constraint.accept(token_id)

    allowed = set(allowed_ids(constraint).tolist())

    assert allowed >= set(ids_of(joined, *kept))
    assert not allowed & {0, *ids_of(joined, *vetoed)}


@pytest.mark.parametrize(
    ("token", "following"),
    [(">\n\n", "{"), (">\n", "\n{"), ("> x", None)],
)
def test_white_space_that_a_token_has_after_the_mark_does_not_come_again(
    joined: GrammarCompiler, token: str, following: str | None
) -> None:
    constraint = made(joined, form=following is not None, budget=50)
    for token_id in joined.tokenizer.encode("</think"):
        constraint.accept(token_id)
    constraint.accept(*ids_of(joined, token))

    text = joined.tokenizer.decode(constraint.forced())

    assert text.startswith(following) if following else not text


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace"])
def test_marks_are_written_within_a_text_whatever_the_tokenizer(kind: str) -> None:
    backend = KINDS[kind]()
    backend.add_tokens(["</think>"])
    tokenizer = Tokenizer(backend)
    marks = ThinkingMarks(tokenizer, backend.get_vocab_size(), (0,), "<think>", "</think> the")

    written = b"".join(tokenizer.token_bytes[token_id] for token_id in marks.closing(True))

    assert written == b"</think> the"


@pytest.mark.parametrize("thinks", [True, False])
@given(
    pieces=st.lists(st.sampled_from(["<", "</think", ">", "think", "</", "\n", "{", "é", "🎉"])),
    budget=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_whatever_is_thought_a_whole_form_follows(
    joined: GrammarCompiler, pieces: list[str], budget: int, thinks: bool, seed: int
) -> None:
    constraint = made(joined, thinks=thinks, budget=budget)
    tokenizer = joined.tokenizer
    ids: list[int] = []
    for token_id in tokenizer.encode(("" if thinks else "<think>") + "".join(pieces)):
        if not allows_id(constraint, token_id):
            break
        ids += accept(constraint, [token_id])
    answer = random_answer(constraint, tokenizer, seed, eos_token_id=0)
    text = tokenizer.decode([*ids, *answer.ids], skip_special_tokens=False)

    assert answer.whole
    assert json.loads(text.rpartition("</think>")[2])["name"] in {"Ann", "Bob"}


def test_a_mask_is_as_wide_as_the_logits(compiler: GrammarCompiler) -> None:
    for constraint in (made(compiler), made(compiler, budget=0), made(compiler, thinks=False)):
        mask = constraint.allowed()
        assert mask is not None
        assert mask.dtype == np.uint32
        assert mask.shape == (-(-LOGITS // 32),)
