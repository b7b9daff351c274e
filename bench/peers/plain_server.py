"""FastAPI, transformers and torch, or ONNX Runtime in torch's place, by optimum.

What a good tutorial arrives at: the model is loaded once, before the port opens; answers stream
token by token; each request generates in a thread of its own, beside the event loop. (A lock around
generation would hold all streams together to the speed of one.)

    PEER_MODEL=DIRECTORY PEER_TOKENIZER=DIRECTORY OMP_NUM_THREADS=2 \
        python -m uvicorn bench.peers.plain_server:app

A PEER_MODEL with a file of ONNX in it is run by ORTModelForCausalLM. Exporters write
another tokenizer beside it, one that adds a beginning token which the model never saw: this one
comes from the model's own directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast
from transformers.generation.streamers import BaseStreamer

from bench.peers.completions import application


class TokenQueue(BaseStreamer):
    """Hands each id over as it is generated; None ends it."""

    def __init__(self) -> None:
        self.ids: SimpleQueue[int | None] = SimpleQueue()
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """generate() calls it with the prompt's ids first, then with each new one."""
        if not self._is_prompt:
            self.ids.put(int(value))
        self._is_prompt = False

    def end(self) -> None:
        """generate() has finished."""
        self.ids.put(None)


class Transformers:
    """transformers' own loop and its own cache."""

    def __init__(self, directory: Path, tokenizer: Path, threads: int) -> None:
        # Not AutoTokenizer: its Llama class would add that beginning token, too.
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer)
        on_onnx = any(directory.glob("*.onnx"))
        self._model = _onnx_model(directory, threads) if on_onnx else _torch_model(directory)

    def encode(self, text: str) -> list[int]:
        """The prompt's ids."""
        ids: list[int] = self._tokenizer.encode(text)
        return ids

    def decode(self, token: int) -> str:
        """One id's text."""
        return str(self._tokenizer.decode([token]))

    def generate(self, ids: list[int], max_tokens: int, ignore_eos: bool) -> Iterator[int]:
        """Generates in a thread of its own."""
        tokens = TokenQueue()
        least = max_tokens if ignore_eos else None
        arguments = (torch.tensor([ids]), max_tokens, least, tokens)
        Thread(target=self._generate, args=arguments, daemon=True).start()
        yield from iter(tokens.ids.get, None)

    def _generate(
        self, ids: torch.Tensor, most: int, least: int | None, tokens: TokenQueue
    ) -> None:
        try:
            self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                min_new_tokens=least,
                do_sample=False,
                pad_token_id=self._tokenizer.eos_token_id,
                streamer=tokens,
            )
        finally:
            tokens.end()  # once more: an error must not leave the client waiting


def _torch_model(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def _onnx_model(directory: Path, threads: int) -> Any:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForCausalLM

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return ORTModelForCausalLM.from_pretrained(directory, session_options=options)


THREADS = int(os.environ["OMP_NUM_THREADS"])
torch.set_num_threads(THREADS)
DIRECTORIES = Path(os.environ["PEER_MODEL"]), Path(os.environ["PEER_TOKENIZER"])
app = application(Transformers(*DIRECTORIES, THREADS))
