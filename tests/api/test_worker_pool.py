from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from handlers.api.http import run_sync
from handlers.api.worker_pool import WorkerPool
from handlers.errors import NotReady, Overloaded
from tests.support.scripted_engine import ScriptedEngine
from tests.support.servers import PATIENCE_SECONDS


class Engine(ScriptedEngine):
    def __init__(self, threaded: bool = True) -> None:
        super().__init__()
        self.threaded = threaded


class Gate:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        self.open.wait()
        return "through"


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()  # otherwise a failed test would never end


def worker_pool(engine: Engine, limit: int = 8) -> WorkerPool:
    return WorkerPool("compiling", engine, threads=1, limit=limit)


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, PATIENCE_SECONDS)


def test_without_an_event_loop_it_runs_at_once() -> None:
    inline = worker_pool(Engine(threaded=False))
    assert run_sync(inline.run(threading.get_ident)) == threading.get_ident()


def test_with_an_event_loop_it_runs_in_a_thread() -> None:
    assert asyncio.run(worker_pool(Engine()).run(threading.get_ident)) != threading.get_ident()


@pytest.mark.parametrize("threaded", [False, True])
def test_what_it_raises_is_raised(threaded: bool) -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(worker_pool(Engine(threaded)).run(fail))


def test_more_than_the_pool_holds_are_refused_until_one_has_left(gate: Gate) -> None:
    async def crowd() -> None:
        full = worker_pool(Engine(), limit=2)
        inside = [asyncio.ensure_future(full.run(gate)) for _ in range(2)]
        await entered(gate)
        with pytest.raises(Overloaded, match="2 requests wait for compiling"):
            await full.run(gate)
        gate.open.set()
        await asyncio.gather(*inside)
        assert await full.run(gate) == "through"

    asyncio.run(crowd())


def test_one_pool_does_not_wait_for_another(gate: Gate) -> None:
    async def two_pools() -> None:
        engine = Engine()
        held = asyncio.ensure_future(worker_pool(engine).run(gate))
        await entered(gate)
        assert await worker_pool(engine).run(lambda: "past it") == "past it"
        gate.open.set()
        await held

    asyncio.run(two_pools())


def test_what_waits_when_the_server_stops_is_refused_without_the_work(gate: Gate) -> None:
    async def stop() -> None:
        engine, worked = Engine(), []
        stopping = worker_pool(engine)
        running = asyncio.ensure_future(stopping.run(gate))
        await entered(gate)
        waiting = asyncio.ensure_future(stopping.run(lambda: worked.append(1)))
        await asyncio.sleep(0)  # it takes its place
        engine.accepting = False
        gate.open.set()
        assert await running == "through"
        with pytest.raises(NotReady):
            await waiting
        with pytest.raises(NotReady):
            await stopping.run(lambda: worked.append(1))
        assert not worked

    asyncio.run(stop())


def test_who_leaves_while_waiting_leaves_a_place_and_no_work(gate: Gate) -> None:
    async def leave() -> None:
        worked: list[int] = []
        small = worker_pool(Engine(), limit=2)
        running = asyncio.ensure_future(small.run(gate))
        await entered(gate)
        leaving = asyncio.ensure_future(small.run(lambda: worked.append(1)))
        await asyncio.sleep(0)  # it takes its place
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        following = asyncio.ensure_future(small.run(lambda: "after it"))
        await asyncio.sleep(0)
        gate.open.set()
        assert await running == "through"
        assert await following == "after it"
        assert not worked

    asyncio.run(leave())
