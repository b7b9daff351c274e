from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from handlers.artifact.dialect import Dialect, LiteralArguments, Thinking, ToolFormat
from handlers.errors import ArtifactError, EngineFault, InvalidRequest
from handlers.text.detokenizer import IncrementalDetokenizer
from handlers.text.tokenizer import Tokenizer
from tests.support.tokenizer_kinds import END, KINDS, byte_level

TOKENIZERS = {name: make() for name, make in KINDS.items()}
every_kind = pytest.mark.parametrize("kind", TOKENIZERS)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    decoder = tokenizer.detokenizer()
    return [*(decoder.push(token_id) for token_id in ids), decoder.flush()]


@every_kind
@given(data=st.data())
def test_pieces_of_any_ids_join_to_the_text_of_all_ids(kind: str, data: st.DataObject) -> None:
    backend = TOKENIZERS[kind]
    any_id = st.integers(0, backend.get_vocab_size() - 1)
    ids = data.draw(st.lists(any_id, max_size=60))

    tokenizer = Tokenizer(backend)

    assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@given(text=st.text(max_size=60))
def test_no_piece_of_a_text_ends_within_a_character(kind: str, text: str) -> None:
    tokenizer = Tokenizer(TOKENIZERS[kind])
    ids = tokenizer.encode(text)

    received = pieces(tokenizer, ids)

    assert "".join(received) == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(received)


@given(text=st.text(max_size=60))
def test_a_byte_level_text_comes_back_as_it_was(text: str) -> None:
    tokenizer = Tokenizer(TOKENIZERS["byte_level"])

    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_character_of_four_tokens_leaves_with_its_last_one() -> None:
    tokenizer = Tokenizer(TOKENIZERS["byte_level"])
    ids = tokenizer.encode("🦊")
    assert len(ids) > 1

    assert pieces(tokenizer, ids) == [""] * (len(ids) - 1) + ["🦊", ""]


def test_plain_words_leave_at_once() -> None:
    tokenizer = Tokenizer(TOKENIZERS["byte_level"])

    received = pieces(tokenizer, tokenizer.encode("The lazy dog"))

    assert all(received[:-1])
    assert received[-1] == ""


def test_a_character_cut_short_is_a_replacement_character_at_the_end() -> None:
    tokenizer = Tokenizer(TOKENIZERS["byte_level"])

    assert pieces(tokenizer, tokenizer.encode("🦊")[:2])[-1] == "\ufffd"


@every_kind
def test_special_tokens_have_no_text_and_leave_their_neighbours_alone(kind: str) -> None:
    tokenizer = Tokenizer(TOKENIZERS[kind])
    end = TOKENIZERS[kind].token_to_id(END)
    words, more = tokenizer.encode("the dog"), tokenizer.encode("a fox")

    joined = "".join(pieces(tokenizer, [*words, end, *more, end]))

    assert joined == tokenizer.decode(words + more)


