"""Runs llama.cpp's converter on a folder whose tokenizer it does not know.

    python -m bench.peers.llama_convert TREE [--vocabulary FILE.gguf] FOLDER --outfile FILE ...

The converter knows a vocabulary by its architecture and by a hash of what its tokenizer does, which
that of bench.random_model does not meet, and neither does one that was read out of a GGUF file. So
decoders are given the vocabulary of the file that is named, or else the way of SmolLM2's own; all
the rest is the converter's, in the tree of llama.cpp that TREE names.
"""

from __future__ import annotations

import argparse
import importlib
import runpy
import sys
from collections.abc import Callable
from functools import partial
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


def with_vocabulary_of(path: str, find: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps the look-up, so that a model gets the vocabulary of a GGUF file as it is there."""

    def found(*arguments: Any, **options: Any) -> Any:
        converter = find(*arguments, **options)
        converter.set_vocab = lambda model: _copy_vocabulary(path, model.gguf_writer)
        return converter

    return found


def _copy_vocabulary(path: str, writer: Any) -> None:
    gguf: Any = importlib.import_module("gguf")
    for field in gguf.GGUFReader(path).fields.values():
        if field.name.startswith("tokenizer."):
            kind, *inner = field.types
            writer.add_key_value(field.name, field.contents(), kind, *inner[:1])


def main() -> None:
    """Reads what is ours off the command line, and leaves the rest to the converter."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("tree")
    parser.add_argument("--vocabulary")
    options, sys.argv[1:] = parser.parse_known_args()
    sys.path[:0] = [options.tree, f"{options.tree}/gguf-py"]
    conversion: Any = importlib.import_module("conversion")
    wrap = with_own_vocabulary
    if options.vocabulary:
        wrap = partial(with_vocabulary_of, options.vocabulary)
    conversion.get_model_class = wrap(conversion.get_model_class)
    runpy.run_path(f"{options.tree}/convert_hf_to_gguf.py", run_name="__main__")


if __name__ == "__main__":
    main()
