"""A folder that sentence-transformers saved, exported in fp32 and served, without the gates."""

from __future__ import annotations

from pathlib import Path

from handlers.api.app import Api
from handlers.api.model import EncoderModel
from handlers.artifact.manifest import Artifact, Task
from handlers.config import Settings
from handlers.encoder.encoder import Encoder
from handlers.text.tokenizer import Tokenizer
from model_export.encoder.export import EncoderStrategy
from model_export.manifest import make_manifest, measure_files, save_manifest
from model_export.package import write_sidecars
from model_export.recipe import EncoderRecipe
from model_export.recipe_loader import load_recipe
from model_export.save import save
from tests.api.client import ApiClient
from tests.support.reports import ignore

RECIPE = """
[model]
id = "Witnessed"
licence = "Apache-2.0"

[source]
path = "{source}"

[export]
task = "{task}"
{table}
[precision]
weights = "fp32"

[tolerance]
{tolerance}
"""


def serve(source: Path, task: Task, artefact: Path, table: str = "") -> ApiClient:
    """The API over the model in `source`, whose artefact is written to `artefact`.

    `table` stands in the recipe after [export].
    """
    _export(_recipe(source, task, artefact.with_suffix(".toml"), table), artefact)
    settings = Settings.from_environ({"MODEL_DIR": str(artefact), "KINDLING_THREADS": "1"})
    opened = Artifact.open(artefact)
    manifest = opened.manifest
    assert manifest.encoder is not None
    model = EncoderModel.of(
        Encoder.load(opened, settings),
        Tokenizer.load(opened.tokenizer),
        manifest.encoder,
        manifest,
        settings,
        {},
    )
    return ApiClient(Api(model, settings))


def _recipe(source: Path, task: Task, path: Path, table: str) -> EncoderRecipe:
    embeds = task == "feature-extraction"
    limits = ("min_mean_cosine", "min_cosine") if embeds else ("min_top1_agreement",)
    tolerance = "\n".join(f"{limit} = 1.0" for limit in limits)
    if not embeds:
        tolerance += "\nmax_score_difference = 0.0"
    text = RECIPE.format(source=source, task=task, table=table, tolerance=tolerance)
    path.write_text(text, encoding="utf-8")
    recipe = load_recipe(str(path))
    assert isinstance(recipe, EncoderRecipe)
    return recipe


def _export(recipe: EncoderRecipe, artefact: Path) -> None:
    strategy = EncoderStrategy.load(recipe, ignore)
    save(strategy.convert(), artefact)
    write_sidecars(artefact, recipe, strategy.loaded)
    files = measure_files(artefact)
    fields = strategy.manifest_fields(ignore)
    save_manifest(artefact, make_manifest(recipe, strategy.loaded, fields, "fp32", files))
