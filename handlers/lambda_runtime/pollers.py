"""Who asks for invocations: this thread, or as many threads as Lambda sends at once.

    one       the poller turns the engine's crank itself, and asyncio is never imported
    several   the API runs on one event loop, as on Cloud Run, and the engine has its thread; the
              pollers only carry bytes, so that all requests feed one batch of one model

Lambda Managed Instances send several:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-managed-instances
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from handlers.api.inline import run_inline
from handlers.lambda_runtime.api import RuntimeApi
from handlers.lambda_runtime.invocation import serve

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from handlers.lambda_runtime.invocation import Run
    from handlers.startup import Service

T = TypeVar("T")


def poll(service: Service, address: str) -> NoReturn:
    """Serves for as long as the Runtime API at `address` has invocations. Raises Gone."""
    if service.settings.concurrency > 1:
        _poll_together(service, address)
    _poll(service, run_inline, RuntimeApi(address))


def _poll(service: Service, run: Run, api: RuntimeApi) -> NoReturn:
    while True:
        serve(service, run, api, api.next())


def _poll_together(service: Service, address: str) -> NoReturn:
    """A thread for each invocation; this one runs the event loop."""
    import asyncio
    import threading

    loop = asyncio.new_event_loop()
    ends: list[Exception] = []

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def work() -> None:
        try:
            _poll(service, run, RuntimeApi(address))
        except Exception as error:  # noqa: BLE001 - with a poller less, the process would only limp
            ends.append(error)
            loop.call_soon_threadsafe(loop.stop)

    service.engine.start()
    for number in range(service.settings.concurrency):
        threading.Thread(target=work, name=f"poller-{number}", daemon=True).start()
    try:
        loop.run_forever()
    finally:
        service.engine.stop()
    raise ends[0]
