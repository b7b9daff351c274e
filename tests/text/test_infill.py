from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.text.infill import KNOWN_MARKS, InfillFormat, InfillMarks
from handlers.text.tokenizer import Tokenizer
from tests.support.infill_tokenizers import QWEN, with_marks
from tests.support.tiny_tokenizers import END_OF_TEXT, VOCABULARY, tiny_tokenizer

PRE, SUF, MID, PAD, REPO, SEP = QWEN
TOKENIZER = Tokenizer(with_marks(tiny_tokenizer(), QWEN))


def form(*marks: str) -> InfillFormat | None:
    tokenizer = Tokenizer(with_marks(tiny_tokenizer(), marks)) if marks else TOKENIZER
    return InfillFormat.of(tokenizer, VOCABULARY)


QWENS = form()
assert QWENS is not None


@pytest.mark.parametrize("marks", KNOWN_MARKS)
def test_the_marks_of_each_kind_are_found(marks: InfillMarks) -> None:
    names = list(filter(None, (marks.prefix, marks.suffix, marks.middle)))
    found = form(*names)
    assert found is not None
    assert found.marks == marks
    parts = [f"{marks.prefix}a", f"{marks.suffix}b"]
    text = "".join(parts[::-1] if marks.suffix_first else parts) + marks.middle
    assert found.prompt("a", "b").text == text
    assert not found.prompt("a", "b").breaks


def test_a_tokenizer_without_all_marks_has_no_format() -> None:
    assert InfillFormat.of(Tokenizer(tiny_tokenizer()), VOCABULARY) is None
    assert form(PRE, SUF) is None
    assert form("[SUFFIX]", "[INST]") is None
    assert form(PRE, SUF, "<fim_middle>") is None
    beyond_the_logits = InfillFormat.of(TOKENIZER, VOCABULARY - 4)
    assert beyond_the_logits is None


def test_marks_and_ends_of_text_end_an_answer() -> None:
    assert QWENS is not None
    assert QWENS.ends == {END_OF_TEXT, *(VOCABULARY - 6 + number for number in range(6))}


def test_other_files_stand_before_the_text() -> None:
    assert QWENS is not None
    prompt = QWENS.prompt("a", "b", [("one.py", "1\n"), ("tmp", "2")])
    assert prompt.text == (
        f"{REPO}myproject\n{SEP}one.py\n1\n{SEP}tmp\n2{SEP}filename\n{PRE}a{SUF}b{MID}"
    )


def test_other_files_are_snippets_where_there_is_no_mark_for_them() -> None:
    found = form(PRE, SUF, MID)
    assert found is not None
    snippet = "\n\n--- snippet ---\n\n"
    assert found.prompt("a", "b", [("x", "1")]).text == f"{snippet}1{PRE}a{SUF}b{MID}"


PIECES = [*QWEN, "<|im_end|>", "<|", "fim_", "middle|>", "a "]
TEXTS = st.lists(st.sampled_from(PIECES)).map("".join)


@given(TEXTS, TEXTS, st.lists(st.tuples(TEXTS, TEXTS), max_size=2))
def test_no_text_is_a_mark(prefix: str, suffix: str, files: list[tuple[str, str]]) -> None:
    assert QWENS is not None
    prompt = QWENS.prompt(prefix, suffix, files)
    ids = TOKENIZER.encode(prompt.text, breaks=prompt.breaks)
    own = [REPO, *[SEP] * (len(files) + 1)] if files else []
    marks = [token_id for token_id in ids if token_id in QWENS.ends | {2}]
    assert marks == [TOKENIZER.added_ids[mark] for mark in (*own, PRE, SUF, MID)]
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == prompt.text
