"""Chat templates with the dialect that an export finds in them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from handlers.artifact.dialect import Dialect
from handlers.text.chat_template import ChatTemplate
from model_export.dialect.analysis import Templates, find_dialect
from tests.support.reports import ignore


def chat_template(
    source: str | None, special_tokens: Mapping[str, str], tool_source: str | None = None
) -> ChatTemplate:
    """The template as it is served after an export."""
    dialect = dialect_of(source, tool_source, tuple(special_tokens.items()))
    return ChatTemplate(source, special_tokens, tool_source, dialect)


@cache
def dialect_of(
    source: str | None, tool_source: str | None, special_tokens: tuple[tuple[str, str], ...]
) -> Dialect:
    """The dialect that an export finds."""
    return find_dialect(Templates(source, tool_source, dict(special_tokens)), ignore)
