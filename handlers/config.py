"""Reads the configuration. This is the only file that reads environment variables.

| variable | default | meaning |
|---|---|---|
| MODEL_DIR | build/model | the directory that model_export wrote |
| MODEL_URI | none | s3://, gs:// or https://: fetched at start, in place of MODEL_DIR |
| KINDLING_SLOTS | 4 | sequences that run at once; each holds a key-value cache of one context |
| KINDLING_CONTEXT_LENGTH | 4096 | tokens of prompt and answer in a slot, up to the model's limit |
| KINDLING_PREFILL_CHUNK | 128 | prompt tokens computed between two decode steps of the others |
| KINDLING_PROMPT_LOOKUP | on | draft tokens out of the prompt where that is faster; or off |
| KINDLING_DRAFT_MODEL | on | use the artefact's draft model where that is faster; or off |
| KINDLING_SAMPLING_DEFAULTS | model | unset sampling fields get the model's own values; or off |
| KINDLING_SPECIAL_TOKENS_IN_TEXT | off | special tokens in users' texts are tokens: on; or off |
| KINDLING_QUEUE_LIMIT | 32 | requests that may wait for a slot; one more is answered 429 |
| KINDLING_THREADS | the CPUs this process may use | threads of the ONNX Runtime session |
| KINDLING_API_KEY | none | requests carry it: `Authorization: Bearer <key>` or `x-api-key: <key>` |
| KINDLING_CORS_ORIGINS | none | web pages that may call: comma-separated origins, or * |
| KINDLING_BASE_PATH | none | the prefix that a gateway or a proxy adds to every path: /llm |
| KINDLING_MAX_BODY_BYTES | 4194304 | a larger request body is answered 413 |
| KINDLING_REQUEST_SECONDS | 60 | Cloud Run: time for a request's head, and then for its body |
| KINDLING_KEEP_ALIVE_SECONDS | 620 | Cloud Run: how long an idle connection stays open |
| KINDLING_TIMEOUT_SECONDS | 290 | Cloud Run: when a generation is cut; keep it below --timeout |
| KINDLING_DRAIN_SECONDS | 8 | time after SIGTERM in which running answers may finish |
| KINDLING_REST_API | whole | Lambda: how API Gateway's REST APIs take answers: whole or stream |
| KINDLING_REST_SECONDS | 29 | Lambda: when these APIs give up, their integration's timeout |
| KINDLING_LOG_LEVEL | INFO | DEBUG, INFO, WARNING or ERROR |
| PORT | 8080 | Cloud Run: where to listen; the platform sets it |
| HOST | 0.0.0.0 | Cloud Run: the address to listen on |

An encoder has no slots: KINDLING_SLOTS and KINDLING_QUEUE_LIMIT together are the requests that it
holds, and KINDLING_CONTEXT_LENGTH bounds an input.

Also read, because the platform sets them: AWS_LAMBDA_FUNCTION_MEMORY_SIZE (Lambda grants
CPU in proportion to memory), AWS_CONTAINER_AUTHORIZATION_TOKEN (SnapStart's credentials),
AWS_LAMBDA_RUNTIME_API (where handlers.aws_lambda.runtime asks for invocations),
AWS_LAMBDA_MAX_CONCURRENCY (how many it asks for at once), AWS_LAMBDA_INITIALIZATION_TYPE
(whether a request waits for the start) and _X_AMZN_TRACE_ID (the invocation's trace).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from handlers.cpus import available_cpus
from handlers.errors import SettingsError

T = TypeVar("T")

# An origin as a browser sends it: lower case, without a path. https://fetch.spec.whatwg.org/#origin-header
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,*A-Z]+")

# Without a query, which could not be a prefix, and without a password, which would be logged.
URI = re.compile(r"(s3|gs|https)://[^/\s?#@]+(/[^\s?#]*)?")
LOCAL_URI = re.compile(r"http://(127\.0\.0\.1|localhost)(:\d+)?(/[^\s?#]*)?")


class ApiKey(str):
    """An API key that is not shown when the settings are printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Settings(msgspec.Struct, frozen=True):
    """One process's configuration. Sizes are in tokens, times in seconds, bodies in bytes."""

    model_dir: Path
    model_uri: str | None
    slots: int
    context_length: int
    prefill_chunk: int
    prompt_lookup: bool
    draft_model: bool
    """Whether the artefact's draft model is loaded, if it has one."""
    sampling_defaults: bool
    """Whether sampling fields that a request leaves out have the model's own values."""
    special_tokens_in_text: bool
    """Whether the names of special tokens in messages and documents become these tokens."""
    queue_limit: int
    threads: int
    api_key: ApiKey | None
    cors_origins: tuple[str, ...]
    """Origins, or "*" alone; empty where no web page may call."""
    base_path: str
    """With a slash before each part, "" for none."""
    max_body_bytes: int
    request_seconds: float
    keep_alive_seconds: float
    timeout_seconds: float
    drain_seconds: float
    rest_streams: bool
    """Whether API Gateway's REST APIs have the response transfer mode STREAM."""
    rest_seconds: float
    log_level: str
    port: int
    host: str
    concurrency: int
    """Invocations that Lambda hands over at once."""
    initialization: str
    """Why Lambda starts the process: "on-demand", "snap-start", "provisioned-concurrency" …"""

    @property
    def on_demand(self) -> bool:
        """Returns whether a request waits for the start."""
        return self.initialization == "on-demand"

    @property
    def snap_start(self) -> bool:
        """Returns whether the process will be copied, and requests wait for a copy."""
        return self.initialization == "snap-start"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Reads all settings. Raises SettingsError, naming the variable, for an unusable value."""
        read = _Reader(environ)
        cpus = available_cpus(environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"))
        return cls(
            model_dir=Path(environ.get("MODEL_DIR") or "build/model"),
            model_uri=read.uri("MODEL_URI"),
            slots=read.integer("KINDLING_SLOTS", 4, minimum=1),
            context_length=read.integer("KINDLING_CONTEXT_LENGTH", 4096, minimum=16),
            prefill_chunk=read.integer("KINDLING_PREFILL_CHUNK", 128, minimum=1),
            prompt_lookup=read.choice("KINDLING_PROMPT_LOOKUP", "ON", ("ON", "OFF")) == "ON",
            draft_model=read.choice("KINDLING_DRAFT_MODEL", "ON", ("ON", "OFF")) == "ON",
            sampling_defaults=read.choice("KINDLING_SAMPLING_DEFAULTS", "MODEL", ("MODEL", "OFF"))
            == "MODEL",
            special_tokens_in_text=read.choice(
                "KINDLING_SPECIAL_TOKENS_IN_TEXT", "OFF", ("ON", "OFF")
            )
            == "ON",
            queue_limit=read.integer("KINDLING_QUEUE_LIMIT", 32, minimum=0),
            threads=read.integer("KINDLING_THREADS", cpus, minimum=1),
            api_key=read.key("KINDLING_API_KEY"),
            cors_origins=read.origins("KINDLING_CORS_ORIGINS"),
            base_path=read.path("KINDLING_BASE_PATH"),
            max_body_bytes=read.integer("KINDLING_MAX_BODY_BYTES", 4 * 1024 * 1024, minimum=1),
            request_seconds=read.seconds("KINDLING_REQUEST_SECONDS", 60.0),
            # Google's load balancers keep theirs for 600 s, and ask for more from their backends:
            # https://docs.cloud.google.com/load-balancing/docs/https#timeouts_and_retries
            # Those of AWS and nginx keep them for 60 s, clients written in Go for 90 s.
            keep_alive_seconds=read.seconds("KINDLING_KEEP_ALIVE_SECONDS", 620.0),
            timeout_seconds=read.seconds("KINDLING_TIMEOUT_SECONDS", 290.0),
            drain_seconds=read.seconds("KINDLING_DRAIN_SECONDS", 8.0),
            rest_streams=read.choice("KINDLING_REST_API", "WHOLE", ("WHOLE", "STREAM")) == "STREAM",
            rest_seconds=read.seconds("KINDLING_REST_SECONDS", 29.0),
            log_level=read.choice(
                "KINDLING_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")
            ),
            port=read.integer("PORT", 8080, minimum=1, maximum=65_535),
            host=environ.get("HOST") or "0.0.0.0",  # noqa: S104  what Cloud Run's contract asks for
            concurrency=read.integer("AWS_LAMBDA_MAX_CONCURRENCY", 1, minimum=1),
            initialization=environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") or "on-demand",
        )


class _Reader(msgspec.Struct, frozen=True):
    environ: Mapping[str, str]

    def integer(self, name: str, default: int, *, minimum: int, maximum: int | None = None) -> int:
        value = self._parse(name, default, int, "a whole number")
        if value < minimum:
            raise SettingsError(f"{name} is {value}, but must be at least {minimum}.")
        if maximum is not None and value > maximum:
            raise SettingsError(f"{name} is {value}, but must be at most {maximum}.")
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self._parse(name, default, float, "a number of seconds")
        if not (math.isfinite(value) and value > 0):
            raise SettingsError(f"{name} is {value}, but must be a positive number of seconds.")
        return value

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        value = (self.environ.get(name) or default).upper()
        if value not in allowed:
            raise SettingsError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}.")
        return value

    def key(self, name: str) -> ApiKey | None:
        """Returns the key, stripped: a secret read from a file ends with a line break."""
        text = self.environ.get(name)
        if not text:
            return None
        key = text.strip()
        if not re.fullmatch("[!-~]+", key):  # what an HTTP header carries unchanged
            raise SettingsError(f"{name} must be printable ASCII without spaces.")
        return ApiKey(key)

    def uri(self, name: str) -> str | None:
        """Returns the URI. An error does not repeat it, since it may hold a password."""
        text = self.environ.get(name)
        if not text:
            return None
        if not (URI.fullmatch(text) or LOCAL_URI.fullmatch(text)):
            raise SettingsError(
                f"{name} must be s3://bucket/prefix, gs://bucket/prefix or https://host/path, "
                f"without user, query and fragment; http:// is for 127.0.0.1 alone."
            )
        return text

    def path(self, name: str) -> str:
        parts = [part for part in self.environ.get(name, "").strip().split("/") if part]
        if not all(re.fullmatch(r"[^\s?#%]+", part) for part in parts):
            raise SettingsError(f"{name} must be a path such as /llm, without query and escapes.")
        return "".join(f"/{part}" for part in parts)

    def origins(self, name: str) -> tuple[str, ...]:
        listed = (origin.strip() for origin in self.environ.get(name, "").split(","))
        origins = tuple(origin for origin in listed if origin)
        for origin in origins:
            if not ORIGIN.fullmatch(origin) and origins != ("*",):
                raise SettingsError(
                    f"{name} has {origin!r}, but must be * or a list of origins with commas "
                    f"between, each a scheme and a host: https://a.example,http://localhost:3000."
                )
        return origins

    def _parse(self, name: str, default: T, parse: Callable[[str], T], what: str) -> T:
        text = self.environ.get(name)
        if not text:
            return default
        try:
            return parse(text)
        except ValueError:
            raise SettingsError(f"{name} is {text!r}, but must be {what}.") from None


def runtime_api(environ: Mapping[str, str] = os.environ) -> str:
    """Returns host and port of Lambda's Runtime API. Raises SettingsError if they are not set.

    Not among the Settings, so that unusable settings can be reported there.
    """
    address = environ.get("AWS_LAMBDA_RUNTIME_API", "")
    if not re.fullmatch(r".+:\d+", address):
        raise SettingsError(
            f"AWS_LAMBDA_RUNTIME_API is {address!r}, but must be a host and a port. Lambda and its "
            f"emulator set it: start this command through one of them."
        )
    return address


# An invocation's trace, in the form of the X-Amzn-Trace-Id header; AWS's SDKs for X-Ray read it.
_TRACE_ID = "_X_AMZN_TRACE_ID"


def trace_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns the running invocation's trace, if awslambdaric or `set_trace_id` has set it."""
    return environ.get(_TRACE_ID) or None


def set_trace_id(trace_id: str | None) -> None:
    """Sets the trace for this process, which must have one invocation at a time.

    https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html
    """
    if trace_id is None:
        os.environ.pop(_TRACE_ID, None)
    else:
        os.environ[_TRACE_ID] = trace_id


def container_token(environ: Mapping[str, str] = os.environ) -> str | None:
    """Returns what a process that Lambda prepares for SnapStart gets in place of credentials.

    https://docs.aws.amazon.com/lambda/latest/dg/snapstart-activate.html
    """
    return environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")


def limit_openblas_threads() -> None:
    """Gives OpenBLAS one thread. Must run before the first `import numpy`; a value set stays.

    Nothing at run time multiplies matrices with numpy, yet importing it starts OpenBLAS's threads,
    which spin: 60 ms of processor time. Of one vCPU that is a tenth of the start.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def disable_onnxruntime_telemetry() -> None:
    """Turns ONNX Runtime's telemetry off. Must run before the first `import onnxruntime`.

    Official Linux wheels since 1.29 carry an uploader that is on by default; this variable is
    their full opt-out: https://github.com/microsoft/onnxruntime/issues/29843
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
