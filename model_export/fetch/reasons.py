"""Why transformers could not load something, in one line."""

from __future__ import annotations

from huggingface_hub.errors import StrictDataclassError

UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError, StrictDataclassError)
"""What transformers raises for files that it cannot take; the last of a config.json, since 5."""


def reason_of(error: Exception) -> str:
    """The error's first line, or our own words where transformers asks to be trusted.

    Every call passes trust_remote_code=False: without it transformers asks at the terminal whether
    to run the code of the repository, and takes a y for an answer.
    """
    words = str(error).strip()
    if "trust_remote_code" in words:
        return (
            "its code is not in transformers but comes with its files, and the export does not run "
            "code that comes with a model."
        )
    first, _, rest = (words or type(error).__name__).partition("\n")
    return f"{first} {rest.strip()}" if first.endswith(":") else first
