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

from handlers.api.inline import run_inline
from handlers.api.messages import Request
from handlers.errors import StartupError
from handlers.lambda_call import joined
from handlers.log import LOGGER, first_is_warm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.engine.artifact import Task
    from handlers.startup import Service

# Sampled, since a greedy answer leaves out what most requests run through.
SAMPLED = {"max_tokens": 8, "ignore_eos": True, "temperature": 1.0, "top_p": 0.9}
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}

# The cheapest request of each task that computes with all weights. A chat besides a completion: it
# also copies a baked prefix, and a model without a template answers it 400.
PRIMING: Mapping[Task, Mapping[str, Mapping[str, Any]]] = {
    "text-generation": {
        "/v1/completions": {"prompt": "Hello", **SAMPLED},
        "/v1/chat/completions": {**HELLO, **SAMPLED},
    },
    "feature-extraction": {"/v1/embeddings": {"input": "Hello"}},
    "text-classification": {"/v1/classify": {"input": "Hello"}},
    "text-ranking": {"/v1/rerank": {"query": "Hello", "documents": ["Hello"]}},
}


def prime(service: Service) -> None:
    """Answers the task's requests, which nobody has sent. Raises StartupError where it cannot.

    Before the engine has a thread: this one turns the crank.
    """
    started = time.monotonic()
    statuses = [_answer(service, path, body) for path, body in PRIMING[service.api.task].items()]
    if 200 not in statuses:
        raise StartupError(f"The model does not answer: its first requests got {statuses}.")
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
    return run_inline(_status(service, request))


async def _status(service: Service, request: Request) -> int:
    return (await joined(await service.api.handle(request))).status
