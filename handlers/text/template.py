"""Messages to one prompt, by the model's own chat template.

Renders as transformers' apply_chat_template does (utils/chat_template_utils.py in 4.57), in a
sandbox: a template is part of a downloaded model and must not reach the process. Does not
know ids. Called by the API, and by model_export, which proves that the prompts are equal.

Importing jinja2 takes 20 ms, so startup imports this module beside the loading of the weights.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from handlers.deferred import deferred
from handlers.errors import ArtifactError, InvalidRequest
from handlers.text.tool_calls import HERMES, ToolFormat
from handlers.text.tool_fallback import without_tools

# For templates in files and their cache: OpenSSL and more, 7 ms.
with deferred("hashlib", "tempfile"):
    import jinja2
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from handlers.engine.artifact import Artifact

# For a model without a template: turns by name, which a base model can continue.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


class ChatTemplate:
    """One model's template, compiled."""

    def __init__(self, source: str | None, special_tokens: Mapping[str, str]) -> None:
        """`special_tokens`: what the template may name, such as bos_token.

        Raises ArtifactError when `source` is not a template.
        """
        self._special_tokens = dict(special_tokens)
        own = ToolFormat.of(source)
        self._knows_tools = own is not None
        self.tool_format = own or HERMES
        """How this model calls tools: in its template's format, or in the one it is told."""
        try:
            self._template = _environment().from_string(source or PLAIN_TEMPLATE)
        except jinja2.TemplateSyntaxError as error:
            raise ArtifactError(
                f"The chat template cannot be read, line {error.lineno}: "
                f"{error.message}. Export the model again with a template that jinja2 accepts."
            ) from None

    @classmethod
    def of(cls, artifact: Artifact) -> ChatTemplate:
        """The artefact's template. Raises ArtifactError."""
        return cls(artifact.chat_template, artifact.manifest.special_tokens)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt. `tools` are OpenAI's, and so are the messages, but for arguments: an object.

        A template that knows no tools gets them as text. Raises InvalidRequest when the template
        refuses the messages: a role, their order. Raises jinja2's SecurityError when the template
        itself reaches out of its sandbox.
        """
        try:
            if not self._knows_tools:
                messages, tools = without_tools(messages, tools), None
            return self._template.render(
                messages=messages,
                tools=tools or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except RecursionError:  # in a filter such as tojson, or in the template itself
            raise InvalidRequest(
                "The messages or the tools are nested too deeply for the model's chat template.",
                param="messages",
            ) from None
        except SecurityError:
            raise  # no request is at fault: answered 500, and the log has it
        # Besides its own raise_exception: templates index and join what they are given, so
        # messages that do not fit one end in any of these.
        except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {error}", param="messages"
            ) from None


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; a prompt is the same without."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance variable

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
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
    """As transformers' filter: jinja2's own escapes HTML, which a prompt must not have."""
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
    """Local time, as transformers has it: a container's local time is UTC."""
    return datetime.now().astimezone().strftime(pattern)
