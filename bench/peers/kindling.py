"""Kindling's two entries: the Cloud Run process, and the Lambda process behind a Runtime API."""

from __future__ import annotations

import os
from pathlib import Path

from bench.installed import Footprint, locked
from bench.peers.peer import Peer
from bench.prompts import MODEL
from bench.servers import ROOT, Capacity, Server, python

WEIGHTS = "build/model: int4 blocks with float offsets, int8 lm_head"
ENGINE = ("onnxruntime", "numpy", "tokenizers", "jinja2", "msgspec")


def cloud_run(capacity: Capacity, model: Path = MODEL) -> Server:
    """As `make serve` starts it, with a slot for each stream."""
    environ = _environ(capacity) | {
        "MODEL_DIR": os.path.relpath(model, ROOT),
        "FUNCTION_TARGET": "handler",
        "FUNCTION_SOURCE": "handlers/cloud_run/function.py",
        "HOST": "127.0.0.1",
        "PORT": "18480",
    }
    return Server("kindling", 18480, python("-m", "handlers.cloud_run"), environ)


def aws_lambda(capacity: Capacity) -> Server:
    """The Lambda process as the image starts it, with the same slots, though an event uses one."""
    environ = _environ(capacity) | {
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "AWS_LAMBDA_FUNCTION_NAME": "kindling",
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
    }
    command = python("-m", "awslambdaric", "handlers.aws_lambda.handler")
    return Server("kindling-lambda", 0, command, environ)


def _environ(capacity: Capacity) -> dict[str, str]:
    return {
        "KINDLING_THREADS": str(capacity.threads),
        "KINDLING_SLOTS": str(capacity.slots),
        "KINDLING_CONTEXT_LENGTH": str(capacity.context_length),
        # Greedy text of a small model repeats itself, so drafts would flatter: bench/lookup.py.
        "KINDLING_PROMPT_LOOKUP": "off",
    }


def _footprint(lock: str) -> Footprint:
    paths = (MODEL, ROOT / "handlers")
    return Footprint(locked(ROOT / "requirements" / lock), paths)


CLOUD_RUN = Peer(
    "kindling",
    WEIGHTS,
    cloud_run,
    packages=(*ENGINE, "functions-framework", "uvicorn"),
    footprint=lambda: _footprint("cloudrun.lock"),
)
LAMBDA = Peer(
    "kindling-lambda",
    WEIGHTS,
    aws_lambda,
    packages=(*ENGINE, "awslambdaric"),
    footprint=lambda: _footprint("lambda.lock"),
    cold_only=True,
)
