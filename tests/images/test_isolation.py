"""The images leave no file behind, and nothing goes out but answers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.images import docker
from tests.images.docker import READ_ONLY, Container

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}

IPV4, TCP, UDP = 0x0800, 6, 17
SYN, ACK = 0x02, 0x10


def answer(container: Container) -> None:
    """Through the emulator where there is one."""
    if docker.INVOCATIONS in container.ask("POST", docker.INVOCATIONS, HELLO):
        container.ask("POST", "/v1/chat/completions", HELLO)


@dataclass
class Wire:
    """Docker's bridge, listened to by a raw socket: what a container begins to send."""

    listener: socket.socket
    begun: list[str] = field(default_factory=list)

    def collect(self, source: str) -> list[str]:
        """The connections opened and datagrams sent from that address, as `address protocol`."""
        packed = socket.inet_aton(source)
        while True:
            try:
                frame = self.listener.recv(65_536)
            except BlockingIOError:
                return self.begun
            if frame[26:30] == packed and _begins(frame):
                self.begun.append(f"{socket.inet_ntoa(frame[30:34])} {frame[23]}")


def _begins(frame: bytes) -> bool:
    """Whether an Ethernet frame is a datagram or a TCP connection's first packet.

    RFC 791, RFC 9293: the IP header's length is in its first byte, TCP's flags in its 14th.
    """
    if struct.unpack("!H", frame[12:14])[0] != IPV4:
        return False
    if frame[23] != TCP:
        return True
    flags = frame[14 + 4 * (frame[14] & 15) + 13]
    return flags & (SYN | ACK) == SYN


@contextmanager
def wire() -> Iterator[Wire]:
    everything = socket.htons(3)  # ETH_P_ALL
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything) as listener:
        listener.bind(("docker0", 0))
        listener.setblocking(False)
        yield Wire(listener)


start = pytest.mark.parametrize("start", [docker.aws_lambda, docker.cloud_run])


@start
def test_no_connection_is_opened_and_no_datagram_sent(start: Any) -> None:
    with wire() as sent, start(*READ_ONLY) as container:
        answer(container)
        assert sent.collect(container.address) == []


def test_a_connection_would_have_been_seen() -> None:
    """To the bridge's own address, where nobody listens."""
    with wire() as sent, docker.cloud_run(*READ_ONLY) as container:
        gateway = "{{.NetworkSettings.Gateway}}"
        address = docker.docker("inspect", "-f", gateway, container.id).strip()
        container.python(
            "import socket, sys; socket.socket().connect_ex((sys.argv[1], 9))", address
        )
        assert sent.collect(container.address) == [f"{address} {TCP}"]


@start
def test_nothing_is_written_outside_tmp_even_where_it_could_be(start: Any) -> None:
    with start() as container:
        answer(container)
        changed = [line.split()[1] for line in docker.docker("diff", container.id).splitlines()]
    # Docker itself makes the emulator's mount point.
    assert [path for path in changed if not path.startswith("/tmp") and path != "/emulator"] == []
