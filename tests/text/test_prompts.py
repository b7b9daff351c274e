from __future__ import annotations

import pytest

from handlers.errors import ContextLengthExceeded, InvalidRequest
from handlers.text.tokenizer import PromptEncoder, Tokenizer
from tests.support.tokenizer_kinds import byte_level

TOKENIZER = Tokenizer(byte_level())


@pytest.mark.parametrize("prompt", ["", "half \ud800", "null \0"])
def test_a_prompt_that_cannot_be_read_names_its_field(prompt: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        PromptEncoder(TOKENIZER, 256).encode(prompt, param="prompt")

    assert refused.value.param == "prompt"


def test_a_prompt_that_cannot_fit_is_refused_without_being_read() -> None:
    class Unread(Tokenizer):
        def encode(self, *_: object) -> list[int]:
            raise AssertionError("read")

    reader = PromptEncoder(Unread(byte_level()), 256)

    with pytest.raises(ContextLengthExceeded, match="1,000,000 characters"):
        reader.encode("x" * 1_000_000, param="messages")
