"""The Cloud Run process, `python -m handlers.cloud_run`.

uvicorn takes its port and its patience from a command line alone, so a container would need a
shell to hand it $PORT. Here they come from the environment, and the process needs none. Knows
nothing of requests: functions-framework's application executes the file that FUNCTION_SOURCE
names, function.py, before the port opens.
"""

from __future__ import annotations

import math
import os
import sys
from typing import NoReturn

from handlers import startup
from handlers.config import Settings
from handlers.errors import StartupError
from handlers.lazy_imports import deferred

# After the drain's end: its last events are still to be sent.
SENDING_SECONDS = 1

# What functions-framework imports and an asynchronous HTTP function never uses.
SYNCHRONOUS_SIDE = (
    "cloudevents",
    "cloudevents.exceptions",
    "cloudevents.http",
    "cloudevents.http.event",
    "flask",
    "werkzeug",
    "werkzeug.local",
)


def main() -> None:
    """Serves until SIGTERM or Ctrl-C. Status 1 and one line when the process cannot serve."""
    try:
        settings = Settings.from_environ()
        startup.begin(settings)
    except StartupError as error:
        sys.exit(f"Kindling cannot start: {error}")
    import uvicorn  # 70 ms, and functions-framework 25 more: while the session loads

    with deferred(*SYNCHRONOUS_SIDE):
        from functions_framework.aio import app

    from handlers.cloud_run.http_connection import connections

    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        workers=1,  # else WEB_CONCURRENCY decides: each worker would load a model of its own
        access_log=False,
        log_config=None,  # what goes wrong in uvicorn is on standard error, the rest is silence
        log_level="warning",
        http=connections(settings.request_seconds),
        ws="none",
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + SENDING_SECONDS,
    )
    _end()


def _end() -> NoReturn:
    """Ends the process at once: the interpreter would wait for a grammar that still compiles."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
