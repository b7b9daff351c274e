"""Saves a recipe's model as transformers reads it fastest: fp32 safetensors.

python -m bench.peers.save_model smollm2-135m build/bench/plain
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from model_export.fetch.load import fetch
from model_export.fetch.stand_ins import fill
from model_export.recipe_loader import load_recipe


def main(recipe: str, target: Path) -> None:
    """Writes the directory whole or not at all."""
    loaded = fetch(load_recipe(recipe).source, lambda _line: None)
    fill(loaded.model)
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    loaded.model.save_pretrained(partial)
    # Written out, since the class that the server loads would add token_type_ids.
    loaded.tokenizer.init_kwargs["model_input_names"] = loaded.tokenizer.model_input_names
    loaded.tokenizer.save_pretrained(partial)
    partial.rename(target)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
