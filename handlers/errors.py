"""The tree of all errors that Kindling raises on purpose.

KindlingError
  StartupError             stops the process at start, with one line that says what and where
    SettingsError          an environment variable has a value that cannot be used
    ArtifactError          the model directory is missing, cut short or of another schema
    FetchError             MODEL_URI cannot be read, or its files do not fit on the disk
  RequestError             the answer to one request; the process keeps serving
    InvalidRequest         400  a field is missing, of the wrong type or out of range
      ContextLengthExceeded  400  the prompt leaves no room in the context
    GrammarTooComplex      400  the request's grammar exceeds a limit during the answer
    InvalidApiKey          401  an API key is configured and the request does not carry it
    NotFound               404  no such path
    MethodNotAllowed       405  the path exists, for other methods
    RequestTimeout         408  the request's body did not arrive in time
    RequestTooLarge        413  the request's body is over the limit
    UnsupportedMediaType   415  the request's body has a content coding that is not supported
    ResponseTooLarge       413  the answer is larger than the platform can carry
    Overloaded             429  the queue is full
    EngineFault            500  a bug of ours; its details go to the log, never into the body
    NotReady               503  loading or draining
    DeadlineExceeded       504  the deadline passed before there was an answer

model_export adds ExportError to the same tree (model_export/reporting.py).
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ClassVar, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SHOWN_CHARACTERS = 256
"""How much of a client's own text a line of the log or an error repeats."""

STOPPING = "The server is stopping: try another instance."
"""The message of NotReady for a request that came too late to be accepted."""
SHUT_DOWN = "The server is shutting down. Try again."
"""The message of NotReady for an accepted request that the shutdown ends."""


def shortened(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """Returns the text, with … in place of its middle if it has more than `characters`.

    For what a client has sent and a log or an error repeats: its two ends show what it was.
    """
    if len(text) <= characters:
        return text
    end = (characters - 1) // 2
    return f"{text[: characters - 1 - end]}…{text[len(text) - end :]}"


def quoted(text: str) -> str:
    """Returns a client's own text as an error repeats it: in quotes, and shortened."""
    return repr(shortened(text))


def ends_a_task(error: BaseException) -> bool:
    """Returns whether it ends a process, a task or a generator, and so must be raised again.

    All others end one request and are answered, also a panic in Rust, which is no Exception.
    asyncio's CancelledError is recognised by its name: a process on Lambda does not import asyncio.
    """
    ending = (KeyboardInterrupt, SystemExit, GeneratorExit)
    return isinstance(error, ending) or type(error).__name__ == "CancelledError"


def panic_is_fault(
    library: str,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Decorates a function that calls a library in Rust: a panic there becomes an EngineFault.

    A panic comes to Python as a BaseException, which no handler of errors catches: the request
    would get no answer, and the thread that runs it could end. Every other error is passed on.

    `library`: the name of the library in the log.
    """

    def guard(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                if isinstance(error, Exception) or ends_a_task(error):
                    raise
                raise EngineFault(f"{library} panicked: {error}") from error

        return guarded

    return guard


def as_request_error(error: BaseException, what: str = "A request failed") -> RequestError:
    """Returns a RequestError as it is, and an EngineFault in place of any other error.

    `what` says what failed: the EngineFault's message begins with it, which only the log shows.
    """
    if isinstance(error, RequestError):
        return error
    fault = EngineFault(f"{what}: {error!r}")
    fault.__cause__ = error
    return fault


class KindlingError(Exception):
    """The root of the tree. `str(error)` is a sentence that says what is wrong and what to do."""


class StartupError(KindlingError):
    """The process cannot serve."""


class SettingsError(StartupError):
    """An environment variable has a value that cannot be used."""


class ArtifactError(StartupError):
    """The model directory cannot be served."""


class FetchError(StartupError):
    """The model cannot be fetched."""


class RequestError(KindlingError):
    """Ends one request with an HTTP status and OpenAI's error body.

    `param` names the field of the request that is at fault, if there is one.
    `retry_after` is the number of whole seconds a client should wait, sent as Retry-After.

    The docstring of each class below is its description in /openapi.json.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    type: ClassVar[str] = "invalid_request_error"
    retry_after: ClassVar[int | None] = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestError):
    """A field is missing, of the wrong type or out of range."""

    status = 400
    code = "invalid_request_error"

    def within(self, field: str) -> InvalidRequest:
        """Returns an error about a field's value as one that names the field, and a path in it."""
        param = f"{field}.{self.param}" if self.param else field
        return InvalidRequest(f"{field}: {self}", param=param)


class ContextLengthExceeded(InvalidRequest):
    """The prompt leaves no room in the context."""

    # LangChain and litellm recognise it by its message and not by its code. Both know "prompt is
    # too long", so messages begin with that.
    code = "context_length_exceeded"


class GrammarTooComplex(RequestError):
    """The request's grammar exceeds a limit during the answer, which compiling does not show."""

    status = 400
    code = "grammar_too_complex"


class InvalidApiKey(RequestError):
    """An API key is configured and the request does not carry it."""

    status = 401
    code = "invalid_api_key"
    type = "authentication_error"


class NotFound(RequestError):
    """No such path."""

    status = 404
    code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, for the methods in `allowed`."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTimeout(RequestError):
    """The request's body did not arrive in time."""

    status = 408
    code = "request_timeout"


class RequestTooLarge(RequestError):
    """The request's body is over the limit."""

    status = 413
    code = "request_too_large"


class UnsupportedMediaType(RequestError):
    """The request's body has a content coding that is not supported."""

    status = 415
    code = "unsupported_media_type"

    def __init__(self, message: str, *, accepted: tuple[str, ...]) -> None:
        super().__init__(message)
        self.accepted = accepted


class ResponseTooLarge(RequestError):
    """The answer is larger than the platform can carry."""

    status = 413
    code = "response_too_large"


class Overloaded(RequestError):
    """The queue is full: try again later."""

    status = 429
    code = "overloaded"
    type = "rate_limit_error"
    retry_after = 1


class EngineFault(RequestError):
    """A bug of ours. The message is for the log; the body says only that it happened."""

    status = 500
    code = "internal_error"
    type = "server_error"


class NotReady(RequestError):
    """The server is loading or shutting down."""

    status = 503
    code = "not_ready"
    type = "server_error"
    retry_after = 1


class DeadlineExceeded(RequestError):
    """The deadline passed before there was an answer."""

    status = 504
    code = "deadline_exceeded"
    type = "server_error"
