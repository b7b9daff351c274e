"""The process: `python -m handlers.aws_lambda.runtime`, in awslambdaric's place. docs/lambda.md.

It loads as every adapter does, and tells Lambda of a start that fails.
"""

from __future__ import annotations

import signal
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from handlers import startup
from handlers.config import Settings, runtime_api
from handlers.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from handlers.startup import Service

T = TypeVar("T")


def main() -> None:
    """Serves until SIGTERM. Status 1 and one line when the process cannot serve."""
    signal.signal(signal.SIGTERM, _end)
    try:
        address = runtime_api()
    except StartupError as error:
        sys.exit(f"Kindling cannot start: {error}")
    service = _reported(address, "init", _load)
    from handlers.aws_lambda.runtime.poller import poll
    from handlers.aws_lambda.runtime.protocol import Gone

    try:
        if service.settings.snap_start:
            _restore(address, service)
        poll(service, address)
    except Gone as error:
        sys.exit(f"Kindling ends: {error}")


def _load() -> Service:
    settings = Settings.from_environ()
    startup.begin(settings)
    import handlers.aws_lambda.runtime.poller  # noqa: F401 - beside the session, which loads

    service = startup.load_service(settings)
    if not settings.on_demand:
        from handlers.aws_lambda import snapstart

        snapstart.prime(service)
    return service


def _restore(address: str, service: Service) -> None:
    """Comes back in each copy of the process. Raises Gone."""
    from handlers.aws_lambda import snapstart
    from handlers.aws_lambda.runtime.client import RuntimeApi

    RuntimeApi(address).wait_for_restore()
    _reported(address, "restore", partial(snapstart.restored, service))


def _reported(address: str, stage: str, begin: Callable[[], T]) -> T:
    """What it returns. Whatever it raises ends the process, and Lambda is told at which stage."""
    try:
        return begin()
    except Exception as error:  # noqa: BLE001 - whatever it is, Lambda is told
        from handlers.aws_lambda.runtime.client import RuntimeApi
        from handlers.aws_lambda.runtime.protocol import Fault

        if not isinstance(error, StartupError):
            traceback.print_exception(error)
        RuntimeApi(address).fail_start(Fault(type(error).__name__, str(error), "Runtime"), stage)
        sys.exit(f"Kindling cannot start: {error}")


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
