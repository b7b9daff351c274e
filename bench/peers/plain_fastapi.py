"""The plain way to serve a language model: FastAPI, transformers and torch, in fp32.

What a good tutorial arrives at: the model is loaded once, before the port opens; answers stream
token by token; each request generates in a thread of its own, beside the event loop. (A lock around
generation would hold all streams together to the speed of one.) It speaks just enough of
/v1/completions to be sent the very requests that Kindling is sent.

Where tutorials lose time without need, this does not: transformers' TextIteratorStreamer holds
text back until a word ends, so ids are decoded one by one here, as soon as they are there.

    PLAIN_MODEL=build/bench/plain python -m uvicorn bench.peers.plain_fastapi:app
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from queue import SimpleQueue
from threading import Thread

import torch
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.generation.streamers import BaseStreamer

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
directory = os.environ["PLAIN_MODEL"]
# Not AutoTokenizer: its Llama class would add a beginning token that this model never saw.
tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
app = FastAPI()


class Completion(BaseModel):
    """The fields of a completion request that the benchmark sends."""

    prompt: str
    max_tokens: int
    ignore_eos: bool = False


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


@app.post("/v1/completions")
def complete(request: Completion) -> StreamingResponse:
    """Streams OpenAI's events."""
    return StreamingResponse(events(request), media_type="text/event-stream")


def events(request: Completion) -> Iterator[str]:
    """One event a token, then the count of both sides."""
    inputs = tokenizer(request.prompt, return_tensors="pt", return_token_type_ids=False)
    tokens = TokenQueue()
    Thread(target=generate, args=(inputs, request, tokens), daemon=True).start()
    usage = {"prompt_tokens": inputs["input_ids"].shape[1], "completion_tokens": 0}
    for token in iter(tokens.ids.get, None):
        usage["completion_tokens"] += 1
        yield event(choices=[{"text": tokenizer.decode([token])}])
    yield event(choices=[], usage=usage)
    yield "data: [DONE]\n\n"


def generate(inputs: dict[str, torch.Tensor], request: Completion, tokens: TokenQueue) -> None:
    """Greedy, with transformers' own loop and its own cache."""
    try:
        model.generate(
            **inputs,
            max_new_tokens=request.max_tokens,
            min_new_tokens=request.max_tokens if request.ignore_eos else None,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
            streamer=tokens,
        )
    finally:
        tokens.end()  # once more: an error must not leave the client waiting


def event(**body: object) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body)}\n\n"
