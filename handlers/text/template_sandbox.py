"""The sandbox that chat templates are compiled in, with transformers' filters and functions.

It is as in utils/chat_template_utils.py of transformers 4.57. A template is part of a downloaded
model and must not reach the process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import NoReturn

from handlers.errors import ArtifactError, ContextLengthExceeded
from handlers.lazy_imports import lazy_imports

# Its cache and its loaders, for templates in files, bring OpenSSL and tempfile: 7 ms. They are
# jinja2's own, so the thread that loads the weights meanwhile cannot come upon the stand-ins.
with lazy_imports("jinja2.bccache", "jinja2.loaders"):
    import jinja2
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment, safe_range

ESCAPES = SecurityError
"""The error of a template that reaches out of its sandbox. It is one of REFUSALS, too."""

# The errors of a template that refuses messages. Not only its own raise_exception: it indexes, adds
# and filters what it is given, so messages that do not fit it end in any of these. Nothing else
# runs at that time but the three functions below.
REFUSALS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


MAX_LOOPED = 1_000_000
"""The numbers that a template may loop over for one prompt. Gemma 4's looks back from each message
to the first: 1,400 messages are as many, and take 10 s in which nothing else is rendered."""


class _Generation(Extension):
    """Ignores `{% generation %}`, which marks the assistant's words for training."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance variable

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def compile_template(
    source: str, sandbox: type[SandboxedEnvironment] = ImmutableSandboxedEnvironment
) -> jinja2.Template:
    """Compiles a chat template. Raises ArtifactError for what is not a template."""
    try:
        return _environment(sandbox).from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise ArtifactError(
            f"The chat template cannot be read, line {error.lineno}: "
            f"{error.message}. Export the model again with a template that jinja2 accepts."
        ) from None


def counted_range(field: str) -> Callable[..., range]:
    """Returns `range` for one prompt: beyond MAX_LOOPED it raises ContextLengthExceeded.

    `field`: the request's field that has the messages.
    """
    looped = 0

    def counted(*bounds: int) -> range:
        nonlocal looped
        numbers = safe_range(*bounds)
        looped += len(numbers)
        if looped > MAX_LOOPED:
            raise ContextLengthExceeded(
                "The prompt is too long: it has more messages than the model's chat template can "
                "write in seconds. Leave out earlier ones.",
                param=field,
            )
        return numbers

    return counted


def _environment(sandbox: type[SandboxedEnvironment]) -> jinja2.Environment:
    environment = sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Writes JSON as transformers' filter does: jinja2's own escapes HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """Returns the local time, as in transformers. A container's local time is UTC."""
    return datetime.now().astimezone().strftime(pattern)
