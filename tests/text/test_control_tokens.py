from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from handlers.text.control_tokens import ControlTokens
from handlers.text.tokenizer import Tokenizer
from tests.support.tokenizer_kinds import END, KINDS

NAMES = {"<|im_end|>": True, "<a>": True, "<a>b": True, "<<a>": True, "aXa": True, "<n12>": True}
TOKENS = ControlTokens(NAMES)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("plain < text > |im_end|>", []),
        ("x<|im_end|>y<|im_end|>", ["<|im_end|>", "<|im_end|>"]),
        ("<a>b", ["<a>b"]),
        ("<<a>", ["<<a>", "<a>"]),
        ("aXaXa", ["aXa", "aXa"]),
        ("<n12><n13><n1>", ["<n12>"]),
        ("<|im_end<|im_end|>|>", ["<|im_end|>"]),
    ],
)
def test_names_are_found_wherever_they_stand(text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in TOKENS.find(text)] == found
    assert TOKENS.occurs_in(text) == bool(found)


@given(st.text(st.sampled_from("<|im_end>abX n123"), max_size=30))
def test_no_name_is_missed(text: str) -> None:
    starts = [
        start for start in range(len(text)) if any(text.startswith(name, start) for name in NAMES)
    ]
    assert [start for start, _ in TOKENS.find(text)] == starts


def test_added_tokens_that_are_not_special_count_where_the_models_own_prompt_has_them() -> None:
    added = {"<think>": False, "<table>": False, "  ": False, "user": False, "<s>": True, "|": True}
    tokens = ControlTokens(added, "<think>  user | {{ messages }}")
    assert tokens.names == {"<think>", "<s>"}
    assert not ControlTokens({}).occurs_in("<s>")


def test_six_thousand_numbered_names_are_one_pattern() -> None:
    tokens = ControlTokens({f"<unused{number}>": True for number in range(6242)})
    assert tokens.shapes == {"<unused0>"}
    assert tokens.occurs_in("<unused6241>")
    assert not tokens.occurs_in("<unused6242><unused>")


def test_a_number_of_any_length_is_looked_at_in_time_in_proportion_to_it() -> None:
    tokens = ControlTokens({f"<unused{number}>": True for number in range(10)})
    begun = time.thread_time()

    assert not tokens.occurs_in(f"<unused{'1' * 300_000}>")
    assert time.thread_time() - begun < 1


@pytest.mark.parametrize(
    ("parts", "breaks"),
    [
        (["", "<a>", "<a>"], [1]),
        (["<|im", "_end|>"], [4]),
        (["<|im", "_end", "|>"], [4]),
        (["", "<", "a>"], [1]),
        (["<a>", "b", ""], [3]),
        (["<a>", "x", "<a>", "<<a>", "<a>"], [8, 9]),
    ],
)
def test_a_name_is_broken_where_a_user_wrote_a_part_of_it(
    parts: list[str], breaks: list[int]
) -> None:
    """Every second part is the user's."""
    ends = [sum(map(len, parts[: number + 1])) for number in range(len(parts))]
    users = list(zip(ends[::2], ends[1::2], strict=False))
    assert TOKENS.breaks("".join(parts), users) == breaks


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_broken_names_are_text_for_every_kind_of_tokenizer(kind: str, data: st.DataObject) -> None:
    backend = KINDS[kind]()
    backend.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer = Tokenizer(backend)
    tokens = ControlTokens(tokenizer.added_tokens)
    names = st.sampled_from([END, "<|im_end|>", "the ", "a", " ", "é", "<|", "\ue000", "."])
    text = "".join(data.draw(st.lists(names, max_size=8)))
    ids = tokenizer.encode(text, breaks=tokens.breaks(text, [(0, len(text))]))
    assert not {tokenizer.encode(name)[0] for name in (END, "<|im_end|>")} & {*ids}
    if kind == "byte_level":
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "metaspace"])
def test_a_break_adds_no_space(kind: str) -> None:
    tokenizer = Tokenizer(KINDS[kind]())
    ids = tokenizer.encode("over the lazy dog", breaks=[7, 12])
    assert tokenizer.decode(ids).replace(" ", "") == tokenizer.decode(
        tokenizer.encode("over the lazy dog")
    ).replace(" ", "")
    assert tokenizer.decode(ids).count(" ") == 3
