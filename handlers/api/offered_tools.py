"""Which of a request's tools are offered: its functions.

Codex sends web_search, custom tools and namespaces beside its functions with every request. OpenAI
runs such tools, or has models that were trained on them; here they are left out, as llama.cpp does
it, and the log says so once for each type. Called by the endpoints that take tools.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from handlers.errors import InvalidRequest, quoted
from handlers.log_once import log_once

if TYPE_CHECKING:
    from handlers.api.tools import FunctionSpec, FunctionTool

LOGGER = logging.getLogger(__name__)

FUNCTION = "function"


def offered(tools: list[FunctionTool] | None) -> dict[str, FunctionSpec]:
    """The functions among a chat's tools, by their paths in it. Raises InvalidRequest."""
    functions = {}
    for place, tool in enumerate(tools or ()):
        if is_offered(tool.type):
            field = f"tools[{place}].function"
            if tool.function is None:
                raise InvalidRequest(f"{field} is required.", param=field)
            functions[field] = tool.function
    return functions


def is_offered(kind: str) -> bool:
    """Whether tools of this type are offered."""
    if kind != FUNCTION:
        message = "Tools of the type %s are left out: only functions are offered."
        log_once(LOGGER, message, quoted(kind))
    return kind == FUNCTION


def not_offered(kind: str) -> InvalidRequest:
    """The error where such a tool has to be called."""
    return InvalidRequest(
        f"tool_choice asks for a tool of the type {quoted(kind)}, but only functions are offered "
        "here: name a function, or leave it out.",
        param="tool_choice",
    )
