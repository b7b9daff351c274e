"""The process of our own runtime, `python -m handlers.aws_lambda.runtime`: docs/lambda.md.

It takes awslambdaric's place in the same image, and reports a start that fails to Lambda.
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
    """Serves until SIGTERM. Ends with status 1 and one line when the process cannot serve."""
    signal.signal(signal.SIGTERM, _exit)
    try:
        address = runtime_api()
    except StartupError as error:
        sys.exit(f"Kindling cannot start: {error}")
    service = _reporting_failure(address, "init", _load)
    from handlers.aws_lambda.runtime.poller import poll
    from handlers.aws_lambda.runtime.protocol import RuntimeApiUnavailable

    try:
        if service.settings.snap_start:
            _restore(address, service)
        poll(service, address)
    except RuntimeApiUnavailable as error:
        sys.exit(f"Kindling ends: {error}")


def _load() -> Service:
    settings = Settings.from_environ()
    startup.start_loading(settings)
    import handlers.aws_lambda.runtime.poller  # noqa: F401 - while the session loads

    service = startup.load_service(settings)
    if not settings.on_demand:
        from handlers.aws_lambda.snapstart import prime

        prime(service)
    return service


def _restore(address: str, service: Service) -> None:
    """Returns in each copy that is restored from the snapshot. Raises RuntimeApiUnavailable."""
    from handlers.aws_lambda.runtime.client import RuntimeClient
    from handlers.aws_lambda.snapstart import after_restore

    RuntimeClient(address).wait_for_restore()
    _reporting_failure(address, "restore", partial(after_restore, service))


def _reporting_failure(address: str, stage: str, step: Callable[[], T]) -> T:
    """Returns what the step returns; if it raises, reports that to Lambda and ends the process."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001 - Lambda is told of any
        from handlers.aws_lambda.runtime.client import RuntimeClient
        from handlers.aws_lambda.runtime.protocol import ErrorReport

        if not isinstance(error, StartupError):
            traceback.print_exception(error)
        report = ErrorReport(type(error).__name__, str(error), "Runtime")
        RuntimeClient(address).report_start_error(report, stage)
        sys.exit(f"Kindling cannot start: {error}")


def _exit(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
