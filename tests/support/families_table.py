"""The table of docs/families.md: one row a family, one column a major version of transformers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import transformers

from tests.support.families import Verdict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
HEAD = "| architecture | class | transformers 4 | transformers 5 |\n|---|---|---|---|\n"
ABSENT = "absent"
"""In a column whose transformers does not have the architecture."""

VERSION = int(transformers.__version__.split(".")[0])


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome of a family in either version of transformers."""

    model_class: str
    four: str = ABSENT
    five: str = ABSENT

    def outcome(self) -> str:
        """The outcome in the version that is installed."""
        return self.four if VERSION == 4 else self.five

    def joined_with(self, verdict: Verdict) -> Row:
        """The row with the installed version's column anew."""
        column = "four" if VERSION == 4 else "five"
        return replace(self, model_class=verdict.model_class, **{column: in_short(verdict.outcome)})


def in_short(outcome: str) -> str:
    """A refusal without the ending that all of them have."""
    return outcome.replace(", so it cannot be exported", "").rstrip(".").replace("|", "/")


def read_rows() -> dict[str, Row]:
    """The rows of the page, by architecture."""
    _, found, table = PAGE.read_text(encoding="utf-8").partition(HEAD)
    lines = table.split("\n\n")[0].splitlines() if found else []
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {kind.strip("` "): Row(*rest) for kind, *rest in cells}


def write_rows(rows: dict[str, Row]) -> None:
    """Put the rows in place of the page's."""
    before, _, table = PAGE.read_text(encoding="utf-8").partition(HEAD)
    after = table.partition("\n\n")[2]
    lines = [
        f"| `{kind}` | {row.model_class} | {row.four} | {row.five} |\n"
        for kind, row in sorted(rows.items())
    ]
    page = before + HEAD + "".join(lines) + ("\n" + after if after else "")
    PAGE.write_text(page, encoding="utf-8")
