"""Prints the request with which to try a server that is about to start. Run by the Makefile.

    python3 scripts/first_question.py serve|lambda PORT MANIFEST

What a model can be asked depends on its task, which its manifest names; the manifest of a model in
an image comes through a pipe, as /dev/stdin. Where there is none, nothing is printed: the server
is about to say what it lacks.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

QUESTION = "What is the capital of Japan?"
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "text-generation": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0},
    ),
    "feature-extraction": ("/v1/embeddings", {"input": QUESTION}),
    "text-classification": ("/v1/classify", {"input": "What a lovely day this was!"}),
    "text-ranking": (
        "/v1/rerank",
        {
            "query": QUESTION,
            "documents": ["Bread is baked in ovens.", "Paris governs France."],
        },
    ),
}
INVOCATIONS = "/2015-03-31/functions/function/invocations"


def main(cloud: str, port: str, manifest: str) -> None:
    """One line of curl under a line that says what to do with it."""
    try:
        task = json.loads(Path(manifest).read_bytes())["task"]
    except (OSError, ValueError, KeyError):
        return
    print("Try, from another terminal:", f"  {curl(cloud, port, task)}", sep="\n", flush=True)


def curl(cloud: str, port: str, task: str) -> str:
    """The command as one types it into a shell."""
    path, body = REQUESTS[task]
    if cloud == "lambda":
        event = shlex.quote(json.dumps(_event(path, body)))
        return f"curl localhost:{port}{INVOCATIONS} -d {event}"
    data = shlex.quote(json.dumps(body))
    return f"curl localhost:{port}{path} -H 'content-type: application/json' -d {data}"


def _event(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """A chat can be a function's event itself; all else is the least of what a REST API sends."""
    if "messages" in body:
        return body
    return {"httpMethod": "POST", "resource": path, "path": path, "body": json.dumps(body)}


if __name__ == "__main__":
    main(*sys.argv[1:])
