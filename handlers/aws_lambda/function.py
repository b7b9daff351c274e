"""The AWS Lambda adapter: `handler` is the function that awslambdaric calls.

Importing this module is the cold start. One environment answers one event at a time, so the
engine has no thread of its own: whoever waits for a token turns the crank. Knows nothing of
tokens or of the model; what happens to an event is invocation.py's. awslambdaric posts one whole
value: handlers/aws_lambda/runtime is the runtime that streams.
"""

from __future__ import annotations

from typing import Any, Protocol

from handlers.api.error_responses import client_message
from handlers.api.http import Response, run_sync
from handlers.aws_lambda.invocation import Call, joined
from handlers.config import Settings, trace_id
from handlers.errors import KindlingError, RequestError, SettingsError, StartupError
from handlers.startup import Service, load_service

NO_STREAMS = (
    "KINDLING_REST_API is stream, which awslambdaric cannot: start `python -m "
    "handlers.aws_lambda.runtime` in its place, or set it to whole."
)


class Context(Protocol):
    """What is needed of awslambdaric's context."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Until Lambda kills the process."""


def load() -> Service:
    """Raises awslambdaric's FaultException with a StartupError's sentence."""
    try:
        settings = Settings.from_environ()
        if settings.rest_streams:
            raise SettingsError(NO_STREAMS)
        service = load_service(settings)
        if not service.settings.on_demand:
            _prepare(service)
    except StartupError as error:
        raise _fault(error, str(error)) from None
    return service


def _fault(error: KindlingError, message: str) -> Exception:
    """The one class that awslambdaric shows without a traceback, in the log and to Lambda."""
    from awslambdaric.lambda_runtime_exception import FaultException

    fault: Exception = FaultException(type(error).__name__, message)
    return fault


def _prepare(service: Service) -> None:
    """Now, or when awslambdaric is about to let Lambda take the snapshot."""
    from handlers.aws_lambda import snapstart

    if not service.settings.snap_start:
        snapstart.prime(service)
        return
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    register_before_snapshot(snapstart.prime, service)
    register_after_restore(snapstart.restored, service)


SERVICE = load()


def handler(event: object, context: Context) -> Any:
    """Answers one event in its own shape.

    Raises FaultException for an event of no known shape, and for the failure of a direct invoke
    that another try may not meet: awslambdaric reports its type and its sentence.
    """
    try:
        call = Call.of(SERVICE, event, context.aws_request_id, trace_id())
        seconds = context.get_remaining_time_in_millis() / 1000
        return call.deliver(SERVICE, run_sync(_whole(call, seconds)), _as_posted).value
    except RequestError as error:
        raise _fault(error, client_message(error)) from None


def _as_posted(value: Any) -> bytes:
    """As awslambdaric encodes it: with six bytes for a character outside ASCII, unless told."""
    from awslambdaric.lambda_runtime_marshaller import to_json

    text: str = to_json(value)
    return text.encode()


async def _whole(call: Call, seconds: float) -> Response:
    return await joined(await call.answer(SERVICE, seconds))
