"""A conversation and the request fields that say how it becomes a prompt.

Chat completions, responses and /generate each make a Conversation, which makes the
GenerationRequest. The fields are vLLM's and Qwen's:
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#chat-template
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from msgspec.structs import replace

from handlers.api.generation import GenerationRequest, expand_n
from handlers.api.thinking import ThinkingOptions
from handlers.errors import ContextLengthExceeded, InvalidRequest
from handlers.text.answer_format import AnswerFormat, answer_format
from handlers.text.chat_template import PromptOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from handlers.api.messages import TemplateMessage
    from handlers.api.model import DecoderModel
    from handlers.api.response_format import OutputConstraint
    from handlers.api.sampling import SamplingFields
    from handlers.api.thinking import TemplateKwargs
    from handlers.api.tools import ToolConfig
    from handlers.grammar.constraint import GrammarConstraint
    from handlers.grammar.thinking import ThinkingConstraint
    from handlers.text.chat_template import ChatTemplate
    from handlers.text.control_tokens import PromptText

TEMPLATE_KWARGS = "chat_template_kwargs"
MAX_KWARGS_BYTES = 2**16
"""The most that their JSON may have: a template may write them out."""

TAIL_IDS = 64
"""More ids than the marks have that a prompt may end with."""


class TemplateFields(Protocol):
    """The fields of a body with messages that say how the prompt is written."""

    @property
    def chat_template_kwargs(self) -> TemplateKwargs | None: ...

    @property
    def enable_thinking(self) -> bool | None: ...

    @property
    def add_generation_prompt(self) -> bool | None: ...

    @property
    def continue_final_message(self) -> bool | None: ...


class Conversation(msgspec.Struct, frozen=True):
    """A conversation that is to be answered, and how."""

    messages: list[TemplateMessage]
    constraint: OutputConstraint | None = None
    """The format of the answer; None for any text. A tool call is not held to it."""
    tools: ToolConfig | None = None
    """The tools that the answer may call."""
    options: PromptOptions = PromptOptions()
    """How the prompt ends, and the field that an error about it names."""
    thinking: ThinkingOptions = ThinkingOptions()

    def prompt(self, model: DecoderModel) -> PromptText:
        """Renders the prompt with the model's chat template. Raises InvalidRequest.

        Raises ContextLengthExceeded, before rendering, for more messages than the context has
        tokens and for more text than it can hold: rendering holds the interpreter's lock.
        """
        field, context = self.options.field, model.engine.context_length
        if len(self.messages) > context:
            raise ContextLengthExceeded(
                f"The prompt is too long: it has {len(self.messages):,} messages, and the context "
                f"holds {context:,} tokens. {model.prompt_encoder.advice}",
                param=field,
            )
        # Apart, since most templates leave out what was thought before the last question.
        for member in ("content", "reasoning_content"):
            characters = sum(len(message.get(member, "")) for message in self.messages)
            model.prompt_encoder.check_length(characters, field)
        _check_names(self.options, model.template)
        _check_last(self.options, self.messages[-1])
        tools = self.tools.for_template() if self.tools else None
        given = self.options.values
        variables = self.thinking.variables(model.template.dialect.thinking, given)
        options = replace(self.options, values={**variables, **given})
        return model.render(self.messages, tools, options)

    def prompt_ids(self, model: DecoderModel) -> list[int]:
        """Tokenises the prompt. Raises InvalidRequest and ContextLengthExceeded."""
        return self.encode(model, self.prompt(model))

    def encode(self, model: DecoderModel, prompt: PromptText) -> list[int]:
        """Tokenises the rendered prompt. Raises as `prompt_ids` does."""
        return model.prompt_encoder.encode(
            prompt.text, param=self.options.field, breaks=prompt.breaks
        )

    async def generation_request(
        self,
        model: DecoderModel,
        ids: list[int],
        sampling: SamplingFields,
        deadline: float | None,
        *,
        n: int = 1,
        **defaults: Any,
    ) -> GenerationRequest:
        """Returns the request to answer the prompt, which has the token ids `ids`, `n` times.

        `defaults`: SamplingParams' fields that `sampling` leaves open or cannot set. They take
        precedence over the model's own. Raises InvalidRequest and ContextLengthExceeded.
        """
        # Checked before a grammar is compiled, which may take a second.
        model.prompt_encoder.check_room(len(ids), self.options.field)
        context_left = model.engine.context_length - len(ids)
        params = sampling.params(context_left, **{**model.sampling, **defaults})
        form = self._answer_format(model, ids)
        grammar = await self._after_thoughts(model, await self._grammar(model), form)
        if self.thinking.display == "inline":
            form = replace(form, thinking=None, thinks=False)
        return GenerationRequest(
            expand_n(ids, params, n, grammar),
            sampling.stop_strings,
            deadline,
            prompt_field=self.options.field,
            n=n,
            grammar_field=self._grammar_field,
            answer_format=form,
            thoughts_hidden=self.thinking.display == "hidden",
        )

    def _answer_format(self, model: DecoderModel, ids: list[int]) -> AnswerFormat:
        """Returns how to read the answer: the end of the prompt says whether thoughts go on."""
        template, end = model.template, ""
        if template.dialect.thinking or any(template.dialect.text):
            end = model.tokenizer.decode(ids[-TAIL_IDS:], skip_special_tokens=False)
        continued = None
        if self.options.continue_final_message:
            continued = self.messages[-1]["content"]
        if not self.tools:
            return answer_format(template.dialect, end, continued=continued)
        tools, found = template.tool_format, self.tools.string_arguments(template.tool_format)
        return answer_format(template.dialect, end, tools, *found, continued=continued)

    async def _after_thoughts(
        self, model: DecoderModel, grammar: GrammarConstraint | None, form: AnswerFormat
    ) -> GrammarConstraint | ThinkingConstraint | None:
        """Has the grammar begin after the thoughts, which end with their budget."""
        thinking, budget = form.thinking, self.thinking.budget
        if thinking is None or (grammar is None and budget is None):
            return grammar
        from handlers.grammar.thinking import after_thoughts

        return await model.compiling.run(
            lambda: after_thoughts(grammar, thinking, form.thinks, model.grammar_compiler, budget)
        )

    async def _grammar(self, model: DecoderModel) -> GrammarConstraint | None:
        if self.tools:
            return await self.tools.grammar(model, self.constraint)
        return await self.constraint.grammar(model) if self.constraint else None

    @property
    def _grammar_field(self) -> str | None:
        if self.tools:
            return "tools"
        return self.constraint.field if self.constraint else None


async def tokenise(
    model: DecoderModel, make: Callable[[], Conversation]
) -> tuple[Conversation, list[int]]:
    """Makes a body's conversation and tokenises its prompt, outside the event loop's thread.

    The messages of a body of 3 MB take 0.2 s. Raises what `make` and Conversation.prompt_ids raise.
    """

    def work() -> tuple[Conversation, list[int]]:
        conversation = make()
        return conversation, conversation.prompt_ids(model)

    return await model.tokenising.run(work)


def chat_options(body: TemplateFields) -> PromptOptions:
    """Returns the options that the fields of a body ask for. Raises InvalidRequest."""
    return prompt_options(
        "messages",
        body.chat_template_kwargs,
        body.enable_thinking,
        body.add_generation_prompt,
        body.continue_final_message,
    )


def prompt_options(
    field: str,
    kwargs: TemplateKwargs | None,
    enable_thinking: bool | None,
    add_generation_prompt: bool | None = None,
    continue_final_message: bool | None = None,
) -> PromptOptions:
    """Returns the options that the fields ask for. Raises InvalidRequest.

    `field`: the request's field that has the conversation, for errors.
    """
    if continue_final_message and add_generation_prompt:
        raise InvalidRequest(
            "continue_final_message continues the last message, add_generation_prompt begins "
            "another: send one of them.",
            param="continue_final_message",
        )
    size = len(msgspec.json.encode(kwargs))
    if size > MAX_KWARGS_BYTES:
        raise InvalidRequest(
            f"{TEMPLATE_KWARGS} has {size:,} bytes, which are over the limit of "
            f"{MAX_KWARGS_BYTES:,}.",
            param=TEMPLATE_KWARGS,
        )
    thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
    begins = not continue_final_message if add_generation_prompt is None else add_generation_prompt
    values = {**thinking, **(kwargs or {})}
    return PromptOptions(begins, bool(continue_final_message), values, field)


def _check_names(options: PromptOptions, template: ChatTemplate) -> None:
    """Raises InvalidRequest for a name that the template is given in any case."""
    reserved = template.reserved if options.values else ()
    for name in options.values:
        if name in reserved:
            raise InvalidRequest(
                f"{TEMPLATE_KWARGS}.{name} is a name that the template is given in any case: "
                "leave it out.",
                param=f"{TEMPLATE_KWARGS}.{name}",
            )


def _check_last(options: PromptOptions, last: TemplateMessage) -> None:
    """Raises InvalidRequest where the last message does not end with its text."""
    if options.continue_final_message and "tool_calls" in last:
        raise InvalidRequest(
            "continue_final_message continues a text, but the last message ends with tool_calls: "
            "send what they gave, or leave the field out.",
            param="continue_final_message",
        )
