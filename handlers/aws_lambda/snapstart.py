"""Prepares a process that no request waits for: with SnapStart, or provisioned concurrency.

Before the first request, or before the snapshot, the model answers a few requests of our own: then
its weights are in memory, and all modules that a first request would import are loaded.
"""

from __future__ import annotations

import gc
import random
import time
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.api.http import Request, run_sync
from handlers.aws_lambda.invocation import read_whole
from handlers.errors import StartupError
from handlers.log import LOGGER, mark_warm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.artifact.manifest import Task
    from handlers.startup import Service

# Sampled, since most requests are, and a greedy answer runs less of the code.
SAMPLED = {"max_tokens": 8, "ignore_eos": True, "temperature": 1.0, "top_p": 0.9}
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}

# The first grammar of a process costs 0.3 s of processor time, mostly for its vocabulary.
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "number", "schema": NUMBER}}

# The cheapest requests of each task that compute with all weights and import what its endpoints
# need. A chat as well as a completion, since it also copies a baked prefix.
PRIMING: Mapping[Task, Sequence[tuple[str, Mapping[str, Any]]]] = {
    "text-generation": (
        ("/v1/completions", {"prompt": "Hello", **SAMPLED}),
        ("/v1/chat/completions", {**HELLO, **SAMPLED}),
        ("/v1/chat/completions", {**HELLO, "max_tokens": 1, "response_format": SCHEMA}),
        ("/v1/responses", {"input": "Hello", "max_output_tokens": 1}),
    ),
    "feature-extraction": (("/v1/embeddings", {"input": "Hello"}),),
    "text-classification": (("/v1/classify", {"input": "Hello"}),),
    "text-ranking": (("/v1/rerank", {"query": "Hello", "documents": ["Hello"]}),),
}
# A model without a chat template answers these 400.
NEED_A_TEMPLATE = ("/v1/chat/completions", "/v1/responses")


def prime(service: Service) -> None:
    """Answers the task's priming requests. Raises StartupError where the model cannot.

    Runs before the engine has a thread of its own, so the calling thread computes.
    """
    started = time.monotonic()
    for path, body in PRIMING[service.api.task]:
        status = _answer(service, path, body)
        if status != 200 and not (status == 400 and path in NEED_A_TEMPLATE):
            raise StartupError(f"The model does not answer: its first {path} got {status}.")
    # What this has made stays: looking for garbage would fetch all its pages from the snapshot.
    gc.collect()
    gc.freeze()
    ms = round((time.monotonic() - started) * 1000, 1)
    LOGGER.info("primed", extra={"fields": {"ms": ms}})
    if not service.settings.snap_start:
        mark_warm()


def after_restore(service: Service) -> None:
    """Prepares a copy of the process, restored from its snapshot, for its first request.

    Sampling needs nothing: each request without a seed takes one from the kernel, which draws anew
    after a restore (https://docs.aws.amazon.com/lambda/latest/dg/snapstart-uniqueness.html), and
    so do the ids of answers. Python's shared generator is for packages that may use it.
    """
    random.seed()
    service.api.reset_uptime()
    LOGGER.info("restored")


def _answer(service: Service, path: str, body: Mapping[str, Any]) -> int:
    headers = {"authorization": f"Bearer {service.settings.api_key}"}
    request = Request("POST", path, {}, headers, msgspec.json.encode(body))
    return run_sync(_status(service, request))


async def _status(service: Service, request: Request) -> int:
    return (await read_whole(await service.api.handle(request))).status
