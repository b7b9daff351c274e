"""Finds the dialect of a model by asking its chat templates: docs/dialects.md."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
from msgspec.structs import replace

from handlers.artifact.dialect import Dialect, ToolFormat
from model_export.dialect.calls import find_tool_format
from model_export.dialect.probe import Probe
from model_export.dialect.round_trip import proven_calls, proven_thoughts
from model_export.dialect.rows import known_row
from model_export.dialect.thinking import find_thinking
from model_export.reporting import Report

# Templates of published models take 0.3 s at most.
MAX_SECONDS = 60.0


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
    try:
        with _limited_time():
            return _find(templates.source, templates, report)
    except Exception as error:  # noqa: BLE001 - a template that nobody foresaw fails no export
        report(f"dialect: the template cannot be asked, so it has none ({error})")
        return Dialect()


@contextmanager
def _limited_time() -> Iterator[None]:
    """Raises TimeoutError in a template that loops without end, where signals can come: in main."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"it takes longer than {MAX_SECONDS:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _find(source: str, templates: Templates, report: Report) -> Dialect:
    probe = Probe(source, templates.special_tokens)
    marks = find_thinking(probe)
    dialect = Dialect(thinking=marks.thinking, text=marks.text)
    dialect = proven_thoughts(dialect, probe, report)
    if templates.tool_source is not None:
        probe = Probe(templates.tool_source, templates.special_tokens)
    row = known_row(probe.source)
    tools = find_tool_format(probe, marks.thinking, templates.end_marks)
    if row is not None and (row.is_right or tools is None):
        tools = row.tools
    if tools is None and "tools" in probe.source:
        report("dialect: tool calls in a form that is not known; tools are described as text")
    dialect = replace(dialect, tools=_told_from(dialect, tools, report))
    return dialect if row is not None and row.is_right else proven_calls(dialect, probe, report)


def _told_from(dialect: Dialect, tools: ToolFormat | None, report: Report) -> ToolFormat | None:
    """Leaves out calls that begin as thoughts or a text do."""
    if tools is None:
        return None
    marks = [*dialect.text] + ([dialect.thinking.begin] if dialect.thinking else [])
    if any(mark.strip() and mark.strip().startswith(tools.trigger) for mark in marks):
        report(f"dialect: {tools.trigger!r} begins more than tool calls, which are left out")
        return None
    return tools
