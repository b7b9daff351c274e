"""The table of docs/dialects.md, against the chat templates of published models."""

from __future__ import annotations

from functools import cache

import pytest

from scripts import dialects

pytestmark = pytest.mark.skipif(
    not dialects.FOLDER.is_dir(), reason="`make test-needs` fetches the templates"
)


@cache
def rows() -> list[dialects.Row]:
    return dialects.rows()


def test_the_table_is_that_of_the_code() -> None:
    assert dialects.table(rows()) in dialects.PAGE.read_text(encoding="utf-8")


def test_most_templates_that_know_tools_call_them_in_their_own_form() -> None:
    native = [row.name for row in rows() if row.knows_tools and row.dialect.tools]
    assert len(native) >= 58


def test_every_conversation_is_rendered_as_in_transformers() -> None:
    assert [row.name for row in rows() if row.equal != row.compared] == []
