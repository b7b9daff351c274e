"""A server as a process: what it is started with, how it is started, and how it is ended."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "build" / "bench"
"""What peers need and is made once; also the servers' logs and the last result."""
END_LIMIT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Capacity:
    """The limits that every server gets."""

    threads: int
    slots: int
    """Sequences at once, where a server can be told."""
    context_length: int = 2048
    """Of each slot, in tokens."""


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A command line that serves /v1/completions on a port of this machine.

    Port 0 means that nothing listens: on Lambda it is the process that calls.
    """

    name: str
    port: int
    command: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, object] = field(default_factory=dict)
    """What a request to it must say besides, to mean the same."""

    @property
    def line(self) -> str:
        """The command that starts it in the repository's root."""
        words = [*(f"{name}={value}" for name, value in self.environ.items()), *self.command]
        line = shlex.join(words).replace(sys.executable, "python")
        return line.replace(f"{sys.prefix}/", ".venv/").replace(f"{ROOT}/", "")


def python(*arguments: str) -> tuple[str, ...]:
    """A command of this interpreter."""
    return (sys.executable, *arguments)


def uvicorn(app: str, port: int) -> tuple[str, ...]:
    """The command of uvicorn without its access log, which would take each request time."""
    return python("-m", "uvicorn", app, "--port", str(port), "--no-access-log")


@contextmanager
def running(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a server and yields its process at once, long before it answers.

    What it prints goes to build/bench/<name>.log. Raises RuntimeError when its port is taken.
    """
    refuse_occupied(server.port)
    CACHE.mkdir(parents=True, exist_ok=True)
    with log_of(server).open("wb") as log:
        process = subprocess.Popen(
            server.command,
            env=os.environ | server.environ,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            end(process)


def log_of(server: Server) -> Path:
    """The file of a server's output, which is written anew at each start."""
    return CACHE / f"{server.name}.log"


def refuse_occupied(port: int) -> None:
    """Another program there would answer in the server's place."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RuntimeError(f"Port {port} is taken: end the program that listens on it.")


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a server as Ctrl-C does, and by force where that does not help."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(END_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
