"""Renders messages to one prompt by the model's own chat template.

That is as transformers' apply_chat_template does it (utils/chat_template_utils.py in 4.57), which
an export proves, and in a sandbox: a template is part of a downloaded model and must not reach the
process.

Importing jinja2 takes 30 ms, so startup imports this module beside the loading of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.artifact.dialect import HERMES, Dialect, ToolFormat
from handlers.errors import ContextLengthExceeded, InvalidRequest
from handlers.text.template_sandbox import ESCAPES, REFUSALS, compile_template, counted_range

if TYPE_CHECKING:
    from handlers.artifact.manifest import Artifact

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]

# For a model without a template: turns by name, which a base model can continue.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


# The variables that every template is given, or that transformers has a meaning for.
OWN_NAMES = (
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)

# transformers' mark. The space shows whether the template cuts white space off a message's end.
MARK = "CONTINUE_FINAL_MESSAGE_TAG "


class PromptOptions(msgspec.Struct, frozen=True):
    """The end of a prompt, and the variables of one request."""

    add_generation_prompt: bool = True
    """Whether the assistant's turn begins after the messages."""
    continue_final_message: bool = False
    """Whether the prompt ends within the last message, after its text. No turn begins then."""
    values: Mapping[str, Any] = {}
    """Variables that only this template knows, such as enable_thinking."""
    field: str = "messages"
    """The request's field that has the messages, for errors."""


class ChatTemplate:
    """One model's template, compiled."""

    def __init__(
        self,
        source: str | None,
        special_tokens: Mapping[str, str],
        tool_source: str | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        """`special_tokens`: by the variables that a template has for them, such as bos_token.

        `tool_source`: the source of another template for chats with tools. It is not used if it
        writes calls in an unknown form. `dialect`: as the manifest has it, for the template for
        tools if there is one. Raises ArtifactError for what is not a template.
        """
        self.source = source
        self.sources = tuple(filter(None, (source or PLAIN_TEMPLATE, tool_source)))
        """All that may write into a prompt."""
        self.dialect = dialect = dialect or Dialect()
        """The form of this model's answers."""
        self._special_tokens = dict(special_tokens)
        has_tools = dialect.tools is not None and tool_source is not None
        self._tool_template = compile_template(tool_source or "") if has_tools else None
        self._template = compile_template(source or PLAIN_TEMPLATE)

    @property
    def tool_format(self) -> ToolFormat:
        """The format in which this model calls tools: its template's, or the one in the prompt."""
        return self.dialect.tools or HERMES

    @classmethod
    def of(cls, artifact: Artifact) -> ChatTemplate:
        """Compiles the artefact's template. Raises ArtifactError."""
        source, tokens = artifact.chat_template, artifact.manifest.special_tokens
        return cls(source, tokens, artifact.tool_template, artifact.dialect)

    def prompt(
        self,
        messages: Messages,
        tools: Tools | None = None,
        options: PromptOptions | None = None,
    ) -> str:
        """Renders the conversation, in the first form of it that the template accepts.

        `tools` and messages are OpenAI's, but the arguments of a call are an object, or a text
        that is none. Raises as `render` does.
        """
        options = options or PromptOptions()
        if options.continue_final_message:
            *before, last = messages
            marked = {**last, "content": last["content"] + MARK}
            prompt = self._first_accepted([*before, marked], tools, options)
            return _up_to_mark(prompt, last["content"])
        return self._first_accepted(messages, tools, options)

    def _first_accepted(
        self, messages: Messages, tools: Tools | None, options: PromptOptions
    ) -> str:
        messages, tools = self._for_template(messages, tools, options.field)
        try:
            return self._render(messages, tools, options)
        except ContextLengthExceeded:
            raise
        except InvalidRequest:
            # Most conversations never need it.
            from handlers.text.template_fallbacks import rewritten

            for form in rewritten(messages):
                with suppress(InvalidRequest):
                    return self._render(form, tools, options)
            raise

    def render(
        self, messages: Messages, tools: Tools | None = None, add_generation_prompt: bool = True
    ) -> str:
        """Renders the conversation as it is, to the same prompt as transformers.

        A template that knows no tools gets them as text. Raises InvalidRequest when the template
        refuses the messages: a role, their order. Raises jinja2's SecurityError when the template
        itself reaches out of its sandbox.
        """
        options = PromptOptions(add_generation_prompt=add_generation_prompt)
        messages, tools = self._for_template(messages, tools, options.field)
        return self._render(messages, tools, options)

    @property
    def reserved(self) -> frozenset[str]:
        """The variables that a request may not set, because they are set already."""
        own = {*OWN_NAMES, *self._special_tokens, *self._template.globals}
        return frozenset(own | {self._tool_variable})

    @property
    def _tool_variable(self) -> str:
        """The variable that has the tools; it is not used where tools become text."""
        return (self.dialect.tools and self.dialect.tools.variable) or "tools"

    def _for_template(
        self, messages: Messages, tools: Tools | None, field: str
    ) -> tuple[Messages, Tools | None]:
        if not tools and not any(map(_has_more_than_text, messages)):
            return messages, None
        # Most conversations never need these.
        from handlers.text.history import for_template
        from handlers.text.tools_as_text import with_introduction, without_tools

        try:
            own = self.dialect.tools
            if own is None or (self._tool_template and not tools):
                return for_template(without_tools(messages, tools), self.dialect), None
            messages = for_template(messages, self.dialect)
            if own.variable is None:
                return with_introduction(messages, tools, own), None
            return messages, tools
        except RecursionError:
            raise too_deep(field) from None

    def _render(self, messages: Messages, tools: Tools | None, options: PromptOptions) -> str:
        own = self._tool_template if tools else None
        names = {
            **options.values,
            **self._special_tokens,
            "messages": messages,
            "tools": None,
            self._tool_variable: tools or None,
            "documents": None,
            "range": counted_range(options.field),
            "add_generation_prompt": options.add_generation_prompt,
        }
        try:
            return (own or self._template).render(names)
        except ESCAPES:
            raise  # no request is at fault: answered 500, and the log has it
        except RecursionError:
            raise too_deep(options.field) from None
        except REFUSALS as error:
            raise InvalidRequest(
                f"The model's chat template refuses these messages: {error}", param=options.field
            ) from None


def _up_to_mark(prompt: str, text: str) -> str:
    """Returns the prompt up to the mark, as transformers cuts it (in 4.57)."""
    place = prompt.rfind(MARK.rstrip())
    if place < 0 or text.strip() not in prompt:
        raise InvalidRequest(
            "The model's chat template leaves out a part of the last message, so it cannot be "
            "continued: send it without white space and thoughts.",
            param="continue_final_message",
        )
    kept = prompt[:place]
    return kept if prompt.startswith(MARK, place) else kept.rstrip()


def _has_more_than_text(message: Mapping[str, Any]) -> bool:
    """Returns whether a message is a tool's result, or has calls or thoughts."""
    is_result = message["role"] == "tool"
    return is_result or "tool_calls" in message or "reasoning_content" in message


def too_deep(field: str) -> InvalidRequest:
    """Returns the error about nesting that a template, or what prepares for it, cannot follow."""
    return InvalidRequest(
        "The messages or the tools are nested too deeply for the model's chat template.",
        param=field,
    )
