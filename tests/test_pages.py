"""The pages of the repository: their links lead somewhere, and the index leads to every page."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from scripts import docs_tables

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
INDEX = ROOT / "docs" / "index.md"
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in links(page):
        path, _, heading = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not heading or heading in headings(linked), target


def test_the_index_leads_to_every_page_once() -> None:
    listed = re.findall(r"^\d+\. \[(.+?)\]\(\1\)", INDEX.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(
        page.name for page in (ROOT / "docs").glob("*.md") if page != INDEX
    )


def test_the_readme_leads_to_the_index_and_to_the_pages_beside_it() -> None:
    beside = {name(page) for page in ROOT.glob("*.md")} - {"README.md"}
    assert {"docs/index.md", *beside} <= set(links(ROOT / "README.md"))


def test_the_tables_are_those_of_the_code() -> None:
    assert docs_tables.main(["--check"]) == 0


def test_every_make_word_that_a_page_gives_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    given = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    words = set(
        re.findall(r"^(?:\S+=\S+ )?make ([a-z][\w-]*)|`make ([a-z][\w-]*)", given, re.MULTILINE)
    )
    named = {word for pair in words for word in pair if word}
    assert {"serve", "test", "check"} <= named
    assert not {word for word in named if not re.search(rf"^{word}:", makefile, re.MULTILINE)}


@cache
def text(page: Path) -> str:
    """Without its blocks of code, in which a bracket is no link and # no heading."""
    return CODE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", text(page))
    return [target for target in found if "://" not in target]


@cache
def headings(page: Path) -> set[str]:
    """Their anchors, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}
