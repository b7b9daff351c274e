"""The AWS Lambda adapter. awslambdaric imports this package and reads its `handler`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handlers.aws_lambda.function import handler as handler


# function.py loads the model while it is imported. Python imports this file before any other of
# the package, so an import of function.py here would load a model for an import of events.py too.
def __getattr__(name: str) -> Any:
    if name != "handler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from handlers.aws_lambda.function import handler
    except AttributeError as error:  # awslambdaric would report that there is no handler
        raise RuntimeError(f"The function cannot be loaded: {error}") from error
    return handler
