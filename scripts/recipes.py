"""Writes what the dry run says of each shipped recipe: `python -m scripts.recipes`.

Into docs/recipes.md, and into the file that `python -m model_export --list` reads.
"""

from __future__ import annotations

from tests.support.recipes_table import write_sizes, write_table

if __name__ == "__main__":
    write_table()
    write_sizes()
