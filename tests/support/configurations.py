"""The sizes that the config.json of each shipped recipe's model has, without the hub.

They are in shipped_decoders.py and shipped_encoders.py. `PARAMETERS` are what the publishers count.
"""

from __future__ import annotations

import transformers
from transformers import AutoConfig, PretrainedConfig

from model_export.recipe import DecoderRecipe, EncoderRecipe, HubSource
from model_export.recipe_loader import load_recipe, shipped_recipes
from model_export.sizing.dry_run import fetch_config
from tests.support.reports import ignore
from tests.support.shipped_decoders import DECODERS
from tests.support.shipped_encoders import ENCODERS

CONFIGURATIONS = DECODERS | ENCODERS

PARAMETERS = {
    "all-minilm-l6-v2": 22_713_216,
    "bge-m3": 567_754_752,
    "bge-small-en-v1.5": 33_360_000,
    "deepseek-r1-distill-qwen-1.5b": 1_777_088_000,
    "distilbert-sst-2": 66_955_010,
    "gemma-3-1b": 999_885_952,
    "gemma-3-270m": 268_098_176,
    "gemma-3-4b": 3_880_263_168,
    "gpt2": 124_439_808,
    "granite-4-micro": 3_402_836_480,
    "lfm2-1.2b": 1_170_340_608,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "ms-marco-minilm-l6-v2": 22_713_601,
    "multilingual-e5-small": 117_653_760,
    "nomic-embed-text-v1.5": 136_731_648,
    "phi-4-mini": 3_836_021_760,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-coder-0.5b": 494_032_768,
    "qwen2.5-coder-1.5b": 1_543_714_304,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-embedding-0.6b": 595_776_512,
    "qwen3-reranker-0.6b": 595_776_512,
    "qwen3.5-0.8b": 752_393_024,
    "smollm2-1.7b": 1_711_376_384,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm3-3b": 3_075_098_624,
}

_FLOAT32 = (
    "bge-m3",
    "bge-small-en-v1.5",
    "distilbert-sst-2",
    "gpt2",
    "ms-marco-minilm-l6-v2",
    "multilingual-e5-small",
    "nomic-embed-text-v1.5",
)
"""Recipes whose models are published in float32; the others on a hub are in bfloat16."""
DOWNLOADS = {name: PARAMETERS[name] * (4 if name in _FLOAT32 else 2) for name in CONFIGURATIONS} | {
    "all-minilm-l6-v2": 90_868_376,  # the files in the packages
    "gpt2": 4 * (PARAMETERS["gpt2"] + 12 * 1024**2),  # its causal masks are among the weights
    "gemma-3-4b": 8_600_158_944,  # the files, with a vision tower
    "smollm2-135m": 98_362_432,
    # Their tied heads are stored twice.
    "qwen3-0.6b": 2 * (PARAMETERS["qwen3-0.6b"] + 151_936 * 1024),
    "qwen3-1.7b": 2 * (PARAMETERS["qwen3-1.7b"] + 151_936 * 2048),
    "qwen3.5-0.8b": 1_746_942_600,  # the file, with a vision tower
}
"""Bytes of the weights that an export reads."""


def exportable() -> list[str]:
    """The shipped recipes that take the installed transformers."""
    installed = int(transformers.__version__.partition(".")[0])
    recipes = [load_recipe(name) for name in shipped_recipes()]
    return [recipe.name for recipe in recipes if recipe.export.transformers in {None, installed}]


def shipped(name: str) -> tuple[DecoderRecipe | EncoderRecipe, PretrainedConfig]:
    """A shipped recipe, and its model's configuration: from here, or out of its package."""
    recipe = load_recipe(name)
    if isinstance(recipe.source, HubSource):
        fields = dict(CONFIGURATIONS[name])
        config: PretrainedConfig = AutoConfig.for_model(fields.pop("model_type"), **fields)
        return recipe, config
    return recipe, fetch_config(recipe.source, ignore)
