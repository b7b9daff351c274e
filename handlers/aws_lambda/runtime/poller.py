"""Polls the Runtime API for invocations, in one thread or in as many as Lambda sends at once.

    one       the poller's thread computes, and asyncio is never imported
    several   the API runs on one event loop, as on Cloud Run, and the engine has its thread; the
              pollers only carry bytes, so that all requests feed one batch of one model

Lambda Managed Instances send several:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-managed-instances
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from handlers.api.http import run_sync
from handlers.aws_lambda.runtime.client import RuntimeClient
from handlers.aws_lambda.runtime.protocol import ShuttingDown
from handlers.aws_lambda.runtime.responder import serve
from handlers.config import set_trace_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from handlers.startup import Service

T = TypeVar("T")


def poll(service: Service, address: str) -> None:
    """Serves until SIGTERM, or for as long as the Runtime API at `address` has invocations.

    Raises RuntimeApiUnavailable where it has none, once all that were under way have ended.
    """
    clients = [RuntimeClient(address) for _ in range(service.settings.concurrency)]
    shutdown = Shutdown(service, clients)
    shutdown.begin_at_sigterm()
    if len(clients) > 1:
        _poll_in_threads(service, clients, shutdown)
        return
    try:
        poll_in_this_thread(service, clients[0])
    except ShuttingDown:
        return


def poll_in_this_thread(service: Service, client: RuntimeClient) -> NoReturn:
    """Serves one invocation after the other, so that the process's environment is that of one."""
    while True:
        received = client.next_invocation()
        set_trace_id(received.trace_id)
        serve(service, run_sync, client, received)


def _poll_in_threads(
    service: Service, clients: Sequence[RuntimeClient], shutdown: Shutdown
) -> None:
    """Polls in a thread for each client; this one runs the event loop until all have ended."""
    import asyncio

    loop = asyncio.new_event_loop()
    polling = list(clients)
    failures: list[BaseException] = []

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    def work(client: RuntimeClient) -> None:
        try:
            while True:
                serve(service, run, client, client.next_invocation())
        except ShuttingDown:
            pass
        except BaseException as error:  # noqa: BLE001 - a process short of a poller would only limp
            failures.append(error)
            shutdown.begin()
        polling.remove(client)
        if not polling:
            loop.call_soon_threadsafe(loop.stop)

    service.engine.start()
    threads = [threading.Thread(target=work, args=(one,), daemon=True) for one in clients]
    for thread in threads:
        thread.start()
    try:
        loop.run_forever()
    finally:
        service.engine.stop()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


class Shutdown:
    """Ends all pollers: none asks for another invocation, and those under way may finish."""

    def __init__(self, service: Service, clients: Sequence[RuntimeClient]) -> None:
        self._service = service
        self._clients = clients
        self._begun = False

    def begin(self) -> None:
        """Returns at once; what is not done after `drain_seconds` is ended. Safe in any thread."""
        if self._begun:
            return
        self._begun = True
        for client in self._clients:
            client.stop()
        threading.Thread(target=self._drain, daemon=True).start()

    def begin_at_sigterm(self) -> None:
        """Makes SIGTERM begin the shutdown, and a second SIGTERM end the process at once.

        A thread waits for them. Python runs a handler in the main thread, between two steps of its
        interpreter: a signal that another thread takes, or that comes just before the main thread
        enters a system call, would wait with it for the next invocation.
        """
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        threading.Thread(target=self._follow_signals, args=(reader,), daemon=True).start()

    def _follow_signals(self, reader: int) -> None:
        while True:
            for number in os.read(reader, 16):
                if number != signal.SIGTERM:
                    continue
                if self._begun:
                    os._exit(0)
                self.begin()

    def _drain(self) -> None:
        """Ends what still runs. An engine without a thread does not wait for it, so this does."""
        engine, seconds = self._service.engine, self._service.settings.drain_seconds
        if not engine.threaded:
            time.sleep(seconds)
        engine.stop(seconds)
