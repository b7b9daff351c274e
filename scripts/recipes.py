"""Writes docs/recipes.md's table of the shipped recipes: `python -m scripts.recipes`."""

from __future__ import annotations

from tests.support.recipes_table import write_table

if __name__ == "__main__":
    write_table()
