"""Who asks for invocations: this thread, or as many threads as Lambda sends at once.

    one       the poller turns the engine's crank itself, and asyncio is never imported
    several   the API runs on one event loop, as on Cloud Run, and the engine has its thread; the
              pollers only carry bytes, so that all requests feed one batch of one model

Lambda Managed Instances send several:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-managed-instances
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from handlers.api.http import run_sync
from handlers.aws_lambda.runtime.client import RuntimeApi
from handlers.aws_lambda.runtime.protocol import Stopped
from handlers.aws_lambda.runtime.responder import serve
from handlers.aws_lambda.runtime.shutdown import Stop
from handlers.config import hand_on_trace_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from handlers.startup import Service

T = TypeVar("T")


def poll(service: Service, address: str) -> None:
    """Serves until SIGTERM, or for as long as the Runtime API at `address` has invocations.

    Raises Gone where it has none, when all that were under way have ended.
    """
    apis = [RuntimeApi(address) for _ in range(service.settings.concurrency)]
    stop = Stop(service, apis)
    stop.at_sigterm()
    if len(apis) > 1:
        _poll_together(service, apis, stop)
        return
    try:
        poll_alone(service, apis[0])
    except Stopped:
        return


def poll_alone(service: Service, api: RuntimeApi) -> NoReturn:
    """One invocation after the other, so that the process's environment is that of one."""
    while True:
        invocation = api.next()
        hand_on_trace_id(invocation.trace_id)
        serve(service, run_sync, api, invocation)


def _poll_together(service: Service, apis: Sequence[RuntimeApi], stop: Stop) -> None:
    """A thread for each invocation; this one runs the event loop until all have ended."""
    import asyncio
    import threading

    loop = asyncio.new_event_loop()
    polling = list(apis)
    ends: list[BaseException] = []

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def work(api: RuntimeApi) -> None:
        try:
            while True:
                serve(service, run, api, api.next())
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - with a poller less, it would only limp
            ends.append(error)
            stop()
        polling.remove(api)
        if not polling:
            loop.call_soon_threadsafe(loop.stop)

    service.engine.start()
    threads = [threading.Thread(target=work, args=(api,), daemon=True) for api in apis]
    for thread in threads:
        thread.start()
    try:
        loop.run_forever()
    finally:
        service.engine.stop()
    for thread in threads:
        thread.join()
    if ends:
        raise ends[0]
