"""GET /healthz and /health: what runs here and how busy it is. Neither needs an API key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from handlers import __version__
from handlers.api.http import json_response

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import ServedModel


async def check(model: ServedModel, _request: Request) -> Response:
    """Answers as soon as the process serves: before that there is no port."""
    engine = model.engine
    return json_response(
        {
            "state": "ready" if engine.accepting else "draining",
            "version": __version__,
            "model": model.id,
            "task": model.manifest.task,
            "precision": model.manifest.precision,
            "context_length": engine.context_length,
            **({} if model.slots is None else {"slots": model.slots}),
            **(
                {}
                if model.sampling_defaults is None
                else {"sampling_defaults": model.sampling_defaults}
            ),
            "running": engine.running,
            "waiting": engine.waiting,
            "load_ms": model.load_ms,
            "uptime_seconds": round(time.monotonic() - model.ready_since, 3),
        }
    )
