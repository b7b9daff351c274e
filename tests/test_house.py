"""The house's words: no retired ones, no name of a class twice, docstrings that are sentences.

CONTRIBUTING.md has the rules and docs/glossary.md the words that take their place.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("handlers", "model_export", "kernels", "bench", "deploy", "scripts", "tests", "docs")
SUFFIXES = {".py", ".md", ".c", ".h", ".toml", ".yaml"}
FILES = sorted(
    path
    for root in (ROOT, *(ROOT / folder for folder in FOLDERS))
    for path in (root.glob("*") if root == ROOT else root.rglob("*"))
    if path.suffix in SUFFIXES and path.is_file() and path != Path(__file__)
)
PYTHON = [path for path in FILES if path.suffix == ".py"]

RETIRED = re.compile(
    r"(?<![A-Za-z])(crank(s|ed|ing)?|intake|toolbox|lanes?|twins?|amid|aside|spelt|whoever"
    r"|for want of|not to be had|goes before|(?<!_)OF_A_[A-Z]+|Stamp)(?![A-Za-z])"
)
# What users see stays as it is.
MESSAGES = ("for want of credentials", "which are not to be had: lower one of them")
VECTORS = (
    "kernels/",
    "tests/kernels/",
    "docs/kernels.md",
    "handlers/artifact/graph_contract.py",
    "model_export/quantize/",
)
"""Where a lane is a vector's."""


def test_no_retired_word_is_used() -> None:
    found = [
        f"{name(path)}:{number}: {word[0]}"
        for path in FILES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for word in RETIRED.finditer(line)
        if not (word[0].startswith("lane") and name(path).startswith(VECTORS))
        if not any(message in line.replace("\\", "") for message in MESSAGES)
    ]
    assert not found


@pytest.mark.parametrize("folder", ["handlers", "model_export"])
def test_no_two_classes_have_one_name(folder: str) -> None:
    classes = Counter(
        node.name
        for path in PYTHON
        if path.is_relative_to(ROOT / folder)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef)
    )
    assert not {each for each, count in classes.items() if count > 1}


def test_every_docstring_begins_with_a_sentence() -> None:
    wrong = [
        f"{name(path)}: {owner}: {sentence}"
        for path in PYTHON
        for owner, sentence in docstrings(path)
        if not plain(sentence)
    ]
    assert not wrong


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the name of each that has a docstring, and the docstring's first paragraph."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                owner = "module" if isinstance(node, ast.Module) else node.name
                yield owner, " ".join(docstring.partition("\n\n")[0].split())


def plain(sentence: str) -> bool:
    """Returns whether it ends like a sentence, is long enough and is no clause without its verb."""
    ends = sentence.endswith((".", ":", "?", "!"))
    long_enough = len(sentence.split()) >= 3 or len(sentence) >= 20
    return ends and long_enough and not sentence.startswith(("What ", "Whether ", "Of "))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
