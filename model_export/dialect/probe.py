"""Asks a chat template what it writes, by rendering conversations whose contents are known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import jinja2.meta
from jinja2 import nodes
from jinja2.sandbox import SandboxedEnvironment

from handlers.text.chat_template import OWN_NAMES
from handlers.text.template_sandbox import ESCAPES, REFUSALS, compile_template

# The contents of the conversations: no template has them, and trim, lower and tojson leave them
# as they are.
USER = "zq7user"
TEXT = "zq7text"
THOUGHTS = "zq7thoughts"
NAMES = ("zq7first", "zq7second")
KEYS = ("zq7key", "zq7other")
VALUES = ("zq7value", "zq7next")
IDS = ("zq7idnum1", "zq7idnum2")
"""Of nine letters and digits, as Mistral's templates want them."""
NUMBER = 731058

Turn = dict[str, Any]
Arguments = Mapping[str, Any]

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "zq7description",
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string", "description": "zq7"} for key in KEYS},
                "required": [*KEYS],
            },
        },
    }
    for name in NAMES
]


class Probe:
    """One template, and what its author's model is told to think and to call."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compiles the template. Raises ArtifactError for what is none."""
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._template = compile_template(source)
        self._tree = self._template.environment.parse(source)
        self.is_refused = False
        """Whether the runtime's sandbox refuses what the template does with some conversation."""

    def render(
        self,
        messages: Sequence[Turn],
        *,
        begin_answer: bool = False,
        **values: Any,
    ) -> str | None:
        """Returns the prompt, None where the template refuses the conversation."""
        names = {
            "tools": None,
            "documents": None,
            **values,
            **self._special_tokens,
            "messages": messages,
            "add_generation_prompt": begin_answer,
        }
        try:
            return self._template.render(names)
        except ESCAPES:
            self.is_refused = True
            return self._render_in_the_open(names)
        except (*REFUSALS, RecursionError):
            return None

    def _render_in_the_open(self, names: Mapping[str, Any]) -> str | None:
        """Renders where a template may change lists, as some do to count calls."""
        try:
            return compile_template(self.source, SandboxedEnvironment).render(names)
        except REFUSALS:
            return None

    def prompt(self, values: Mapping[str, Any]) -> str | None:
        """Returns the prompt of the user's message alone, None for values that are refused."""
        return self.render([{"role": "user", "content": USER}], begin_answer=True, **values)

    def after_user(self, *turns: Turn, begin_answer: bool = False, **values: Any) -> str | None:
        """Returns what follows the user's message, before the turns `turns`."""
        messages = [{"role": "user", "content": USER}, *turns]
        prompt = self.render(messages, begin_answer=begin_answer, **values)
        if prompt is None or USER not in prompt:
            return None
        return prompt.rpartition(USER)[2]

    @cached_property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """The variables that a request may set, and the texts that each is compared with."""
        known = {*OWN_NAMES, *self._template.globals, *self._special_tokens}
        free = jinja2.meta.find_undeclared_variables(self._tree) - known
        return {name: tuple(self._texts_for(name)) for name in sorted(free)}

    def _texts_for(self, variable: str) -> list[str]:
        texts = []
        for test in self._tree.find_all(nodes.Compare):
            if isinstance(test.expr, nodes.Name) and test.expr.name == variable:
                constants = (part for one in test.ops for part in one.find_all(nodes.Const))
                texts += [each.value for each in constants if isinstance(each.value, str)]
        return texts


def answer(
    content: Any = TEXT, calls: Sequence[Turn] = (), thoughts: Mapping[str, Any] | None = None
) -> Turn:
    """Returns a turn of the assistant."""
    turn: Turn = {"role": "assistant", "content": content, **(thoughts or {})}
    return turn | {"tool_calls": [*calls]} if calls else turn


def call(
    place: int, arguments: Arguments, *, call_id: str | None = None, as_text: bool = False
) -> Turn:
    """Returns a member of a turn's tool_calls, the first or the second."""
    given: Any = json.dumps(arguments) if as_text else arguments
    function = {"name": NAMES[place], "arguments": given}
    return {"id": call_id or IDS[place], "type": "function", "function": function}
