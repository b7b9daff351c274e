"""The bytes of a token on its own, for every way in which a tokenizer spells them."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.params import Logprobs
from handlers.text.logprobs import prompt_logprobs, token_logprob
from handlers.text.tokenizer import Tokenizer
from tests.support.tokenizer_kinds import END, KINDS

TOKENIZERS = {name: Tokenizer(make()) for name, make in KINDS.items()}
BYTE_LEVEL = TOKENIZERS["byte_level"]
every_kind = pytest.mark.parametrize("kind", TOKENIZERS)


def bytes_of(tokenizer: Tokenizer, ids: list[int]) -> bytes:
    return b"".join(tokenizer.token_bytes[token_id] for token_id in ids)


@given(text=st.text(max_size=20))
def test_the_bytes_of_byte_level_tokens_join_to_the_text(text: str) -> None:
    assert bytes_of(BYTE_LEVEL, BYTE_LEVEL.encode(text)) == text.encode()


@every_kind
@pytest.mark.parametrize("text", ["the quick brown fox", "the dog"])
def test_the_bytes_of_every_kind_join_to_the_text_after_the_first_space(
    kind: str, text: str
) -> None:
    tokenizer = TOKENIZERS[kind]

    assert bytes_of(tokenizer, tokenizer.encode(text)).strip() == text.encode()


def test_a_byte_token_is_its_byte() -> None:
    tokenizer = TOKENIZERS["byte_fallback"]

    assert bytes_of(tokenizer, tokenizer.encode("🎉")) == b" " + "🎉".encode()


@every_kind
def test_a_special_token_is_what_it_spells(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]

    assert bytes_of(tokenizer, tokenizer.encode(END)).endswith(END.encode())


@every_kind
def test_an_id_that_only_the_model_has_is_empty(kind: str) -> None:
    assert TOKENIZERS[kind].token_bytes[10**6] == b""


def test_a_token_has_the_likeliest_beside_it_as_they_came() -> None:
    first, second = BYTE_LEVEL.encode("e"), BYTE_LEVEL.encode("a")

    token = token_logprob(BYTE_LEVEL, Logprobs(first[0], -1.0, ((second[0], -0.5),)), offset=7)

    assert (token.text, token.logprob, token.offset) == ("e", -1.0, 7)
    assert [(other.text, other.bytes, other.logprob) for other in token.top] == [("a", b"a", -0.5)]


@pytest.mark.parametrize("text", ["the quick fox", "é and 🎉", f"a {END} b", f"{END}", "The END."])
def test_a_prompts_tokens_begin_where_they_stand_in_it(text: str) -> None:
    ids = BYTE_LEVEL.encode(text)
    scored = [None, *(Logprobs(token_id, -1.0, ()) for token_id in ids[1:])]

    tokens = prompt_logprobs(BYTE_LEVEL, text, ids, scored)

    assert [token.logprob for token in tokens] == [None] + [-1.0] * (len(ids) - 1)
    for token in tokens:
        if "\ufffd" not in token.text:
            assert text.startswith(token.text, token.offset)


def test_a_special_token_that_was_put_around_a_prompt_takes_no_place() -> None:
    (end,) = BYTE_LEVEL.encode(END)
    ids = [end, *BYTE_LEVEL.encode("a b")]

    tokens = prompt_logprobs(BYTE_LEVEL, "a b", ids, [None] * len(ids))

    assert [token.offset for token in tokens] == [0, 0, *range(1, len(ids) - 1)]


def test_a_byte_level_token_outside_the_alphabet_is_the_text_that_it_decodes_to() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "Ġa": 1, "東": 2}, []))
    backend.decoder = tokenizers.decoders.ByteLevel()

    token_bytes = Tokenizer(backend).token_bytes

    assert [token_bytes[token_id] for token_id in range(3)] == [b"a", b" a", "東".encode()]
