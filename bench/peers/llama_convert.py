"""Runs llama.cpp's converter on a folder whose weights are random.

    python -m bench.peers.llama_convert TREE FOLDER --outfile FILE ...

The converter knows a vocabulary by its architecture and by a hash of what its tokenizer does, which
that of bench.random_model does not meet. So decoders are given the way of their own vocabulary,
SmolLM2's; all else is the converter's, in the tree of llama.cpp that TREE names.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable
from typing import Any

PRE_TOKENIZER = "smollm"
"""llama.cpp's name for the way in which SmolLM2's texts are split."""


def with_own_vocabulary(find: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the converter's look-up of an architecture's class."""

    def found(*arguments: Any, **options: Any) -> Any:
        converter = find(*arguments, **options)
        if not converter.__module__.endswith(".bert"):
            converter.set_vocab = lambda model: model._set_vocab_gpt2()  # noqa: SLF001
            converter.get_vocab_base_pre = lambda _model, _tokenizer: PRE_TOKENIZER
        return converter

    return found


if __name__ == "__main__":
    tree = sys.argv.pop(1)
    sys.path[:0] = [tree, f"{tree}/gguf-py"]
    conversion: Any = importlib.import_module("conversion")
    conversion.get_model_class = with_own_vocabulary(conversion.get_model_class)
    runpy.run_path(f"{tree}/convert_hf_to_gguf.py", run_name="__main__")
