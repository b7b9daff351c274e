"""The table of docs/precision.md, as the benchmark makes it."""

from __future__ import annotations

from pathlib import Path

from bench.folder_recipe import FIXED, folder_recipe
from bench.precision import CANDIDATES, table
from model_export.recipe_loader import load_decoder_recipe, load_recipe

ROW = {"quantiser": "llama.cpp", "precision": "Q4_1", "megabytes": 98.44, "kl": 0.05314}
ROW |= {"top1_agreement": 0.857, "perplexity_ratio": 1.049, "tokens": 3388}


def test_the_smallest_file_comes_first_and_ours_are_bold() -> None:
    ours = ROW | {"quantiser": "Kindling", "precision": "int4", "megabytes": 98.0}
    assert table([ROW, ours]).split("\n") == [
        "| size, MB | by | precision | KL, nats | top-1 agreement | perplexity ratio |",
        "|---:|---|---|---:|---:|---:|",
        "| **98.0** | **Kindling** | **int4** | **0.0531** | **0.857** | **1.049** |",
        "| 98.4 | llama.cpp | Q4_1 | 0.0531 | 0.857 | 1.049 |",
    ]


def test_a_row_without_a_speed_has_an_empty_cell() -> None:
    ours = ROW | {"quantiser": "Kindling", "decode_ratio": 1.0}
    head, _, *rows = table([ROW, ours]).split("\n")
    assert head.endswith("| decode speed |")
    assert rows[0].endswith("| 1.049 |  |")
    assert rows[1].endswith("| **1.00x** |")


def test_every_candidate_has_words_of_its_own() -> None:
    assert len({candidate.words for candidate in CANDIDATES}) == len(CANDIDATES)


def test_a_model_for_benchmarks_has_fixed_weights_where_its_recipe_leaves_the_choice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "recipe.toml"
    for name, expected in (("qwen2.5-0.5b", FIXED), ("smollm2-135m", FIXED)):
        recipe = load_decoder_recipe(name)
        path.write_text(folder_recipe(recipe, recipe.model), encoding="utf-8")
        assert load_decoder_recipe(str(path)).precision == expected
    encoder = load_recipe("bge-m3")
    path.write_text(folder_recipe(encoder, encoder.model), encoding="utf-8")
    assert load_recipe(str(path)).precision == encoder.precision
