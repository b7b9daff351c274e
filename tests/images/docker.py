"""Docker's command line, as far as the tests need it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.images import inspect
from tests.support.aws_events import HttpCall, function_url
from tests.support.servers import wait_until

ROOT = Path(__file__).parent.parent.parent
DOCKER = os.environ.get("DOCKER") or "docker"
LAMBDA, CLOUD_RUN = "kindling-lambda", "kindling-cloudrun"
EMBEDDINGS = "all-minilm-l6-v2"
"""The tag of the images whose model embeds."""

# The clouds' file systems: nothing can be written but /tmp.
READ_ONLY = ("--read-only", "--tmpfs", "/tmp")
OFFLINE = ("--network", "none")
# Lambda grants one vCPU with each 1,769 MB, and says so in a variable.
MEGABYTES_PER_CPU = 1769
EMULATOR = ("--volume", f"{ROOT / 'build' / 'aws-lambda-rie'}:/emulator:ro")
INVOCATIONS = "/2015-03-31/functions/function/invocations"

# To a free port of this machine, where `Container.url` finds it.
PUBLISHED = ("--publish", "127.0.0.1::8080")

# What a function's configuration names in awslambdaric's place.
OWN_RUNTIME = ("python", "-m", "handlers.aws_lambda.runtime")

# Runs in a container, which has no curl: method, path and port as arguments, the body on stdin.
ASK = """
import http.client, sys
client = http.client.HTTPConnection("127.0.0.1", int(sys.argv[3]), timeout=120)
client.request(sys.argv[1], sys.argv[2], sys.stdin.buffer.read())
sys.stdout.buffer.write(client.getresponse().read())
"""


def docker(*arguments: str, data: bytes | None = None) -> str:
    """Returns what the command prints. Raises RuntimeError with its complaint when it fails."""
    done = subprocess.run([DOCKER, *arguments], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout.decode()


@dataclass(frozen=True)
class Container:
    """One that runs in the background."""

    id: str

    def python(self, script: str, *arguments: str, data: bytes = b"") -> str:
        return docker("exec", "-i", self.id, "python", "-c", script, *arguments, data=data)

    def ask(self, method: str, path: str, body: object = None, port: int = 8080) -> str:
        data = b"" if body is None else json.dumps(body).encode()
        return self.python(ASK, method, path, str(port), data=data)

    def invoke(self, event: object) -> Any:
        """Returns what the Lambda handler returned to the emulator."""
        return json.loads(self.ask("POST", INVOCATIONS, event))

    def on_function_url(self, path: str, body: object) -> tuple[int, Any]:
        """Status and body of what the Lambda handler answers to a function URL's POST."""
        answer = self.invoke(function_url(HttpCall("POST", path, json.dumps(body).encode())))
        content = answer["body"]
        if answer["isBase64Encoded"]:
            content = base64.b64decode(content)
        return answer["statusCode"], json.loads(content)

    @property
    def url(self) -> str:
        """The URL of a container that was started with PUBLISHED."""
        return f"http://{docker('port', self.id, '8080').split()[0]}"

    @property
    def log(self) -> str:
        done = subprocess.run([DOCKER, "logs", self.id], capture_output=True, check=True)
        return done.stdout.decode() + done.stderr.decode()

    @property
    def address(self) -> str:
        return self._network("IPAddress")

    @property
    def gateway(self) -> str:
        return self._network("Gateway")

    def _network(self, what: str) -> str:
        form = "{{range .NetworkSettings.Networks}}{{.%s}}{{end}}" % what  # noqa: UP031
        return docker("inspect", "-f", form, self.id).strip()

    def is_listening(self, port: int = 8080) -> bool:
        """Reads the kernel's table of sockets: state 0A is LISTEN, and asking leaves no trace."""
        table = docker("exec", self.id, "sh", "-c", "cat /proc/net/tcp /proc/net/tcp6")
        return any(f":{port:04X} " in line and " 0A " in line for line in table.splitlines())

    def stop(self) -> int:
        """Its exit status after SIGTERM; 137 if it has to be killed."""
        docker("stop", "--time", "30", self.id)
        return int(docker("inspect", "-f", "{{.State.ExitCode}}", self.id))


@contextmanager
def running(
    image: str, *command: str, options: tuple[str, ...] = (), cpus: int = 1, **environ: str
) -> Iterator[Container]:
    """A container with so many vCPUs and the memory that comes with them."""
    megabytes = MEGABYTES_PER_CPU * cpus
    options = ("--cpus", str(cpus), "--memory", f"{megabytes}m", *options)
    variables = [part for pair in environ.items() for part in ("--env", "=".join(pair))]
    started = docker("run", "--detach", *options, *variables, image, *command)
    container = Container(started.strip())
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.id)


@contextmanager
def cloud_run(
    *options: str, cpus: int = 1, image: str = CLOUD_RUN, **environ: str
) -> Iterator[Container]:
    """The image as Cloud Run starts it, its port open."""
    port = int(environ.get("PORT", "8080"))
    with running(image, options=options, cpus=cpus, **environ) as container:
        wait_until(lambda: container.is_listening(port))
        yield container


@contextmanager
def aws_lambda(
    *options: str,
    runtime: tuple[str, ...] = (),
    cpus: int = 1,
    image: str = LAMBDA,
    **environ: str,
) -> Iterator[Container]:
    """The image behind the emulator, which is mounted beside it and starts the image's command.

    Or `runtime`, which a function's configuration may name instead. As user 993, who is nobody
    in the image: Lambda, too, gives the process a user of its own.
    """
    command = runtime or (*inspect(image)["Entrypoint"], *inspect(image)["Cmd"])
    options = (*options, *EMULATOR, "--user", "993:990", "--entrypoint", "/emulator")
    environ |= {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEGABYTES_PER_CPU * cpus)}
    with running(image, *command, options=options, cpus=cpus, **environ) as container:
        wait_until(container.is_listening)
        yield container


def copied_model(image: str, directory: Path) -> Path:
    """The image's model, copied into a directory."""
    container = docker("create", image).strip()
    docker("cp", f"{container}:/opt/kindling/model", str(directory))
    docker("rm", container)
    return directory / "model"


def inside(image: str, script: str) -> str:
    """Returns what a Python script prints in a container, run by root to see everything."""
    options = ("--rm", *OFFLINE, "--user", "0", "--entrypoint", "python")
    return docker("run", *options, image, "-c", script)
