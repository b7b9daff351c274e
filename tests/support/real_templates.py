"""The chat templates of published models in llama.cpp's source, which `make test-needs` fetches.

They are under their models' licences, so none is copied here.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import AddedToken

from handlers.text.tokenizer import Tokenizer
from tests.support.tokenizer_kinds import byte_level

ROOT = Path(__file__).resolve().parent.parent.parent
_PATTERN = "build/bench/llama.cpp-*/source/vendor/llama.cpp/models/templates/*.jinja"
PATHS = {path.stem: path for path in sorted(ROOT.glob(_PATTERN))}

# DeepSeek's marks have a full-width line, U+FF5C, in them.
_MARKS = re.compile(
    "<[|/\uff5c]?[\\w:]+[|\uff5c]?>|<[|][^<>|'\"\\s]+[|]?>"
    "|\\[/?[A-Z_]{2,}\\]|<\uff5c[^<>'\"]+?\uff5c>"
)
CHATML = ("<|im_start|>", "<|im_end|>", "<s>", "</s>")


def tokenizer_for(source: str) -> Tokenizer:
    """Returns a tokenizer with a token for each mark in a template, those of tools not special."""
    backend = byte_level()
    marks = sorted({*_MARKS.findall(source), *CHATML})
    plain = re.compile("</?(think|tool)")
    backend.add_tokens([AddedToken(mark, special=not plain.match(mark)) for mark in marks])
    return Tokenizer(backend)
