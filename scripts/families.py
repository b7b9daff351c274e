"""Walks the families of decoders and writes docs/families.md's table, one column a run.

    python -m scripts.families            # all, five minutes on two idle cores
    python -m scripts.families gpt2 phi   # these alone

Run in either environment: the column is that of the transformers that is installed. A family
that answers otherwise than transformers stops the walk.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.support.families import examine
from tests.support.families_table import Row, read_rows, write_rows
from tests.support.family_configurations import families


def main(kinds: list[str]) -> None:
    """Examines `kinds`, or every family, and writes a row for each as soon as it is known."""
    for kind in kinds or families():
        verdict = examine(kind)
        rows = read_rows()
        rows[kind] = rows.get(kind, Row(verdict.model_class)).joined_with(verdict)
        write_rows(rows)
        print(f"{kind}: {verdict.outcome}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
