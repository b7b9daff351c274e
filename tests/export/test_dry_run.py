"""The dry run says how large an export will be, from the model's configuration alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from transformers import AutoConfig

from handlers.artifact.manifest import WEIGHTS
from handlers.config import Settings
from model_export.decoder.convert import convert
from model_export.fuse import fuse
from model_export.package import LICENCE_TEXTS
from model_export.pipeline import export
from model_export.quantize import quantize
from model_export.recipe import EncoderRecipe, FolderSource, Precision
from model_export.recipe_loader import load_decoder_recipe, load_recipe, shipped_recipes
from model_export.reporting import ExportError
from model_export.save.layout import Layout
from model_export.sizing.cost import Cost, cost_of
from model_export.sizing.dry_run import describe, dry_run, fetch_config
from model_export.sizing.footprint import (
    Layers,
    Matrix,
    Outline,
    cache_bytes,
    machine_for,
    run_time_bytes,
    weights_of,
)
from model_export.sizing.limits import Limits, check_budget, check_limits
from model_export.sizing.listing import shipped_sizes
from model_export.sizing.outline import outline_of
from tests.support.configurations import PARAMETERS, exportable, shipped
from tests.support.families import EXPORTS, tiny
from tests.support.families_table import read_rows
from tests.support.hub import COMMIT, GATED, REPOSITORY, serve_hub
from tests.support.recipes_table import rows, sizes, written_rows
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_models import CONTEXT_LENGTH, tiny_model

ROOT = Path(__file__).parent.parent.parent
SETTINGS = Settings.from_environ({})
RECIPE = f"""
[model]
id = "Tiny"
licence = "Apache-2.0"

[source]
{{source}}

[export]
context_length = {CONTEXT_LENGTH}

[precision]

