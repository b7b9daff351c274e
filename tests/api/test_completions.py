from __future__ import annotations

import tokenizers
from tokenizers import processors

from handlers.text.tokenizer import PromptEncoder, Tokenizer
from tests.api.client import FINGERPRINT, TOKENIZER, Client, saying, usage
from tests.support.tokenizer_kinds import END, byte_level

PATH = "/v1/completions"


def test_the_answer_has_openais_shape() -> None:
    engine = saying("upon a time")

    body = Client(engine).json("POST", PATH, {"prompt": "Once", "max_tokens": 50})

    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created") > 1_700_000_000
    prompt, completion = len(engine.prompt_ids), len(TOKENIZER.encode("upon a time"))
    assert body == {
        "object": "text_completion",
        "model": "Tiny",
        "system_fingerprint": FINGERPRINT,
        "choices": [{"index": 0, "text": "upon a time", "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(prompt, completion),
    }


def test_the_prompt_is_all_that_the_model_sees() -> None:
    engine = saying("")

    Client(engine).json("POST", PATH, {"prompt": "Once"})

    assert TOKENIZER.decode(engine.prompt_ids) == "Once"


def test_a_bare_text_gets_the_special_tokens_that_its_model_expects() -> None:
    backend: tokenizers.Tokenizer = byte_level()
    end = backend.token_to_id(END)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", special_tokens=[(END, end)]
    )
    reader = PromptEncoder(Tokenizer(backend), 256)

    bare = reader.encode("Once", param="prompt", add_special_tokens=True)

    assert bare == [end, *reader.encode("Once", param="prompt")]
