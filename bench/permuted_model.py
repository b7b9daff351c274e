"""Writes a recipe's model with its hidden units and its MLP's units in another order.

    python -m bench.permuted_model RECIPE DIR [--gguf FILE]

A model that comes out of a quantised file lies on that file's grid, which our blocks may meet
exactly; that says nothing of other models. In another order it computes the same function, and each
block of a row holds weights of many blocks of the file, as if they had never been quantised.

DIR gets source/, a folder as save_pretrained writes it, recipe.toml, whose limits anything keeps,
and where the source is a GGUF file vocabulary.gguf, a link to it, since llama.cpp's converter does
not know every tokenizer that is read out of one. FILE stands in for the recipe's source. The model
is in memory whole, in float32.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.folder_recipe import RECIPE, SOURCE, VOCABULARY, folder_recipe
from model_export.fetch.load import load
from model_export.fetch.locate import locate
from model_export.fetch.stand_ins import fill
from model_export.recipe import GgufSource, ModelTable, Source
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import console

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE = "The quick brown fox jumps over the lazy dog. In 1969,"
MOST_DIFFERENCE = 1e-2
"""Logits. Sums in another order change them by 6e-5 in SmolLM2-135M, which gives up to 30."""
SEED = 0

_READ_HIDDEN = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head")
"""Matrices whose columns are the hidden units."""
_WRITE_HIDDEN = ("o_proj", "down_proj")
"""Matrices whose rows are the hidden units, and so are their biases."""
_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "norm",
)
"""Norms over the hidden units."""
_OF_HEADS = ("q_norm", "k_norm")
"""Norms over the dimensions of a head, which stay in order."""


def main() -> None:
    """Writes the folder that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("recipe")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--gguf", type=Path, help="the model, in place of the recipe's source")
    options = parser.parse_args()
    source = None if options.gguf is None else GgufSource(options.gguf.resolve())
    write(options.recipe, options.directory, source)


def write(name: str, directory: Path, source: Source | None = None) -> None:
    """Writes a recipe's model to `directory`. Raises ValueError where the function changes."""
    recipe, report = load_decoder_recipe(name), console()
    located = locate(source or recipe.source, report)
    report(f"load {located.description} in fp32")
    loaded = load(located, report=report)
    fill(loaded.model)
    ids = torch.tensor([loaded.tokenizer.encode(PROBE)])
    difference = permute_and_compare(loaded.model, ids, SEED)
    report(f"permuted: a logit differs by {difference:.1g} at most")
    loaded.model.save_pretrained(directory / SOURCE)
    # Written out, since the class that reads the folder would add token_type_ids.
    loaded.tokenizer.init_kwargs["model_input_names"] = loaded.tokenizer.model_input_names
    loaded.tokenizer.save_pretrained(directory / SOURCE)
    if located.gguf_file is not None:
        link = directory / VOCABULARY
        link.unlink(missing_ok=True)
        link.symlink_to((located.directory / located.gguf_file).resolve())
    named = ModelTable(id=f"{recipe.name}-permuted", licence=recipe.model.licence)
    (directory / RECIPE).write_text(folder_recipe(recipe, named), encoding="utf-8")


def permute_and_compare(model: PreTrainedModel, ids: torch.Tensor, seed: int) -> float:
    """Permutes a model and returns by how much the logits of `ids` differ at most.

    Raises ValueError where that is more than MOST_DIFFERENCE.
    """
    with torch.no_grad():
        before = model(ids).logits
        permute(model, seed)
        difference = float((model(ids).logits - before).abs().max())
    if not difference <= MOST_DIFFERENCE:  # a NaN is not
        raise ValueError(
            f"{type(model).__name__} computes something else in another order: a logit differs "
            f"by {difference:.2g}."
        )
    return difference


def permute(model: PreTrainedModel, seed: int) -> None:
    """Puts the hidden units and each MLP's units into a random order, in place.

    Raises ValueError for a parameter of which it is not known what its axes are.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config.get_text_config()
    hidden = torch.randperm(config.hidden_size, generator=generator)
    inner: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        *path, module, kind = name.split(".")
        mlp = ".".join(path)
        if module in ("gate_proj", "up_proj", "down_proj") and mlp not in inner:
            inner[mlp] = torch.randperm(config.intermediate_size, generator=generator)
        rows, columns = _orders(module, hidden, inner.get(mlp))
        values = parameter.data if rows is None else parameter.data[rows]
        if columns is not None and kind == "weight":
            values = values[:, columns]
        parameter.data = values.contiguous()


def _orders(
    module: str, hidden: torch.Tensor, inner: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Returns the new order of a parameter's rows and of its columns; None stays as it is."""
    if module in _READ_HIDDEN:
        return inner, hidden
    if module in _WRITE_HIDDEN:
        return hidden, inner
    if module in _NORMS:
        return hidden, None
    if module in _OF_HEADS:
        return None, None
    raise ValueError(f"No order is known for the weights of {module}.")


if __name__ == "__main__":
    main()
