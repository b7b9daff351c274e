"""Finds the dialect of a model by asking its chat templates: docs/dialects.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from handlers.artifact.dialect import Dialect, ToolFormat
from model_export.dialect.calls import find_tool_format
from model_export.dialect.probe import Probe
from model_export.dialect.rows import known_tools
from model_export.dialect.thinking import find_thinking
from model_export.reporting import Report


class Templates(msgspec.Struct, frozen=True):
    """The chat templates of a model and what they are rendered with."""

    source: str | None
    tool_source: str | None = None
    """The template for chats with tools, where that is another."""
    special_tokens: Mapping[str, str] = {}
    end_marks: Sequence[str] = ()
    """The texts of the tokens that end an answer."""


def find_dialect(templates: Templates, report: Report) -> Dialect:
    """Returns the form of a model's answers. What cannot be found is reported and left out."""
    if templates.source is None:
        return Dialect()
    probe = Probe(templates.source, templates.special_tokens)
    marks = find_thinking(probe)
    dialect = Dialect(thinking=marks.thinking, text=marks.text)
    if templates.tool_source is not None:
        probe = Probe(templates.tool_source, templates.special_tokens)
    tools = known_tools(probe.source, find_tool_format(probe, marks.thinking, templates.end_marks))
    if tools is None and "tools" in probe.source:
        report("dialect: tool calls in a form that is not known; tools are described as text")
    return msgspec.structs.replace(dialect, tools=_told_from(dialect, tools, report))


def _told_from(dialect: Dialect, tools: ToolFormat | None, report: Report) -> ToolFormat | None:
    """Leaves out calls that begin as thoughts or a text do."""
    if tools is None:
        return None
    marks = [*dialect.text] + ([dialect.thinking.begin] if dialect.thinking else [])
    if any(mark.strip() and mark.strip().startswith(tools.trigger) for mark in marks):
        report(f"dialect: {tools.trigger!r} begins more than tool calls, which are left out")
        return None
    return tools
