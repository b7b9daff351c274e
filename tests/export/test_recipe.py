"""A recipe is checked whole before anything is downloaded, and says what is wrong with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from model_export import recipe_loader
from model_export.recipe import (
    CalibrationTable,
    DraftTable,
    FolderSource,
    GgufSource,
    HubSource,
    PackageSource,
    Precision,
    PrefixTable,
)
from model_export.recipe_loader import (
    check_transformers,
    load_decoder_recipe,
    load_recipe,
    load_sibling_recipe,
    shipped_recipes,
)
from model_export.reporting import ExportError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECIPE = f"""
[model]
id = "Tiny"
licence = "Apache-2.0"

[source]
hub = "someone/tiny"
revision = "{COMMIT}"

[export]
context_length = 256

[precision]

[tolerance]
max_kl = 0.1
min_top1_agreement = 0.9
max_perplexity_ratio = 1.05
"""


def write(directory: Path, text: str) -> str:
    path = directory / "tiny.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_recipe_may_name_its_own_calibration_text(tmp_path: Path) -> None:
    assert load_decoder_recipe(write(tmp_path, RECIPE)).calibration is None
    text = "Das Lager schließt um acht. " * 50
    (tmp_path / "own.txt").write_text(text, encoding="utf-8")
    recipe = load_decoder_recipe(write(tmp_path, RECIPE + '[calibration]\ntext = "own.txt"\n'))
    assert recipe.calibration == CalibrationTable(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "own.txt cannot be read: No such file or directory. Name one of plain text, or"),
        (b"\xff\xfe" * 600, "own.txt is not UTF-8: convert it, or leave the table out"),
        (b"Too short. ", "own.txt has 10 characters, too few .* at least 1,000"),
    ],
)
def test_a_calibration_text_that_cannot_be_used_is_refused(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "own.txt").write_bytes(content)
    message = refusal(tmp_path, "[export]", '[calibration]\ntext = "own.txt"\n[export]')
    assert re.search(rf"\[calibration\] text: the file .*{said}", message)


def test_a_calibration_text_that_no_weight_would_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("Something to read. " * 100, encoding="utf-8")
    added = '[calibration]\ntext = "own.txt"\n[precision]\nweights = "int8"'
    assert "leave it out" in refusal(tmp_path, "[precision]", added)


@pytest.mark.parametrize("algorithm", ["affine", "k_quant", "symmetric"])
def test_a_calibration_text_orders_the_matrices_of_auto_whatever_their_blocks(
    tmp_path: Path, algorithm: str
) -> None:
    (tmp_path / "own.txt").write_text("Something to read. " * 100, encoding="utf-8")
    added = f'[precision]\nweights = "auto"\nalgorithm = "{algorithm}"'
    text = RECIPE.replace("[precision]", f'[calibration]\ntext = "own.txt"\n{added}')
    recipe = load_decoder_recipe(write(tmp_path, text))
    assert recipe.precision.algorithm == algorithm
    assert recipe.precision.is_calibrated


SMALL = RECIPE.replace('"Tiny"', '"Small"')


@pytest.mark.parametrize(
    ("table", "draft"),
    [
        ("layers = 3", DraftTable(layers=3)),
        ('recipe = "smollm2-135m"\nmin_gain = 1.2', DraftTable("smollm2-135m", min_gain=1.2)),
        ('recipe = "sub/small.toml"', "sub/small.toml"),
    ],
)
def test_a_recipe_may_name_a_draft_model(
    tmp_path: Path, table: str, draft: DraftTable | str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "small.toml").write_text(SMALL, encoding="utf-8")
    recipe = load_decoder_recipe(write(tmp_path, f"{RECIPE}[draft]\n{table}\n"))
    wanted = DraftTable(str(tmp_path / draft)) if isinstance(draft, str) else draft
    assert recipe.draft == wanted
    if wanted.recipe is not None:
        sibling = load_sibling_recipe(wanted.recipe, 128)
        assert (sibling.export.context_length, sibling.prefix) == (128, None)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "[draft] takes exactly one of recipe"),
        ('recipe = "smollm2-135m"\nlayers = 3', "[draft] takes exactly one of recipe"),
        ("layers = 0", "[draft] layers: expected `int` >= 1"),
        ("layers = 1.5", "[draft] layers: expected `int"),
        ("layer = 1", "'layer' is not a key in [draft]: did you mean 'layers'?"),
        ('recipe = "smollm-135m"', "[draft] recipe: No recipe is called 'smollm-135m': did you"),
        ('recipe = "absent.toml"', "absent.toml: No such file"),
        ('recipe = "tiny.toml"', "[draft] recipe: it is this recipe itself"),
        ('recipe = "all-minilm-l6-v2"', "it is an encoder's, and a draft model is a decoder"),
        ('recipe = "broken.toml"', "[tolerance] is missing"),
        ('recipe = "drafted.toml"', "drafted.toml: it has a [draft] itself"),
    ],
)
def test_a_draft_model_that_cannot_be_one_is_refused(tmp_path: Path, table: str, said: str) -> None:
    texts = {
        "broken": SMALL[: SMALL.index("[tolerance]")],
        "drafted": f'{SMALL}[draft]\nrecipe = "tiny.toml"\n',
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
    assert said in refusal(tmp_path, "[export]", f"[draft]\n{table}\n[export]")


def test_an_encoder_has_no_draft_model(tmp_path: Path) -> None:
    text = Path(recipe_loader.SHIPPED / "bge-small-en-v1.5.toml").read_text(encoding="utf-8")
    with pytest.raises(ExportError, match="'draft' is not a table"):
        load_recipe(write(tmp_path, f"{text}[draft]\nlayers = 1\n"))


def refusal(directory: Path, old: str, new: str) -> str:
    assert old in RECIPE
    with pytest.raises(ExportError) as raised:
        load_decoder_recipe(write(directory, RECIPE.replace(old, new)))
    return str(raised.value)


def test_a_recipe_may_name_a_system_prompt_to_bake(tmp_path: Path) -> None:
    assert load_decoder_recipe(write(tmp_path, RECIPE)).prefix is None
    text = RECIPE + '[prefix]\nsystem_prompt = "Be brief."\n'
    assert load_decoder_recipe(write(tmp_path, text)).prefix == PrefixTable(
        system_prompt="Be brief."
    )


def test_every_shipped_recipe_loads_by_its_name() -> None:
    assert "smollm2-135m" in shipped_recipes()
    for name in shipped_recipes():
        assert load_recipe(name).name == name


def test_an_encoders_recipe_is_no_decoders() -> None:
    with pytest.raises(ExportError, match="task: invalid enum value 'feature-extraction'"):
        load_decoder_recipe("all-minilm-l6-v2")


def test_a_recipe_is_read_from_a_toml_file(tmp_path: Path) -> None:
    recipe = load_decoder_recipe(write(tmp_path, RECIPE))
    assert recipe.name == "tiny"
    assert recipe.model.id == "Tiny"
    assert recipe.source == HubSource(hub="someone/tiny", revision=COMMIT)
    assert recipe.export.context_length == 256
    assert recipe.tolerance.min_top1_agreement == 0.9


@pytest.mark.parametrize(
    ("keys", "source"),
    [
        ('path = "model"', lambda directory: FolderSource(path=directory / "model")),
        ('gguf = "m/a.gguf"', lambda directory: GgufSource(gguf=directory / "m" / "a.gguf")),
        (
            'package = "p"\nversion = "1"\nfile = "p/a.gguf"',
            lambda _: PackageSource(package="p", version="1", file="p/a.gguf"),
        ),
    ],
)
def test_a_source_is_a_folder_a_gguf_file_or_a_package(tmp_path: Path, keys, source) -> None:  # type: ignore[no-untyped-def]
    text = RECIPE.replace(f'hub = "someone/tiny"\nrevision = "{COMMIT}"', keys)
    assert load_decoder_recipe(write(tmp_path, text)).source == source(tmp_path)


def test_an_unknown_name_is_answered_with_the_nearest_and_all_shipped_ones() -> None:
    with pytest.raises(ExportError, match=r"did you mean 'smollm2-135m'\? Shipped are: .*smollm2"):
        load_recipe("smollm-135m")


def test_a_name_cannot_climb_out_of_the_shipped_recipes() -> None:
    with pytest.raises(ExportError, match="No recipe is called"):
        load_recipe("../recipes/smollm2-135m")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"absent\.toml: No such file"):
        load_recipe(str(tmp_path / "absent.toml"))


def test_text_that_is_not_toml_is_refused_with_its_place(tmp_path: Path) -> None:
    assert "is not TOML" in refusal(tmp_path, "[model]", "[model")


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    message = refusal(tmp_path, "context_length", "context_lenght")
    assert "'context_lenght' is not a key in [export]: did you mean 'context_length'?" in message


def test_an_unknown_key_of_the_precision_is_refused(tmp_path: Path) -> None:
    assert "is not a key in [precision]" in refusal(
        tmp_path, "[precision]", "[precision]\nbitz = 4"
    )


def test_an_unknown_table_is_refused(tmp_path: Path) -> None:
    assert "did you mean 'tolerance'?" in refusal(tmp_path, "[tolerance]", "[tolerances]")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    assert "[tolerance] is missing" in refusal(tmp_path, RECIPE[RECIPE.index("[tolerance]") :], "")


def test_a_recipe_that_names_no_precision_has_it_chosen(tmp_path: Path) -> None:
    for text in (RECIPE, RECIPE.replace("[precision]", "")):
        assert load_decoder_recipe(write(tmp_path, text)).precision == Precision("auto")
    text = RECIPE.replace("[precision]", "[precision]\nmax_mb = 100.0\nblock_size = 64")
    assert load_decoder_recipe(write(tmp_path, text)).precision.weights == "auto"


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path, 'licence = "Apache-2.0"', "")
    assert "[model] lacks the key `licence`" in message


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("256", '"256"', "[export] context_length: expected `int`, got `str`"),
        ("256", "25.6", "[export] context_length: expected `int`, got `float`"),
        ('"Tiny"', "7", "[model] id: expected `str`, got `int`"),
        ("max_kl = 0.1", "max_kl = true", "[tolerance] max_kl: expected `float`, got `bool`"),
        ("[export]", "[prefix]\nsystem_prompt = 7\n[export]", "[prefix] system_prompt: expected"),
        ("[export]", "[prefix]\ntext = 'x'\n[export]", "'text' is not a key in [prefix]"),
        ("[model]", "prefix = 'x'\n[model]", "prefix"),
        ("[export]", "[calibration]\ntext = 7\n[export]", "[calibration] text: expected"),
        ("[export]", "[calibration]\n[export]", "[calibration] lacks the key `text`"),
    ],
)
def test_a_wrong_type_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in refusal(tmp_path, old, new)


def test_a_source_that_is_missing_is_asked_for(tmp_path: Path) -> None:
    message = refusal(tmp_path, f'hub = "someone/tiny"\nrevision = "{COMMIT}"', "")
    assert "exactly one of hub, path, gguf, package; it has none" in message


def test_two_sources_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, 'hub = "someone/tiny"', 'hub = "someone/tiny"\npath = "x"')
    assert "it has hub and path" in message


@pytest.mark.parametrize("revision", ["main", COMMIT[:7], COMMIT.upper(), ""])
def test_a_hub_revision_that_can_move_is_refused(tmp_path: Path, revision: str) -> None:
    assert "40 hexadecimal digits" in refusal(tmp_path, COMMIT, revision)


def test_a_hub_revision_may_be_left_out(tmp_path: Path) -> None:
    text = RECIPE.replace(f'revision = "{COMMIT}"\n', "")
    source = load_decoder_recipe(write(tmp_path, text)).source
    assert source == HubSource(hub="someone/tiny", revision=None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("256", "4", "at least 16"),
        ("min_top1_agreement = 0.9", "min_top1_agreement = 90", "a share"),
        ("max_kl = 0.1", "max_kl = nan", "max_kl"),
        ("max_kl = 0.1", "max_kl = -1", "max_kl"),
        ("max_perplexity_ratio = 1.05", "max_perplexity_ratio = 0", "max_perplexity_ratio"),
        ('"Tiny"', '" "', "id is empty"),
        ('"Apache-2.0"', '""', "SPDX"),
        ("[export]", '[prefix]\nsystem_prompt = " "\n[export]', "system_prompt is empty"),
    ],
)
def test_a_value_out_of_range_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert said in refusal(tmp_path, old, new)


NEEDS_5 = RECIPE.replace("context_length = 256", "context_length = 256\ntransformers = 5")


@pytest.mark.parametrize(
    ("text", "installed", "fits"),
    [
        (RECIPE, "4.57.6", True),
        (RECIPE, "5.24.0", True),
        (NEEDS_5, "5.24.0", True),
        (NEEDS_5, "4.57.6", False),
        (NEEDS_5, "50.0.0", False),
    ],
)
def test_a_recipe_may_take_transformers_5_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, installed: str, fits: bool
) -> None:
    monkeypatch.setattr(recipe_loader, "version", lambda name: {"transformers": installed}[name])
    recipe = load_recipe(write(tmp_path, text))
    if fits:
        check_transformers(recipe)
        return
    with pytest.raises(ExportError, match=f"tiny takes transformers 5, and {installed} is "):
        check_transformers(recipe)


def test_a_transformers_that_no_environment_has_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, "context_length = 256", "context_length = 256\ntransformers = 6")
    assert "[export] transformers: invalid enum value 6" in message


@pytest.mark.parametrize("option", ["--dry-run", "--out=absent"])
def test_the_other_transformers_is_refused_before_anything_is_fetched(
    tmp_path: Path, option: str
) -> None:
    program = "import sys; from model_export import recipe_loader as loader"
    program += "; loader.version = lambda _: '4.57.6'"
    program += "; from model_export.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, write(tmp_path, NEEDS_5), option]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "TRANSFORMERS=5" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not ended.stdout
