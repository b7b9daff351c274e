"""The images leave no file behind, and nothing goes out but answers."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.images import docker
from tests.images.docker import LAMBDA, OFFLINE, READ_ONLY
from tests.support.servers import wait_until

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}

IPV4, TCP, UDP = 0x0800, 6, 17
SYN, ACK = 0x02, 0x10


@dataclass
class Wire:
    """Docker's bridge, listened to by a raw socket: what containers begin to send."""

    listener: socket.socket
    begun: list[tuple[str, str]] = field(default_factory=list)
    """Source, and "destination protocol"."""

    def collect(self, source: str) -> list[str]:
        """The connections opened and datagrams sent from that address so far."""
        with suppress(BlockingIOError):
            while frame := self.listener.recv(65_536):
                if _begins(frame):
                    target = f"{socket.inet_ntoa(frame[30:34])} {frame[23]}"
                    self.begun.append((socket.inet_ntoa(frame[26:30]), target))
        return [target for begun_by, target in self.begun if begun_by == source]


def _begins(frame: bytes) -> bool:
    """Returns whether an Ethernet frame is a datagram or a TCP connection's first packet.

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
    try:
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything)
        listener.bind(("docker0", 0))
    except OSError as error:
        pytest.fail(f"Listening takes root, and Docker's bridge docker0 on this machine: {error}")
    with listener:
        listener.setblocking(False)
        yield Wire(listener)


# What the images would do without `disable_onnxruntime_telemetry`.
TELLING = """
import os, time
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
import onnxruntime
options = onnxruntime.SessionOptions()
options.register_custom_ops_library("/opt/kindling/handlers/engine/kernels.so")
onnxruntime.InferenceSession("/opt/kindling/model/model.onnx", options)
time.sleep(600)
"""


def test_nothing_is_sent_where_onnxruntime_alone_would_have_sent_its_telemetry() -> None:
    """The images start and answer first. By the time that the control asks for its server's
    address, which takes onnxruntime 10 s, they have had more than the time to do so too.

    Names are asked of the bridge's own address, where nobody answers.
    """
    with wire() as sent, ExitStack() as containers:
        start = containers.enter_context
        images = [start(docker.cloud_run(*READ_ONLY)), start(docker.aws_lambda(*READ_ONLY))]
        images[0].ask("POST", "/v1/chat/completions", HELLO)
        images[1].invoke(HELLO)
        command = ("--entrypoint", "python", "--dns", images[0].gateway)
        control = start(docker.running(LAMBDA, "-c", TELLING, options=command))
        wait_until(lambda: bool(sent.collect(control.address)))
        assert f"{control.gateway} {UDP}" in sent.collect(control.address)
        assert [sent.collect(container.address) for container in images] == [[], []]


def test_a_connection_would_have_been_seen() -> None:
    """To the bridge's own address, where nobody listens."""
    with wire() as sent, docker.cloud_run(*READ_ONLY) as container:
        connect = "import socket, sys; socket.socket().connect_ex((sys.argv[1], 9))"
        container.python(connect, container.gateway)
        assert sent.collect(container.address) == [f"{container.gateway} {TCP}"]


def test_nothing_is_written_even_where_it_could_be() -> None:
    with docker.cloud_run(*OFFLINE) as container:
        container.ask("POST", "/v1/chat/completions", HELLO)
        assert docker.docker("diff", container.id) == ""
    with docker.aws_lambda(*OFFLINE) as container:
        container.invoke(HELLO)
        assert docker.docker("diff", container.id) == "A /emulator\n"  # Docker's mount point
