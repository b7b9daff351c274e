"""A model of a shipped recipe's size with random weights, as a folder that the export reads.

    python -m bench.random_model RECIPE DIR

Time and memory do not depend on the values. The tokenizer is the demo's, whose ids every larger
vocabulary has. In a process of its own, whose memory bench.sizes does not count.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from model_export.fetch import fetch
from model_export.recipe import load_recipe
from tests.support.configurations import shipped

RECIPE = """
[model]
id = "{name}-random"
licence = "Apache-2.0"

[source]
path = "source"

[export]
context_length = {context_length}

[precision]
weights = "{weights}"
lm_head = "{head}"

[tolerance]
max_kl = 100.0
min_top1_agreement = 0.0
max_perplexity_ratio = 100.0
"""


def write(name: str, directory: Path) -> None:
    """`directory`/source and `directory`/recipe.toml, of a decoder. The weights are bfloat16."""
    recipe, (_, config) = load_recipe(name), shipped(name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory / "source", safe_serialization=True)
    fetch(load_recipe("smollm2-135m").source, print).tokenizer.save_pretrained(directory / "source")
    text = RECIPE.format(
        name=name,
        context_length=recipe.export.context_length,
        weights=recipe.precision.weights,
        head=recipe.precision.head,
    )
    (directory / "recipe.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
