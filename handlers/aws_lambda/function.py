"""The function that awslambdaric calls for each event; importing this file loads the model.

An environment answers one event at a time, so the engine has no thread of its own here: awaiting a
token computes it. awslambdaric posts one whole value for each event; runtime/ is our own runtime,
which streams.
"""

from __future__ import annotations

from typing import Any, Protocol

from handlers.api.error_responses import client_message
from handlers.api.http import run_sync
from handlers.aws_lambda.invocation import Invocation
from handlers.config import Settings, trace_id
from handlers.errors import KindlingError, RequestError, SettingsError, StartupError
from handlers.startup import Service, load_service

NO_STREAMS = (
    "KINDLING_REST_API is stream, which awslambdaric cannot: start `python -m "
    "handlers.aws_lambda.runtime` in its place, or set it to whole."
)


class Context(Protocol):
    """As much of awslambdaric's context as is used."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Returns the milliseconds until Lambda kills the process."""


def load() -> Service:
    """Loads the model. Raises awslambdaric's FaultException with a StartupError's sentence."""
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
    """Returns the only error that awslambdaric logs, and reports to Lambda, without a traceback."""
    from awslambdaric.lambda_runtime_exception import FaultException

    fault: Exception = FaultException(type(error).__name__, message)
    return fault


def _prepare(service: Service) -> None:
    """Primes the model now, or when awslambdaric is about to let Lambda take the snapshot."""
    from handlers.aws_lambda.snapstart import after_restore, prime

    if not service.settings.snap_start:
        prime(service)
        return
    from snapshot_restore_py import register_after_restore, register_before_snapshot

    register_before_snapshot(prime, service)
    register_after_restore(after_restore, service)


SERVICE = load()


def handler(event: object, context: Context) -> Any:
    """Answers one event in the shape that its sender takes.

    Raises FaultException for an event of no known kind, and for the failure of a direct invoke that
    a retry may not meet again: awslambdaric reports its type and its sentence.
    """
    try:
        invocation = Invocation.of(SERVICE, event, context.aws_request_id, trace_id())
        seconds = context.get_remaining_time_in_millis() / 1000
        return invocation.respond(run_sync, seconds, _encode).value
    except RequestError as error:
        raise _fault(error, client_message(error)) from None


def _encode(value: Any) -> bytes:
    """Encodes as awslambdaric does, by default with six bytes for a character outside ASCII."""
    from awslambdaric.lambda_runtime_marshaller import to_json

    text: str = to_json(value)
    return text.encode()
