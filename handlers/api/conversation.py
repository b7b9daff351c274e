"""A conversation to the completions that answer it: what chat, generate and responses share.

Messages, tools and a form go in; a Call comes out, whose deltas are text, pieces of tool calls,
the end and the usage (deltas.py). Knows no endpoint's shape. Called by the endpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from handlers.api.answer import Call, spread
from handlers.api.prompt_options import check_last, check_names
from handlers.errors import ContextLengthExceeded, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from handlers.api.chat.messages import TemplateMessage
    from handlers.api.fields import Sampling
    from handlers.api.model import DecoderModel
    from handlers.api.structured import Form
    from handlers.api.tools import Toolbox
    from handlers.grammar.constraint import GrammarConstraint
    from handlers.text.chat_template import PromptOptions


class Conversation(msgspec.Struct, frozen=True):
    """A conversation that is to be answered, and how."""

    messages: list[TemplateMessage]
    form: Form | None = None
    """The form that the answer must have, where one is asked for. A call has none."""
    toolbox: Toolbox | None = None
    """What the answer may call."""
    field: str = "messages"
    """The request's field that an error about the prompt names."""
    options: PromptOptions | None = None

    def prompt_ids(self, model: DecoderModel) -> list[int]:
        """The ids of the rendered prompt. Raises InvalidRequest and ContextLengthExceeded."""
        return model.reader.encode(self.prompt(model), param=self.field)

    def prompt(self, model: DecoderModel) -> str:
        """The prompt, as the model's chat template writes it. Raises InvalidRequest.

        Raises ContextLengthExceeded without rendering more messages than the context has tokens, or
        more text than it can hold: a template holds the interpreter's lock.
        """
        context = model.engine.context_length
        if len(self.messages) > context:
            raise ContextLengthExceeded(
                f"The prompt is too long: it has {len(self.messages):,} messages, and the context "
                f"holds {context:,} tokens. {model.reader.advice}",
                param=self.field,
            )
        characters = sum(len(message["content"]) for message in self.messages)
        model.reader.check_length(characters, self.field)
        if self.options:
            check_names(self.options, model.template)
            check_last(self.options, self.messages[-1])
        tools = self.toolbox.for_template() if self.toolbox else None
        try:
            return model.template.prompt(self.messages, tools, self.options)
        except InvalidRequest as error:
            if error.param == "messages":  # the template does not know the request's fields
                error.param = self.field
            raise

    async def call(
        self,
        model: DecoderModel,
        ids: list[int],
        sampling: Sampling,
        deadline: float | None,
        *,
        choices: int = 1,
        logprobs: int | None = None,
        temperature: float | None = None,
    ) -> Call:
        """The completions to make for the prompt, whose `ids` are known.

        `logprobs`: how many of the likeliest tokens to tell, None for no logprobs at all.
        `temperature`: where `sampling` has none, else the model's own.
        Raises InvalidRequest and ContextLengthExceeded.
        """
        model.reader.check_room(len(ids), self.field)  # before a grammar is compiled for nothing
        greedy = {} if temperature is None else {"temperature": temperature}
        defaults = {**model.sampling, **greedy, "logprobs": logprobs}
        params = sampling.params(model.engine.context_length - len(ids), **defaults)
        prompts = spread(ids, params, choices, await self._grammar(model))
        reads_calls = model.template.tool_format if self.toolbox else None
        return Call(prompts, sampling.stop_strings, deadline, self.field, choices, reads_calls)

    async def _grammar(self, model: DecoderModel) -> GrammarConstraint | None:
        if self.toolbox:
            return await self.toolbox.grammar(model, self.form)
        return await self.form.grammar(model) if self.form else None


async def read(
    model: DecoderModel, conversation_of: Callable[[], Conversation]
) -> tuple[Conversation, list[int]]:
    """The conversation of a body, and the ids of its prompt. Raises as these two do.

    Both are made beside the event loop: the messages of a body of 3 MB take 0.2 s.
    """

    def made() -> tuple[Conversation, list[int]]:
        conversation = conversation_of()
        return conversation, conversation.prompt_ids(model)

    return await model.tokenising.run(made)
