"""onnxruntime-genai behind the same few lines of FastAPI as the plain server.

    PEER_MODEL=DIRECTORY PEER_TOKENIZER=DIRECTORY PEER_THREADS=2 \
        python -m uvicorn bench.peers.genai_server:app

The tokenizer is the `tokenizers` package's on the plain server's file: genai's own, 0.15.2, encodes
this model's spaces as -1, and its builder writes a file that adds a beginning token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import onnxruntime_genai
from tokenizers import Tokenizer

from bench.peers.completions import application


class GenAI:
    """One generator at a time: its own loop knows of no other request."""

    def __init__(self, directory: Path, tokenizer: Path, threads: int) -> None:
        config = onnxruntime_genai.Config(str(directory))
        session = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        self._model = onnxruntime_genai.Model(config)
        self._tokenizer = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        self._turn = Lock()

    def encode(self, text: str) -> list[int]:
        """The prompt's ids."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def decode(self, token: int) -> str:
        """One id's text."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def generate(self, ids: list[int], max_tokens: int, ignore_eos: bool) -> Iterator[int]:
        """New ids, greedily."""
        length = len(ids) + max_tokens
        params = onnxruntime_genai.GeneratorParams(self._model)
        least = length if ignore_eos else 0
        params.set_search_options(max_length=length, min_length=least, do_sample=False)
        with self._turn:
            generator = onnxruntime_genai.Generator(self._model, params)
            generator.append_tokens(ids)
            while not generator.is_done():
                generator.generate_next_token()
                yield int(generator.get_next_tokens()[0])


DIRECTORIES = Path(os.environ["PEER_MODEL"]), Path(os.environ["PEER_TOKENIZER"])
app = application(GenAI(*DIRECTORIES, int(os.environ["PEER_THREADS"])))
