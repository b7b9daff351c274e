"""The benchmark's servers: what would make it hang, or measure another program."""

from __future__ import annotations

import socket
import time

import pytest

from bench.servers import Server, running
from bench.workload import wait_for_port


def test_a_port_that_is_taken_is_refused_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = Server("occupied", other.getsockname()[1], {}, ("-c", "pass"))
        with pytest.raises(RuntimeError, match="is taken"), running(server):
            pass


def test_a_server_that_dies_while_it_starts_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    server = Server("dying", port, {}, ("-c", "raise SystemExit(1)"))
    with running(server) as process, pytest.raises(RuntimeError, match=r"bench/dying\.log"):
        wait_for_port(server, process, time.perf_counter() + 3600)
