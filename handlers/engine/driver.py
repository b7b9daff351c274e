"""Drives an engine's steps, and lets requests wait for what they compute.

Two ways, one surface:

    inline    the caller that waits for a request runs the steps, and `await` never suspends (AWS
              Lambda: one request at a time, no thread)
    threaded  one background thread runs them, and requests sleep on their event loops (Cloud Run)

asyncio is imported by the first request that has to sleep: importing it takes 25 to 65 ms, which
the inline way never pays. The decoder's engine and the encoder are both drivers.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from handlers.errors import STOPPING, EngineFault, NotReady

if TYPE_CHECKING:
    import asyncio

log = logging.getLogger(__name__)


class Cancellable(Protocol):
    """A queued request."""

    cancelled: bool


Request = TypeVar("Request", bound=Cancellable)
Handle = TypeVar("Handle", bound="RequestHandle")


class EngineDriver(ABC, Generic[Request, Handle]):
    """The queue of an engine and its step loop. Any thread may call the public methods."""

    def __init__(self, *, limit: int) -> None:
        """`limit`: requests that are held at once."""
        self.load_ms = 0.0
        """Milliseconds that loading the graph took."""
        self._limit = limit
        self._live: dict[Request, Handle] = {}
        """The requests that have not ended, with the handles that wait for them."""
        self._inbox: deque[Request] = deque()
        """Those of them that no step has seen yet."""
        self._accepting = True
        self._drain_until = math.inf
        self._changed = threading.Condition()
        """Guards the four fields above; notified when there is work."""
        self._step_lock = threading.Lock()
        """Held by the one thread that is inside a step and ONNX Runtime."""
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _step(self) -> None:
        """Computes something for the live requests, and delivers it."""

    @abstractmethod
    def _abort_all(self) -> None:
        """Ends every live request."""

    @abstractmethod
    def _refuse_if_full(self, count: int) -> None:
        """Raises InvalidRequest or Overloaded when `count` more requests are too many."""

    @abstractmethod
    def _schedule(self, request: Request) -> None:
        """Hands a request of the inbox to what decides when it is computed."""

    @property
    def threaded(self) -> bool:
        """Returns whether `start()` has been called."""
        return self._thread is not None

    @property
    def accepting(self) -> bool:
        """Returns whether new requests are taken: until `stop()`."""
        return self._accepting

    def step(self) -> bool:
        """Runs one step in the calling thread, after another thread's. False if nobody waits."""
        with self._step_lock:
            busy = self._busy()
            if busy:
                self._step()
            return busy

    def start(self) -> None:
        """Starts the background thread that runs all steps from now on."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def stop(self, drain_seconds: float = 0.0) -> None:
        """Refuses new requests, lets the others go on for a while, then ends them.

        Returns when the engine is idle for good. Without a thread nothing is drained.
        """
        with self._changed:
            self._accepting = False
            self._drain_until = min(self._drain_until, time.monotonic() + drain_seconds)
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        with self._step_lock:
            self._abort_all()

    def _enqueue(self, requests: Items[Request], handle: Handle) -> None:
        """Queues all requests, or none. Raises NotReady, InvalidRequest and Overloaded."""
        with self._changed:
            if not self._accepting:
                raise NotReady(STOPPING)
            self._refuse_if_full(len(requests))
            self._live.update(dict.fromkeys(requests, handle))
            self._inbox.extend(requests)
            self._changed.notify()

    def _empty_inbox(self) -> None:
        with self._changed:
            while self._inbox:
                self._schedule(self._inbox.popleft())

    def _drop_inbox(self) -> list[Request]:
        """Returns every live request, of which none is to be scheduled any more."""
        with self._changed:
            self._inbox.clear()
            return list(self._live)

    def _wanted(self) -> list[Request]:
        """Returns the live requests that have not been cancelled."""
        with self._changed:
            return [request for request in self._live if not request.cancelled]

    def _busy(self) -> bool:
        return bool(self._live)

    def _run(self) -> None:
        while self._wait_for_work():
            try:
                self.step()
            except BaseException:  # not even delivered: the next step ends who is left
                log.exception("A turn of the engine failed.")

    def _wait_for_work(self) -> bool:
        """Sleeps while there are no requests. False when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._busy() or not self._accepting)
            return self._busy() and time.monotonic() < self._drain_until


class RequestHandle(ABC):
    """A submitted request, for the one caller that waits for its results."""

    def __init__(self, engine: EngineDriver[Any, Any]) -> None:
        self._engine = engine
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop that the caller sleeps on, once it has."""
        self._wakeup: asyncio.Future[None] | None = None

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Returns whether there is a result to take."""

    @abstractmethod
    def cancel(self) -> None:
        """Gives the request up. From any thread, any number of times."""

    async def wait(self) -> None:
        """Returns once there is a result to take."""
        while not self.ready:
            if self._engine.threaded:
                await self._sleep()
            else:
                self._run_step()

    def wait_inline(self) -> None:
        """Waits without `await`, where no thread runs the steps."""
        if self._engine.threaded:
            raise RuntimeError("The engine's thread runs the steps: use `async for` or `await`.")
        while not self.ready:
            self._run_step()

    def _run_step(self) -> None:
        """Runs one step. Raises EngineFault where the engine does not know of this request.

        It would wait without an end. Another thread's step may have completed it by now.
        """
        if not self._engine.step() and not self.ready:
            raise EngineFault("The engine has lost a request: nothing more is computed for it.")

    async def _sleep(self) -> None:
        """Returns once the engine has delivered something.

        The loop is known before `ready` is looked at again, so that what is delivered in
        between is either seen here or wakes the loop.
        """
        import asyncio

        self.loop = asyncio.get_running_loop()
        if self.ready:
            return
        self._wakeup = self.loop.create_future()
        try:
            await self._wakeup
        except asyncio.CancelledError:
            self.cancel()
            raise

    def wake(self) -> None:
        """Ends the sleep. Called on the caller's event loop."""
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


def notify(handles: Iterable[RequestHandle]) -> None:
    """Wakes the callers that sleep, with one call into each of their event loops."""
    sleepers: dict[asyncio.AbstractEventLoop, list[RequestHandle]] = {}
    for handle in handles:
        if handle.loop is not None:
            sleepers.setdefault(handle.loop, []).append(handle)
    for loop, group in sleepers.items():
        try:
            loop.call_soon_threadsafe(_wake_all, group)
        except RuntimeError:  # the loop is closed: nobody is left to read these results
            for handle in group:
                handle.cancel()


def _wake_all(handles: list[RequestHandle]) -> None:
    for handle in handles:
        handle.wake()
