"""Saves the demo model for the plain server: fp32 safetensors, the format that it loads fastest.

python -m bench.peers.plain_model build/bench/plain
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from model_export.fetch import fetch
from model_export.recipe import load_recipe

RECIPE = "smollm2-135m"


def main(target: Path) -> None:
    """Writes the directory whole or not at all."""
    loaded = fetch(load_recipe(RECIPE).source, lambda _line: None)
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    loaded.model.save_pretrained(partial)
    loaded.tokenizer.save_pretrained(partial)
    partial.rename(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
