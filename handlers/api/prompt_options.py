"""The fields that say how the chat template writes a conversation: vLLM's, and Qwen's.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#chat-template
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from handlers.errors import InvalidRequest
from handlers.text.chat_template import PromptOptions

if TYPE_CHECKING:
    from handlers.api.chat.messages import TemplateMessage
    from handlers.text.chat_template import ChatTemplate

KWARGS = "chat_template_kwargs"
MAX_BYTES = 2**16
"""The most that their JSON may have: a template may write them out."""

Kwargs = Annotated[dict[str, Any], Meta(max_length=64)]


class ChatFields(Protocol):
    """The fields of a body with messages. Structs have one base, so two of them repeat these."""

    @property
    def chat_template_kwargs(self) -> Kwargs | None: ...

    @property
    def enable_thinking(self) -> bool | None: ...

    @property
    def add_generation_prompt(self) -> bool | None: ...

    @property
    def continue_final_message(self) -> bool | None: ...


def chat_options(body: ChatFields) -> PromptOptions:
    """What all four fields of a body say together. Raises InvalidRequest."""
    return prompt_options(
        body.chat_template_kwargs,
        body.enable_thinking,
        body.add_generation_prompt,
        body.continue_final_message,
    )


def prompt_options(
    kwargs: Kwargs | None,
    enable_thinking: bool | None,
    add_generation_prompt: bool | None = None,
    continue_final_message: bool | None = None,
) -> PromptOptions:
    """What the fields say together. Raises InvalidRequest."""
    if continue_final_message and add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message continues the last message, add_generation_prompt begins "
            "another: send one of them.",
            param="continue_final_message",
        )
    size = len(msgspec.json.encode(kwargs))
    if size > MAX_BYTES:
        raise InvalidRequest(
            f"{KWARGS} has {size:,} bytes, which are over the limit of {MAX_BYTES:,}.", param=KWARGS
        )
    thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
    begins = not continue_final_message if add_generation_prompt is None else add_generation_prompt
    return PromptOptions(begins, bool(continue_final_message), {**thinking, **(kwargs or {})})


def check_names(options: PromptOptions, template: ChatTemplate) -> None:
    """Raises InvalidRequest for a name that the template is given in any case."""
    reserved = template.reserved if options.values else ()
    for name in options.values:
        if name in reserved:
            raise InvalidRequest(
                f"{KWARGS}.{name} is a name that the template is given in any case: leave it out.",
                param=f"{KWARGS}.{name}",
            )


def check_last(options: PromptOptions, last: TemplateMessage) -> None:
    """Raises InvalidRequest where the last message does not end with its text."""
    if options.continue_final_message and "tool_calls" in last:
        raise InvalidRequest(
            "continue_final_message continues a text, but the last message ends with tool_calls: "
            "send what they gave, or leave the field out.",
            param="continue_final_message",
        )
