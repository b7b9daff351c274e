from __future__ import annotations

import asyncio
import threading

import pytest

from handlers.api.aside import aside
from handlers.api.inline import run_inline


def test_where_nobody_else_waits_it_runs_at_once() -> None:
    assert run_inline(aside(False, threading.get_ident)) == threading.get_ident()


def test_beside_an_event_loop_it_runs_in_a_thread() -> None:
    assert asyncio.run(aside(True, threading.get_ident)) != threading.get_ident()


@pytest.mark.parametrize("threaded", [False, True])
def test_what_it_raises_is_raised(threaded: bool) -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(aside(threaded, fail))
