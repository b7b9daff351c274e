"""Finds the text around tool calls in what a template writes for one call and for two."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.artifact.dialect import JsonArguments, Thinking, ToolFormat
from model_export.dialect.arguments import ArgumentText, json_span, read_arguments
from model_export.dialect.call_shape import CallShape, Pieces, read_shape
from model_export.dialect.marks import MARK, common_start
from model_export.dialect.probe import IDS, KEYS, NAMES, TOOLS, VALUES, Probe, answer, call

PLAIN = {KEYS[0]: VALUES[0]}
OTHER = {KEYS[0]: VALUES[1]}
LONG_ID = "call_zq70123456789abcdef01234"
SHORTEST_TRIGGER = 7
"""Characters, where it is no mark."""
TOOL_VARIABLES = ("tools", "xml_tools", "available_tools", "functions")


def find_tool_format(
    probe: Probe, thinking: Thinking | None, end_marks: Sequence[str] = ()
) -> ToolFormat | None:
    """Returns the form of the calls that a template writes, None where it cannot be described.

    `end_marks`: the texts of the tokens that end an answer.
    """
    shown = _Calls(probe, thinking)
    one, two = shown.show(PLAIN), shown.show(PLAIN, OTHER)
    if one is None or one.count(NAMES[0]) != 1:
        return None
    arguments = read_arguments(shown.after_name)
    if arguments is None:
        return None
    pieces = _pieces(one, arguments, 1)
    if pieces is None:
        return None
    both = _pieces(two, arguments, 2) if two is not None else None
    shape = read_shape(pieces, both, shown.end_of_turn(), end_marks)
    if shape is None:
        return None
    if isinstance(arguments.style, JsonArguments):
        shape = shape.around_object()
    return _tool_format(shown, shape.trimmed(), arguments)


def _tool_format(shown: _Calls, shape: CallShape, arguments: ArgumentText) -> ToolFormat | None:
    trigger = trigger_of(shape.begin + shape.call[0])
    if trigger is None:
        return None
    return ToolFormat(
        trigger=trigger,
        begin=shape.begin,
        call=shape.call,
        separator=shape.separator,
        end=shape.end,
        arguments=arguments.style,
        at_start=trigger == "{",
        id_length=24 if shown.takes_long_ids() else 9,
        first_index=shape.first_index,
        in_history=not shown.probe.is_refused,
        variable=shown.variable,
        text_arguments=shown.as_text,
    )


def trigger_of(lead: str) -> str | None:
    """Returns the start of the text before a first name by which calls are told from text."""
    if lead.startswith("{"):
        return "{"
    mark = MARK.match(lead)
    if mark:
        return mark[0]
    first, _, rest = lead.partition("\n")
    later = MARK.search(first)
    if later:
        return first[: later.end()]
    trigger = first if first.startswith("<") else "\n".join((first, rest.partition("\n")[0]))
    return trigger.strip() if len(trigger.strip()) >= SHORTEST_TRIGGER else None


class _Calls:
    """Renders answers with calls, in the way that the template takes them."""

    def __init__(self, probe: Probe, thinking: Thinking | None) -> None:
        """Finds out whether the template wants arguments as objects or as text."""
        self.probe = probe
        self._thinking = thinking
        self.variable = _variable(probe)
        self.as_text = False
        if not self._reads_back():
            self.as_text = True
            self.as_text = self._reads_back()

    def show(self, *arguments: Mapping[str, Any]) -> str | None:
        """Returns what an answer has for calls with these arguments, None for a refusal."""
        calls = [call(place, one, as_text=self.as_text) for place, one in enumerate(arguments)]
        return self._answer(answer("", calls))

    def after_name(self, arguments: Mapping[str, Any]) -> str | None:
        """Returns what follows the name of one call."""
        shown = self.show(arguments)
        return None if shown is None else shown.partition(NAMES[0])[2]

    def takes_long_ids(self) -> bool:
        """Returns whether ids of other lengths than Mistral's are accepted."""
        return self._answer(answer("", [call(0, PLAIN, call_id=LONG_ID)])) is not None

    def end_of_turn(self) -> str:
        """Returns what follows the text of an answer that calls nothing."""
        shown = self.probe.after_user(answer(VALUES[0]), **self._tools)
        return "" if shown is None else shown.rpartition(VALUES[0])[2]

    def _reads_back(self) -> bool:
        """Returns whether nested arguments are written, and not in Python's quotes."""
        nested = {KEYS[0]: {KEYS[1]: [VALUES[0]]}}
        shown = self.after_name(nested)
        if shown is None:
            return False
        return json_span(shown, nested) is not None or f"{{'{KEYS[0]}'" not in shown

    @property
    def _tools(self) -> dict[str, Any]:
        return {self.variable: TOOLS} if self.variable else {}

    def _answer(self, turn: dict[str, Any]) -> str | None:
        shown = self.probe.after_user(turn, **self._tools)
        if shown is None:
            return None
        prompt = self.probe.after_user(begin_answer=True, **self._tools) or ""
        if prompt and shown.startswith(prompt):
            start = len(prompt)
        else:
            plain = self.probe.after_user(answer(VALUES[0]), **self._tools) or ""
            start = max(len(common_start(shown, each)) for each in (prompt, plain))
        return self._without_thoughts(shown[start:])

    def _without_thoughts(self, text: str) -> str:
        if self._thinking is None:
            return text
        begin, end = (re.escape(m.strip()) for m in (self._thinking.begin, self._thinking.end))
        return re.sub(rf"\A\s*(({begin})?\s*{end})+", "", text)


def _variable(probe: Probe) -> str | None:
    """Returns the template's variable that takes the tools, None where it describes none."""
    for name in TOOL_VARIABLES:
        prompt = probe.prompt({name: TOOLS})
        if prompt is not None and NAMES[0] in prompt:
            return name
    return None


def _pieces(text: str, arguments: ArgumentText, count: int) -> Pieces | None:
    """Cuts the text of calls at what differs from call to call."""
    found: list[tuple[int, int, str]] = []
    for name, call_id, value in list(zip(NAMES, IDS, VALUES, strict=True))[:count]:
        place = text.find(name)
        if text.count(name) != 1 or text.count(call_id) > 1:
            return None
        end = place + len(name)
        span = arguments.span(text, end, value)
        if span is None:
            return None
        found += [(place, end, "name"), (*span, "arguments")]
        if call_id in text:
            place = text.index(call_id)
            found.append((place, place + len(call_id), "id"))
    found.sort()
    bounds = [0, *(edge for start, end, _ in found for edge in (start, end)), len(text)]
    if bounds != sorted(bounds):
        return None
    gaps = [text[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True)]
    return Pieces(gaps, [slot for _, _, slot in found])