[tolerance]
max_kl = 0.1
min_top1_agreement = 0.9
max_perplexity_ratio = 1.05
"""


def write_recipe(directory: Path, source: str) -> str:
    path = directory / "tiny.toml"
    path.write_text(RECIPE.format(source=source), encoding="utf-8")
    return str(path)


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-m", "model_export", *arguments]
    environ = {**kept, **variables}
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", exportable())
def test_every_shipped_recipe_has_a_dry_run_with_the_parameters_that_its_publisher_counts(
    name: str,
) -> None:
    recipe, config = shipped(name)
    outline = outline_of(config, recipe)
    assert outline.parameters == pytest.approx(PARAMETERS[name], rel=0.01)
    text = describe(outline, recipe, SETTINGS, seconds=90.0)
    assert recipe.model.id in text
    assert "AWS Lambda" in text


@pytest.mark.parametrize("name", exportable())
def test_every_shipped_decoder_is_of_a_family_that_exports(name: str) -> None:
    recipe, config = shipped(name)
    if not isinstance(recipe, EncoderRecipe):
        assert read_rows()[config.model_type].outcome() == EXPORTS


@pytest.mark.parametrize("name", exportable())
def test_a_licence_that_spdx_does_not_list_has_its_notice_here(name: str) -> None:
    licence = shipped(name)[0].model.licence
    if licence not in ("Apache-2.0", "MIT"):
        assert licence.startswith("LicenseRef-")
        assert (LICENCE_TEXTS / f"{licence}.txt").is_file()
        assert (LICENCE_TEXTS / f"{licence}.notice.txt").is_file()


@pytest.mark.filterwarnings("ignore")  # of gpt-oss's rotary factor, at its small size
@pytest.mark.parametrize("kind", ["gpt_oss", "qwen3_moe"])
def test_a_model_that_routes_its_tokens_has_a_dry_run(tmp_path: Path, kind: str) -> None:
    """Its experts take as many tokens as choose them, which a fake tensor does not know."""
    recipe = load_recipe(write_recipe(tmp_path, 'path = "source"'))
    config = tiny(kind).config
    config.max_position_embeddings = CONTEXT_LENGTH
    assert outline_of(config, recipe).cache == 2 * 2 * 2 * 16  # layers, keys and values, heads


def test_the_page_has_a_row_for_every_recipe_in_their_order() -> None:
    assert tuple(written_rows()) == shipped_recipes()


def test_the_page_has_the_figures_of_the_dry_run() -> None:
    assert written_rows() == written_rows() | rows(), "python -m scripts.recipes writes them anew"


def test_the_list_has_the_sizes_of_the_dry_run() -> None:
    assert tuple(shipped_sizes()) == shipped_recipes()
    assert shipped_sizes() == shipped_sizes() | sizes(), "python -m scripts.recipes writes them"


def test_the_demo_weighs_what_the_dry_run_says(demo_artifact: Path) -> None:
    recipe, config = shipped("smollm2-135m")
    weights = weights_of(outline_of(config, recipe), recipe.precision)
    assert weights.total == pytest.approx((demo_artifact / WEIGHTS).stat().st_size, rel=0.05)


@pytest.mark.parametrize(
    "precision", [Precision("int4"), Precision("compact5"), Precision("int8"), Precision("fp32")]
)
@pytest.mark.parametrize("family", ["gemma3", "gpt2", "phi3-longrope", "qwen2", "qwen3"])
def test_a_graph_weighs_what_its_configuration_says(family: str, precision: Precision) -> None:
    model = tiny_model(family)
    recipe = msgspec.structs.replace(load_recipe("smollm2-135m"), precision=precision)
    export = msgspec.structs.replace(recipe.export, context_length=CONTEXT_LENGTH)
    outline = outline_of(model.config, msgspec.structs.replace(recipe, export=export))
    graph = quantize(fuse(convert(model, CONTEXT_LENGTH)), precision)
    layout = Layout()
    for value in graph.graph.initializers.values():
        if value.const_value is not None:
            layout.add(value.const_value)
    real = sum(place.size for place in layout.places())
    assert weights_of(outline, precision).total == pytest.approx(real, rel=0.03)


def test_of_weights_that_are_chosen_it_says_what_is_likely_the_least_and_the_most() -> None:
    recipe, config = shipped("smollm2-135m")
    auto = msgspec.structs.replace(recipe, precision=Precision("auto"))
    text = describe(outline_of(config, auto), auto, SETTINGS, seconds=90.0)
    least, expected, int8 = (
        weights_of(outline_of(config, recipe), Precision(weights)).total / 1e6
        for weights in ("compact4", "compact5", "int8")
    )
    assert f"about {expected:,.0f} MB, {least:,.0f} MB to {int8:,.0f} MB (fp32" in text
    assert re.search(r"precision  +auto: affine block 32, as many bits as \[tol", text)
    assert len(re.findall(r" MB compact4, up to [\d,]+ MB with int8\n", text)) == 2
    named = msgspec.structs.replace(recipe, precision=Precision("auto", lm_head="int6"))
    assert " MB int6\n" in describe(outline_of(config, named), named, SETTINGS, seconds=90.0)
    budget = msgspec.structs.replace(recipe, precision=Precision("auto", max_mb=105.0))
    text = describe(outline_of(config, budget), budget, SETTINGS, seconds=90.0)
    assert f"{least:,.0f} MB, up to 105 MB (fp32" in text
    small = msgspec.structs.replace(recipe, precision=Precision("auto", max_mb=1.0))
    text = describe(outline_of(config, small), small, SETTINGS, seconds=90.0)
    assert f"{least:,.0f} MB, up to {least:,.0f} MB (fp32" in text


def test_a_hub_is_asked_for_the_configuration_alone(tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "source")
    recipe = write_recipe(tmp_path, f'hub = "{REPOSITORY}"\nrevision = "{COMMIT}"')
    cache = tmp_path / "cache"
    with serve_hub(folder) as endpoint:
        ended = run("--dry-run", recipe, HF_ENDPOINT=endpoint, HF_HOME=str(cache))
    assert ended.returncode == 0, ended.stderr
    assert "LlamaForCausalLM" in ended.stdout
    assert [path.name for path in cache.glob("hub/*/snapshots/*/*")] == ["config.json"]


def test_a_hub_without_a_revision_says_which_commit_it_looked_at(tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "source")
    recipe = write_recipe(tmp_path, f'hub = "{REPOSITORY}"')
    with serve_hub(folder) as endpoint:
        ended = run("--dry-run", recipe, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "cache"))
    assert ended.returncode == 0, ended.stderr
    assert f"not pinned: the recipe names no revision of {REPOSITORY}" in ended.stdout
    assert f"commit {COMMIT} now" in ended.stdout


def test_a_gated_repository_says_where_to_accept_its_terms_and_what_to_set(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, f'hub = "{GATED}"\nrevision = "{COMMIT}"')
    with serve_hub(tmp_path) as endpoint:
        ended = run("--dry-run", recipe, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "cache"))
    assert ended.returncode == 1
    assert f"accept its terms at {endpoint}/{GATED}" in ended.stderr
    assert "set HF_TOKEN" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_folder_needs_no_weights(tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "source")
    (folder / "model.safetensors").unlink()
    recipe = load_recipe(write_recipe(tmp_path, 'path = "source"'))
    assert "LlamaForCausalLM" in dry_run(recipe, SETTINGS, ignore).table


def test_a_gguf_file_is_read_without_its_weights(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    recipe = load_recipe(write_recipe(tmp_path, 'gguf = "tiny.gguf"'))
    assert "LlamaForCausalLM" in dry_run(recipe, SETTINGS, ignore).table


def test_a_folder_without_a_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a folder without config\.json"):
        fetch_config(FolderSource(tmp_path), ignore)


def test_what_the_export_refuses_the_dry_run_refuses() -> None:
    recipe = load_recipe("smollm2-135m")
    with pytest.raises(ExportError, match="BloomForCausalLM takes no position_ids"):
        outline_of(AutoConfig.for_model("bloom", n_layer=2), recipe)
    short = AutoConfig.for_model("llama", num_hidden_layers=2, max_position_embeddings=64)
    with pytest.raises(ExportError, match="has positions for 2 to 64"):
        outline_of(short, recipe)


def test_a_cache_takes_two_bytes_a_value_and_four_where_weights_are_fp32() -> None:
    some = outline(64, 1000)
    assert cache_bytes(some, Precision("int4"), 10) == 20_000
    assert cache_bytes(some, Precision("fp32"), 10) == 40_000


def test_a_state_takes_four_bytes_a_value_whatever_the_length_of_a_slot() -> None:
    some = outline(64, 1000, state=300)
    assert cache_bytes(some, Precision("int4"), 10) == 21_200
    assert cache_bytes(some, Precision("int4"), 20) == 41_200


def outline(columns: int, cache: int, state: int = 0) -> Outline:
    return Outline(
        "Some", 0, (Matrix(1_000_000, columns, head=False),), 0, cache, state, 1000, 1, None
    )


@pytest.mark.parametrize(
    ("columns", "cache", "lambda_mb", "cpus"),
    [
        (64, 1000, 1769, 1),  # 40 MB of weights: what is asked for is a whole vCPU
        (1600, 1000, 3538, 2),  # 1.0 GB: two vCPUs, so that they are read ten times a second
        (1600, 0, 1769, 1),  # the same as an encoder, which is not asked for a token at a time
        (64, 2_000_000, None, None),  # 4 MB a token of the cache, and 8,192 tokens
    ],
)
def test_a_machine_holds_the_memory_and_reads_the_weights(
    columns: int, cache: int, lambda_mb: int | None, cpus: int | None
) -> None:
    some = outline(columns, cache)
    weights, slot = weights_of(some, Precision("int4")), cache_bytes(some, Precision("int4"), 2048)
    machine = machine_for(some, weights, run_time_bytes(some, weights, 4 * slot))
    assert machine.lambda_mb == lambda_mb
    assert machine.cloud_run_cpus == cpus


COSTS = {  # GB of memory at the peak, and of disk beside the artefact
    "smollm2-135m": (1.1, 0.4),
    "qwen2.5-0.5b": (1.8, 2.6),
    "llama-3.2-1b": (2.3, 3.2),
    "phi-4-mini": (4.4, 6.3),
    "all-minilm-l6-v2": (1.0, 0.1),
}


@pytest.mark.parametrize("name", COSTS)
def test_the_dry_run_says_what_the_export_itself_takes(name: str) -> None:
    recipe, config = shipped(name)
    text = describe(outline_of(config, recipe), recipe, SETTINGS, seconds=240.0)
    memory, disk = COSTS[name]
    row = next(line for line in text.splitlines() if line.startswith("the export itself"))
    assert f"4.0 min here and {memory} GB of memory; {disk} GB of disk beside" in row


def test_a_model_that_does_not_divide_costs_all_of_its_weights() -> None:
    """A layer of Gemma 3n reads what others have cached, so its reference runs whole."""
    matrices = (Matrix(1000, 500_000, head=False), Matrix(1000, 1000, head=True))
    some = Outline("Some", 0, matrices, 0, 8, 0, 1000, 8, Layers(20, 25_000_000, 50_000_000))
    whole = replace(some, layers=Layers(20, 500_000_000, 500_000_000))
    costs = [
        cost_of(each, Precision("int4", algorithm="symmetric")).memory for each in (whole, some)
    ]
    assert costs[0] - costs[1] > 1e9


def test_a_search_for_weights_costs_the_artefacts_that_it_tries() -> None:
    recipe, config = shipped("smollm2-135m")
    outline = outline_of(config, recipe)
    fixed, auto = (cost_of(outline, Precision(weights)) for weights in ("compact5", "auto"))
    assert auto.artefact == fixed.artefact
    assert auto.scratch - fixed.scratch > 3 * auto.artefact


def test_an_export_is_refused_that_the_machine_cannot_hold() -> None:
    cost = Cost(memory=5_100_000_000, artefact=2_000_000_000, scratch=1_500_000_000)
    check_limits(cost, Limits(6_000_000_000, 6_000_000_000, 4_000_000_000), refuse)
    small = Limits(4_000_000_000, 3_000_000_000, 4_000_000_000)
    with pytest.raises(ExportError, match=r"5\.1 GB of memory .* 4\.0 GB in all: .* with 6 GB"):
        check_limits(cost, small, refuse)
    full = Limits(6_000_000_000, 6_000_000_000, 1_000_000_000)
    with pytest.raises(ExportError, match=r"3\.5 GB of disk .* 1\.0 GB is free there: make room"):
        check_limits(cost, full, refuse)


def test_a_budget_is_refused_that_all_compact4_does_not_fit_into() -> None:
    recipe, config = shipped("smollm2-135m")
    outline = outline_of(config, recipe)
    least = weights_of(outline, Precision("compact4")).total
    check_budget(Precision("auto"), outline)
    check_budget(Precision("auto", max_mb=0.98 * least / 1e6), outline)
    too_small = Precision("auto", max_mb=0.95 * least / 1e6)
    with pytest.raises(ExportError, match=rf"take {int(least / 1e6)}\.\d MB: raise"):
        check_budget(too_small, outline)


def test_a_budget_is_looked_at_before_anything_is_computed(tmp_path: Path) -> None:
    save_tiny_folder(tmp_path / "source")
    recipe = load_decoder_recipe(write_recipe(tmp_path, 'path = "source"'))
    small = msgspec.structs.replace(recipe, precision=Precision("auto", max_mb=0.01))
    lines: list[str] = []
    with pytest.raises(ExportError, match=r"max_mb is 0\.01"):
        dry_run(small, SETTINGS, ignore)
    with pytest.raises(ExportError, match=r"max_mb is 0\.01"):
        export(small, tmp_path / "out", lines.append)
    assert [line.split()[0] for line in lines] == ["load"]


def refuse(line: str) -> None:
    raise AssertionError(line)


def test_where_memory_is_free_by_and_by_the_export_goes_on_with_a_line() -> None:
    cost, lines = Cost(5_100_000_000, 0, 0), list[str]()
    check_limits(cost, Limits(6_000_000_000, 3_000_000_000, 1), lines.append)
    assert len(lines) == 1
    assert "about 5.1 GB at its peak, and 3.0 GB is free now" in lines[0]


def huge_folder(directory: Path) -> Path:
    """A model whose embedding alone is a terabyte, in no file."""
    folder = save_tiny_folder(directory)
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {"vocab_size": 1 << 20, "hidden_size": 1 << 18, "intermediate_size": 1 << 18}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_huge_model_is_refused_before_its_weights_are_downloaded(tmp_path: Path) -> None:
    folder, cache = huge_folder(tmp_path / "source"), tmp_path / "cache"
    recipe = write_recipe(tmp_path, f'hub = "{REPOSITORY}"\nrevision = "{COMMIT}"')
    with serve_hub(folder) as endpoint:
        variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache)}
        ended = run(recipe, "--out", str(tmp_path / "out"), **variables)
    assert ended.returncode == 1
    assert "GB of memory at its peak, and this machine has" in ended.stderr
    assert [path.name for path in cache.glob("hub/*/snapshots/*/*")] == ["config.json"]
    assert not (tmp_path / "out").exists()


def test_of_a_huge_model_the_table_is_shown_before_it_is_refused(tmp_path: Path) -> None:
    huge_folder(tmp_path / "source")
    ended = run("--dry-run", write_recipe(tmp_path, 'path = "source"'))
    assert ended.returncode == 1
    assert "the export itself" in ended.stdout
    assert ended.stderr.startswith("error: The export takes about")


def test_the_recipes_are_listed_with_their_tasks_precisions_and_sizes() -> None:
    ended = run("--list")
    assert ended.returncode == 0, ended.stderr
    lines = {line.split()[0]: line for line in ended.stdout.splitlines() if line}
    assert set(shipped_recipes()) < set(lines)
    assert "text-ranking" in lines["ms-marco-minilm-l6-v2"]
    llama = "LicenseRef-Llama-3.2 auto: affine block 32"
    assert " ".join(lines["llama-3.2-1b"].split()).endswith(llama)
    size = shipped_sizes()["gpt2"]
    assert lines["gpt2"].split()[2:5] == [f"{size.download}", f"{size.artefact}", f"{size.memory}"]
    # A terminal of 80 columns cuts no number off.
    assert lines["recipe"].index("licence") <= 80
