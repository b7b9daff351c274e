"""The Cloud Run process, `python -m handlers.cloud_run`: uvicorn with functions-framework's app.

uvicorn takes its port and its time limits from a command line alone, so a container would need a
shell to hand it $PORT. Here they come from the environment. functions-framework executes the file
that FUNCTION_SOURCE names, function.py, before the port opens.
"""

from __future__ import annotations

import math
import os
import sys
from typing import NoReturn

from handlers import startup
from handlers.config import Settings
from handlers.errors import StartupError
from handlers.lazy_imports import lazy_imports

# After the end of the drain, for the last events to be sent.
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
    """Serves until SIGTERM or Ctrl-C. Ends with status 1 and one line when it cannot serve."""
    try:
        settings = Settings.from_environ()
        startup.start_loading(settings)
    except StartupError as error:
        sys.exit(f"Kindling cannot start: {error}")
    import uvicorn  # 70 ms, and functions-framework 25 more: while the session loads

    with lazy_imports(*SYNCHRONOUS_SIDE):
        from functions_framework.aio import app

    from handlers.cloud_run.slow_clients import bounded_connection

    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        workers=1,  # otherwise WEB_CONCURRENCY decides: each worker would load its own model
        access_log=False,
        log_config=None,  # what goes wrong in uvicorn is on standard error, the rest is silence
        log_level="warning",
        http=bounded_connection(settings.request_seconds),
        ws="none",
        timeout_keep_alive=math.ceil(settings.keep_alive_seconds),
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds) + SENDING_SECONDS,
    )
    _exit()


def _exit() -> NoReturn:
    """Ends the process at once: the interpreter would wait for a grammar that still compiles."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
