"""Images of tiny random models, built as `make images` builds those of any recipe.

What is built is a copy of the repository that holds the models beside their recipes.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.images.docker import ROOT

CLASSIFIER, RANKER, NEWER = "tiny-classifier", "tiny-ranker", "tiny-ministral3"
"""Recipes, and the tags of their images. NEWER's model is in transformers 5 alone."""

CONTEXT = ("LICENSE", ".dockerignore", "Dockerfile.lambda", "Dockerfile.cloudrun")
FOLDERS = ("handlers", "kernels", "model_export", "requirements", "scripts")

# In a process of its own, which keeps torch and its half a gigabyte out of this one.
SAVE = """
import sys
from pathlib import Path
from tests.support.tiny_encoder_folder import save_encoder_folder
from tests.support.tiny_folder import save_tiny_folder
{save}
"""

RECIPE = """
[model]
id = "{name}"
licence = "Apache-2.0"

[source]
path = "{name}"

[export]
{export}

[precision]
weights = "int8"

[tolerance]
{tolerance}
"""
SCORES = "min_top1_agreement = 0.5\nmax_score_difference = 2.0"
DRIFT = "max_kl = 5.0\nmin_top1_agreement = 0.1\nmax_perplexity_ratio = 10.0"


@dataclass(frozen=True)
class TinyModel:
    """A tiny model: how to save its folder, more of its config.json, two tables of its recipe."""

    save: str
    config: Mapping[str, Any]
    export: str
    tolerance: str


MODELS = {
    CLASSIFIER: TinyModel(
        "save_encoder_folder(Path(sys.argv[1]), 'distilbert', labels=3)",
        {"id2label": {"0": "sad", "1": "plain", "2": "glad"}},
        'task = "text-classification"',
        SCORES,
    ),
    RANKER: TinyModel(
        "save_encoder_folder(Path(sys.argv[1]), labels=1)", {}, 'task = "text-ranking"', SCORES
    ),
    # Mistral's weights have the names of Ministral 3's.
    NEWER: TinyModel(
        "save_tiny_folder(Path(sys.argv[1]), 'mistral')",
        {"model_type": "ministral3", "architectures": ["Ministral3ForCausalLM"], "head_dim": 16},
        "context_length = 256\ntransformers = 5",
        DRIFT,
    ),
}


def copied_context(directory: Path) -> Path:
    """All that the Dockerfiles copy, in `directory`, which is returned."""
    for name in CONTEXT:
        shutil.copy2(ROOT / name, directory)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, directory / name)
    return directory


def add_recipe(context: Path, name: str) -> None:
    """The recipe, and the folder that it names, among the shipped ones of a copied context."""
    model, folder = MODELS[name], context / "model_export" / "recipes" / name
    program = SAVE.format(save=model.save)
    subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=True)
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | dict(model.config)))
    text = RECIPE.format(name=name, export=model.export, tolerance=model.tolerance)
    folder.with_suffix(".toml").write_text(text)


def build_images(context: Path, recipe: str) -> None:
    """As `make images RECIPE=recipe TAG=recipe` does."""
    options = shlex.split(os.environ.get("DOCKER_OPTIONS", ""))
    command = [sys.executable, "scripts/images.py", recipe, recipe, *options]
    done = subprocess.run(command, cwd=context, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"The images of {recipe} cannot be built:\n{done.stdout}{done.stderr}")
