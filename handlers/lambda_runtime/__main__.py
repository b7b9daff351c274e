"""The process: `python -m handlers.lambda_runtime`, in awslambdaric's place. docs/lambda.md.

It loads as every adapter does, and tells Lambda of a start that fails.
"""

from __future__ import annotations

import signal
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from handlers import startup
from handlers.config import Settings, runtime_api
from handlers.errors import StartupError

if TYPE_CHECKING:
    from types import FrameType

    from handlers.startup import Service


def main() -> None:
    """Serves until SIGTERM. Status 1 and one line when the process cannot serve."""
    signal.signal(signal.SIGTERM, _end)
    try:
        address = runtime_api()
    except StartupError as error:
        sys.exit(f"Kindling cannot start: {error}")
    try:
        service = _load(address)
    except Exception as error:  # noqa: BLE001 - whatever it is, Lambda is told
        _fail(address, error)
    from handlers.lambda_runtime.api import Gone
    from handlers.lambda_runtime.pollers import poll

    try:
        poll(service, address)
    except Gone as error:
        sys.exit(f"Kindling ends: {error}")


def _load(address: str) -> Service:
    settings = Settings.from_environ()
    startup.begin(settings)
    import handlers.lambda_runtime.pollers  # noqa: F401 - beside the session, which loads

    service = startup.load_service(settings)
    if not settings.on_demand:
        from handlers.lambda_runtime import snapshot
        from handlers.lambda_runtime.api import RuntimeApi

        snapshot.prime(service)
        if settings.snap_start:
            RuntimeApi(address).wait_for_restore()
            snapshot.restored(service)
    return service


def _fail(address: str, error: Exception) -> NoReturn:
    from handlers.lambda_runtime.api import Fault, RuntimeApi

    if not isinstance(error, StartupError):
        traceback.print_exception(error)
    RuntimeApi(address).fail_start(Fault(type(error).__name__, str(error)))
    sys.exit(f"Kindling cannot start: {error}")


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
