"""Writes the table of docs/dialects.md: `python -m scripts.dialects [--check]`.

It asks the chat templates of published models that llama.cpp's tree has, which is where the
benchmarks put it. They are under their models' licences, so none is in this repository.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from bench.peers.llama_cpp import TREE
from handlers.artifact.dialect import Dialect, Thinking, ToolFormat
from handlers.errors import InvalidRequest
from handlers.text.chat_template import ChatTemplate
from model_export.dialect.analysis import Templates, find_dialect

PAGE = Path(__file__).resolve().parent.parent / "docs" / "dialects.md"
FOLDER = TREE / "models" / "templates"
BLOCK = re.compile(r"(?<=<!-- table: dialects -->\n\n)(.*?)(?=\n<!-- end -->)", re.DOTALL)
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Its name"}},
                "required": ["city"],
            },
        },
    }
]
USER = {"role": "user", "content": "How is the weather in Zürich?"}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {
    "id": "0a1b2c3d4",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich"}},
}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "0a1b2c3d4", "content": "rain"}
ANSWER = {"role": "assistant", "content": "It rains."}
CHATS: tuple[tuple[list[dict[str, Any]], bool], ...] = (
    ([USER], False),
    ([SYSTEM, USER], False),
    ([USER, ANSWER, USER], False),
    ([USER], True),
    ([SYSTEM, USER], True),
    ([USER, CALLING, RESULT], True),
    ([USER, CALLING, RESULT, ANSWER, USER], True),
)
"""Conversations, and whether they have tools."""


class Row(msgspec.Struct, frozen=True):
    """The findings of an export about one template."""

    name: str
    knows_tools: bool
    dialect: Dialect
    equal: int
    """The conversations that are rendered, or refused, as transformers does."""
    compared: int

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        tools, thinking = self.dialect.tools, self.dialect.thinking
        parts = [name for name, one in (("calls", tools), ("thoughts", thinking)) if one]
        return (
            self.name,
            f"{self.equal} of {self.compared}",
            _tools(tools, self.knows_tools),
            _thinking(thinking),
            " and ".join(parts),
        )


def main(arguments: list[str]) -> int:
    """Returns 1 without the templates, or where `--check` finds a difference."""
    if not FOLDER.is_dir():
        print(f"no templates in {FOLDER}: `make test-needs` fetches them")
        return 1
    before = PAGE.read_text(encoding="utf-8")
    after = BLOCK.sub(lambda _: table(rows()), before)
    if "--check" in arguments:
        print("" if before == after else f"{PAGE.name} differs: run python -m scripts.dialects")
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


def rows() -> list[Row]:
    """Asks every template."""
    return [row_of(path) for path in sorted(FOLDER.glob("*.jinja"), key=lambda p: p.stem.lower())]


def row_of(path: Path) -> Row:
    """Asks one template."""
    source = path.read_text(encoding="utf-8")
    dialect = find_dialect(Templates(source, special_tokens=SPECIAL_TOKENS), lambda _: None)
    same = [*compared(source, dialect)]
    return Row(path.stem, "tools" in source, dialect, sum(same), len(same))


def table(found: Iterable[Row]) -> str:
    """The sum of all and the table."""
    found = [*found]
    know = [row for row in found if row.knows_tools]
    native = [row for row in know if row.dialect.tools]
    others = [row for row in found if row.dialect.tools and not row.knows_tools]
    think = [row for row in found if row.dialect.thinking]
    equal, compared = sum(row.equal for row in found), sum(row.compared for row in found)
    head = ("template", "as transformers", "tools", "thinking", "read back")
    summary = (
        f"Of {len(found)} templates {len(know)} know tools: {len(native)} of them call them in a "
        f"form of their own that is found, and {len(others)} more that describe none do. "
        f"{len(think)} think. {equal} of {compared} conversations are rendered as transformers "
        "renders them."
    )
    lines = [
        summary,
        "",
        *map(_line, (head, ["---"] * len(head), *(row.cells for row in found))),
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _tools(tools: ToolFormat | None, knows_tools: bool) -> str:
    if tools is None:
        return "described as text" if knows_tools else ""
    notes = [type(tools.arguments).__name__.removesuffix("Arguments").lower()]
    notes += ["one at a time"] * (tools.separator is None)
    notes += ["earlier ones as text"] * (not tools.in_history)
    notes += ["described as text"] * (tools.variable is None)
    return f"{_code(tools.trigger)}, {', '.join(notes)}"


def _thinking(thinking: Thinking | None) -> str:
    if thinking is None:
        return ""
    names = dict.fromkeys((*thinking.on, *thinking.off, *filter(None, [thinking.effort])))
    marks = f"{_code(thinking.begin.strip())} {_code(thinking.end.strip())}"
    return ", ".join((marks, *map(_code, names)))


def _code(text: str) -> str:
    """A text as Markdown's code, in one line of a table."""
    shown = text.replace("\n", "\\n").replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


def compared(source: str, dialect: Dialect) -> Iterator[bool]:
    """Yields whether each conversation that reaches the template as it is has the same prompt."""
    tools = dialect.tools
    template = ChatTemplate(source, SPECIAL_TOKENS, dialect=dialect)
    for messages, has_tools in CHATS:
        has_calls = CALLING in messages
        if has_tools and (tools is None or tools.variable != "tools"):
            continue
        if has_calls and tools and (tools.text_arguments or not tools.in_history):
            continue
        given = TOOLS if has_tools else None
        for begins in (True, False):
            expected = _transformers(source, messages, given, begins)
            yield _rendered(template, messages, given, begins) == expected


def _rendered(
    template: ChatTemplate, messages: list[dict[str, Any]], tools: Any, begins: bool
) -> str | None:
    try:
        return template.render(messages, tools, begins)
    except InvalidRequest:
        return None


def _transformers(
    source: str, messages: list[dict[str, Any]], tools: Any, begins: bool
) -> str | None:
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    options: dict[str, Any] = {**SPECIAL_TOKENS, "add_generation_prompt": begins}
    try:
        rendered: Any = render_jinja_template(
            conversations=[messages], tools=tools, chat_template=source, **options
        )
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
        return None
    return str(rendered[0][0])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