def test_the_cost_of_an_id_is_constant_even_for_bytes_that_are_no_text() -> None:
    tokenizer = Tokenizer(TOKENIZERS["byte_level"])
    decoded = 0

    def decode(ids: list[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return tokenizer.decode(ids)

    stray_byte = tokenizer.encode("é")[-1]
    decoder = IncrementalDetokenizer(decode, frozenset(), frozenset())
    for _ in range(4096):
        decoder.push(stray_byte)
    decoder.flush()

    assert decoded <= 5 * 4096


def test_a_special_token_in_the_text_becomes_its_id() -> None:
    tokenizer = Tokenizer(TOKENIZERS["byte_level"])

    assert TOKENIZERS["byte_level"].token_to_id(END) in tokenizer.encode(f"the end{END}")


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="surrogate pair at character 2"):
        Tokenizer(TOKENIZERS["byte_level"]).encode("ab\ud83d")


def test_a_null_character_is_text_like_any_other() -> None:
    tokenizer = Tokenizer(TOKENIZERS["byte_level"])

    assert tokenizer.decode(tokenizer.encode("a\0b")) == "a\0b"


def test_training_settings_in_the_file_neither_cut_nor_pad_a_prompt(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer.from_str(TOKENIZERS["byte_level"].to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=100)
    backend.save(str(tmp_path / "tokenizer.json"))

    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")

    assert tokenizer.decode(tokenizer.encode("The lazy dog")) == "The lazy dog"
    assert len(tokenizer.encode("The lazy dog")) < 100


@pytest.mark.parametrize("content", [None, "", "{}", '{"model": 5}'])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ArtifactError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.load(path)


@given(text=st.text(max_size=200))
def test_ids_times_the_longest_token_are_no_less_than_the_characters(text: str) -> None:
    tokenizer = Tokenizer(TOKENIZERS["byte_level"])

    assert len(tokenizer.encode(text)) * tokenizer.longest_token >= len(text)


def test_marks_of_the_dialect_are_text_also_where_they_are_special_tokens() -> None:
    marks = ["<|think|>", "<|/think|>", "<|call|>", '<|"|>', "<|text|>", "<|other|>"]
    backend = tokenizers.Tokenizer.from_str(TOKENIZERS["byte_level"].to_str())
    backend.add_special_tokens([tokenizers.AddedToken(mark, special=True) for mark in marks])
    tools = ToolFormat(
        trigger="<|call|>",
        begin="<|call|>[",
        call=("", "name", "(", "arguments", ")"),
        separator=None,
        end="]",
        arguments=LiteralArguments("=", ",", '<|"|>', ":", quoted_keys=True),
    )
    dialect = Dialect(tools, Thinking("\n<|think|>\n", "<|/think|>"), text=("<|text|>", ""))

    tokenizer = Tokenizer(backend, dialect)

    detokenizer = tokenizer.detokenizer()
    text = "".join(map(detokenizer.push, tokenizer.encode("".join(marks) + END)))
    assert text + detokenizer.flush() == "".join(marks[:-1])


def test_the_marker_of_a_tool_call_is_text_also_where_it_is_a_special_token() -> None:
    backend = byte_level()
    backend.add_special_tokens([tokenizers.AddedToken("[TOOL_CALLS]", special=True)])
    tokenizer = Tokenizer(backend)
    decoder = tokenizer.detokenizer()
    ids = tokenizer.encode(f'[TOOL_CALLS][{{"name"{END}')

    text = "".join(map(decoder.push, ids)) + decoder.flush()

    assert text == '[TOOL_CALLS][{"name"'


class Panic(BaseException):
    """As pyo3 raises Rust's panics: no Exception."""


class PanickingBackend:
    """Panics in Rust in every method."""

    def no_truncation(self) -> None: ...

    def no_padding(self) -> None: ...

    def __getattr__(self, _: str) -> Callable[..., NoReturn]:
        def panic(*_: object, **__: object) -> NoReturn:
            raise Panic("index out of bounds")

        return panic


@pytest.mark.parametrize(
    "use",
    [
        lambda tokenizer: tokenizer.encode("a"),
        lambda tokenizer: tokenizer.encode_all(["a"]),
        lambda tokenizer: tokenizer.encode_truncated(("a", "b"), 3),
        lambda tokenizer: tokenizer.beginning("a", 1),
        lambda tokenizer: tokenizer.decode([1]),
        lambda tokenizer: tokenizer.token_strings([1]),
        lambda tokenizer: tokenizer.token_bytes._after_another(1),
    ],
)
def test_a_panic_is_an_error_of_the_request_whose_text_it_was(
    use: Callable[[Tokenizer], object],
) -> None:
    with pytest.raises(EngineFault, match="panicked: index out of bounds"):
        use(Tokenizer(PanickingBackend()))


def test_a_tokenizer_whose_file_panics_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizers, "Tokenizer", PanickingBackend())
    with pytest.raises(ArtifactError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path / "tokenizer.json")
