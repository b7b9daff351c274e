"""A start that comes before any request: with SnapStart, or with provisioned concurrency.

Nobody waits for it, so it runs a generation, after which the weights are in memory and everything
that a first request would import is there. Called by both runtimes.
"""

from __future__ import annotations

import gc
import random
import time
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.api.http import Request, run_sync
from handlers.aws_lambda.invocation import joined
from handlers.errors import StartupError
from handlers.log import LOGGER, first_is_warm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.artifact.manifest import Task
    from handlers.startup import Service

# Sampled, since a greedy answer leaves out what most requests run through.
SAMPLED = {"max_tokens": 8, "ignore_eos": True, "temperature": 1.0, "top_p": 0.9}
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}

# A grammar of its own: the first one costs 0.3 s of processor time, mostly the vocabulary's.
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "number", "schema": NUMBER}}

# The cheapest requests of each task that compute with all weights and import what its endpoints
# need. A chat besides a completion: it also copies a baked prefix.
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
    """Answers the task's requests, which nobody has sent. Raises StartupError where it cannot.

    Before the engine has a thread: this one turns the crank.
    """
    started = time.monotonic()
    for path, body in PRIMING[service.api.task]:
        status = _answer(service, path, body)
        if status != 200 and not (status == 400 and path in NEED_A_TEMPLATE):
            raise StartupError(f"The model does not answer: its first {path} got {status}.")
    # What it has made stays; to look for garbage would fetch all its pages from the snapshot.
    gc.collect()
    gc.freeze()
    ms = round((time.monotonic() - started) * 1000, 1)
    LOGGER.info("primed", extra={"fields": {"ms": ms}})
    if not service.settings.snap_start:
        first_is_warm()


def restored(service: Service) -> None:
    """What a copy of the process does before its first request.

    Sampling needs nothing: each request without a seed takes one from the kernel, which draws anew
    after a restore (https://docs.aws.amazon.com/lambda/latest/dg/snapstart-uniqueness.html), and
    so do the ids of answers. Python's shared generator is for packages that may use it.
    """
    random.seed()
    service.api.restored()
    LOGGER.info("restored")


def _answer(service: Service, path: str, body: Mapping[str, Any]) -> int:
    headers = {"authorization": f"Bearer {service.settings.api_key}"}
    request = Request("POST", path, {}, headers, msgspec.json.encode(body))
    return run_sync(_status(service, request))


async def _status(service: Service, request: Request) -> int:
    return (await joined(await service.api.handle(request))).status
