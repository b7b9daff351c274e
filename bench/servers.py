"""The two servers as processes: how each is started, found ready, weighed and ended."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from model_export.hashing import sha256_of

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "bench"
RECIPE = "smollm2-135m"
END_LIMIT_SECONDS = 30


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """A command line that serves /v1/completions on a port of this machine."""

    name: str
    port: int
    environ: dict[str, str]
    command: tuple[str, ...]

    @property
    def line(self) -> str:
        """What one would type at a prompt to start it."""
        settings = [f"{name}={value}" for name, value in self.environ.items()]
        return " ".join([*settings, shlex.join(("python", *self.command))])


def kindling(threads: int, slots: int) -> Server:
    """Our Cloud Run handler, as `make serve` starts it, with a slot for each stream."""
    environ = {
        "FUNCTION_TARGET": "handler",
        "FUNCTION_SOURCE": "handlers/cloud_run.py",
        "HOST": "127.0.0.1",
        "PORT": "18480",
        "KINDLING_THREADS": str(threads),
        "KINDLING_SLOTS": str(slots),
    }
    return Server("kindling", 18480, environ, ("-m", "handlers.serve"))


def plain(threads: int) -> Server:
    """bench/peers/plain_fastapi.py.

    OpenMP's threads spin while they wait, as is its default. With OMP_WAIT_POLICY=PASSIVE one
    stream ran at 15 tokens a second instead of 23 on 2 CPUs, and four together no faster.
    """
    environ = {
        "PLAIN_MODEL": str(plain_model().relative_to(ROOT)),
        "OMP_NUM_THREADS": str(threads),
    }
    return Server("plain", 18481, environ, uvicorn("bench.peers.plain_fastapi:app", 18481))


def uvicorn(app: str, port: int) -> tuple[str, ...]:
    """Of the options that handlers.serve gives uvicorn, the one that costs a request time."""
    return ("-m", "uvicorn", app, "--port", str(port), "--no-access-log")


def plain_model() -> Path:
    """Where the plain server's model lies: another place for each content of the recipe."""
    recipe = ROOT / "model_export" / "recipes" / f"{RECIPE}.toml"
    return LOGS / f"plain-{sha256_of(recipe)[:12]}"


def prepare_plain_model() -> None:
    """Once; in a process of its own, which takes torch with it when it ends."""
    if not plain_model().exists():
        LOGS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bench.peers.plain_model", RECIPE, str(plain_model())]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"The plain server's model could not be saved:\n{done.stderr}")


@contextmanager
def running(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a server and yields its process at once, long before it answers.

    What it prints goes to build/bench/<name>.log. Raises RuntimeError when its port is taken.
    """
    refuse_occupied(server.port)
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{server.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *server.command],
            env=os.environ | server.environ,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            end(process)


def refuse_occupied(port: int) -> None:
    """Another program there would answer in the server's place."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise RuntimeError(f"Port {port} is taken: end the program that listens on it.")


def end(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does; by force where that does not help."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(END_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def peak_rss_mb(pid: int) -> float:
    """Megabytes (1e6) that the process and its children have held at most, each at its own peak."""
    kilobytes = sum(_peak_rss_kb(member) for member in _process_tree(pid))
    return kilobytes * 1024 / 1e6


def _process_tree(pid: int) -> list[int]:
    """The process, its children, and theirs (proc_pid_task_tid_children(5))."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]
    return [pid, *(member for child in children for member in _process_tree(child))]


def _peak_rss_kb(pid: int) -> int:
    """VmHWM, the high-water mark of the resident set (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
