"""Repositories as people publish them: templates by name, older tokenizers, quantised, adapters."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from transformers import AutoTokenizer, BertTokenizerFast, GPT2TokenizerFast

from handlers.text.tokenizer import Tokenizer
from model_export.encoder.source import fetch_encoder
from model_export.fetch.load import TRANSFORMER, fetch, load
from model_export.fetch.locate import locate
from model_export.package import write_sidecars
from model_export.recipe import EncoderRecipe, FolderSource
from model_export.recipe_loader import load_decoder_recipe, load_recipe
from model_export.reporting import ExportError
from model_export.sizing.dry_run import fetch_config
from model_export.sizing.outline import outline_of
from tests.export.test_fetch import download
from tests.support.hub import COMMIT, REPOSITORY, serve_hub
from tests.support.reports import ignore
from tests.support.tiny_encoder_folder import save_encoder_folder
from tests.support.tiny_folder import save_tiny_folder

CHAT = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
PLAIN = "D{{ bos_token }}{{ messages[0].content }}"
WITH_TOOLS = "T{{ tools | length }}{{ messages[0].content }}<tool_call>"
BOS = {"__type": "AddedToken", "content": "<|im_start|>", "lstrip": False, "special": True}
NAMED = [{"name": "default", "template": PLAIN}, {"name": "tool_use", "template": WITH_TOOLS}]
EXTRA = "additional_chat_templates/tool_use.jinja"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_folder(tmp_path_factory.mktemp("tiny"), chat_template=None)


def with_templates(
    folder: Path, to: Path, files: dict[str, str], named: list[dict[str, str]] | None
) -> Path:
    copy = Path(shutil.copytree(folder, to))
    config = json.loads((copy / "tokenizer_config.json").read_text()) | {"bos_token": BOS}
    if named is not None:
        config["chat_template"] = named
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    return copy


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"chat_template.jinja": PLAIN}, None),
        ({}, NAMED),
        ({}, NAMED[:1]),
        ({"chat_template.jinja": PLAIN, EXTRA: WITH_TOOLS}, None),
        ({"chat_template.jinja": PLAIN, EXTRA: WITH_TOOLS}, [NAMED[0] | {"template": "older"}]),
        ({}, [*NAMED, {"name": "rag", "template": "R"}]),
    ],
)
def test_a_chat_has_the_template_that_transformers_takes(
    folder: Path, tmp_path: Path, files: dict[str, str], named: list[dict[str, str]] | None
) -> None:
    copy = with_templates(folder, tmp_path / "copy", files, named)
    tokenizer = AutoTokenizer.from_pretrained(copy)
    loaded = fetch(FolderSource(path=copy), ignore)
    assert loaded.chat_template == tokenizer.get_chat_template()
    with_tools = loaded.tool_template or loaded.chat_template
    assert with_tools == tokenizer.get_chat_template(tools=[TOOL])


@pytest.mark.parametrize(
    ("files", "named"), [({}, NAMED[1:]), ({EXTRA: WITH_TOOLS}, None), ({EXTRA: WITH_TOOLS}, NAMED)]
)
def test_templates_without_one_for_a_plain_chat_are_refused(
    folder: Path, tmp_path: Path, files: dict[str, str], named: list[dict[str, str]] | None
) -> None:
    copy = with_templates(folder, tmp_path / "copy", files, named)
    with pytest.raises(ExportError, match='named tool_use, and none named "default"'):
        fetch(FolderSource(path=copy), ignore)


def write_vocabulary(kind: str, folder: Path) -> list[str]:
    """A tokenizer's older files, in the place of tokenizer.json. Returns their names."""
    (folder / "tokenizer.json").unlink()
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    if kind == "bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz."]
        more = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
        (folder / "vocab.txt").write_text("\n".join([*words, *more, "the", "##ing"]))
        config = {"tokenizer_class": BertTokenizerFast.__name__.removesuffix("Fast")}
        names = ["vocab.txt"]
    else:
        (folder / "vocab.json").write_text(_byte_vocabulary())
        (folder / "merges.txt").write_text("#version: 0.2\nh e\nt he\n")
        config = {"tokenizer_class": GPT2TokenizerFast.__name__.removesuffix("Fast")}
        names = ["vocab.json", "merges.txt"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return names


def _byte_vocabulary() -> str:
    from tokenizers.pre_tokenizers import ByteLevel

    words = [*sorted(ByteLevel.alphabet()), "he", "the", "<|endoftext|>"]
    return json.dumps({word: number for number, word in enumerate(words)})


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_repository_without_tokenizer_json_gets_one_with_the_same_ids(
    tmp_path: Path, kind: str
) -> None:
    served = tmp_path / "served"
    if kind == "bert":
        save_encoder_folder(served)
    else:
        save_tiny_folder(served, "gpt2")
    names = write_vocabulary(kind, served)
    with serve_hub(served) as endpoint:
        ended = download(endpoint, tmp_path / "cache", REPOSITORY, COMMIT)
    assert ended.returncode == 0, ended.stderr
    snapshot = Path(ended.stdout.split()[0])
    assert {*names} <= {path.name for path in snapshot.iterdir()}
    source = FolderSource(path=snapshot)
    loaded = (
        load(locate(source, ignore), TRANSFORMER, report=ignore)
        if kind == "bert"
        else fetch(source, ignore)
    )
    write_sidecars(tmp_path, load_decoder_recipe("smollm2-135m"), loaded)
    written = Tokenizer.load(tmp_path / "tokenizer.json")
    transformers = AutoTokenizer.from_pretrained(snapshot)
    for text in ("The thing is there.", "ÄÖ the<|endoftext|> [MASK] x", "  two  spaces\n"):
        for special in (False, True):
            ids = transformers.encode(text, add_special_tokens=special)
            assert written.encode(text, add_special_tokens=special) == ids


def test_a_tokenizer_that_needs_a_package_names_it(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    (copy / "tokenizer.model").write_bytes(b"\x0a\x0c\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    with pytest.raises(ExportError, match=r"of tokenizer\.model .* pip install sentencepiece"):
        fetch(FolderSource(path=copy), ignore)


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
QUANTISED: list[tuple[str, dict[str, Any], str]] = [
    ("config.json", {"quantization_config": FP8}, r"\(FP8\)"),
    ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"\(GPTQ\)"),
    ("config.json", {"quantization_config": {"quant_method": "awq", "bits": 4}}, r"\(AWQ\)"),
    (
        "config.json",
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        r"\(bitsandbytes\)",
    ),
    (
        "config.json",
        {"quantization_config": {"quant_method": "compressed-tensors"}},
        r"\(compressed-tensors\)",
    ),
    ("config.json", {"quantization_config": {"quant_method": "mxfp4"}}, r"\(MXFP4\)"),
    ("config.json", {"quantization_config": {"quant_method": "newest"}}, r"\(newest\)"),
    ("config.json", {"text_config": {"quantization_config": FP8}}, r"\(FP8\)"),
    (
        "config.json",
        {"compression_config": {"format": "float-quantized"}},
        r"\(compressed-tensors\)",
    ),
    ("config.json", {"quantization": {"group_size": 64, "bits": 4}}, r"\(MLX\)"),
    ("quantize_config.json", {"bits": 4, "group_size": 128}, r"\(GPTQ\)"),
    ("hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4"}}, r"\(ModelOpt\)"),
]


@pytest.mark.parametrize(("name", "content", "said"), QUANTISED)
def test_quantised_weights_are_refused_before_they_are_read(
    folder: Path, tmp_path: Path, name: str, content: dict[str, Any], said: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    older = json.loads((copy / name).read_text()) if (copy / name).is_file() else {}
    (copy / name).write_text(json.dumps(older | content))
    (copy / "README.md").write_text("---\nlicense: mit\nbase_model:\n- some/Plain-1B\n---\n# Quick")
    (copy / "model.safetensors").write_bytes(b"not to be read")
    for ask in (locate, fetch_config):
        with pytest.raises(ExportError, match=f"already quantised {said}.* some/Plain-1B"):
            ask(FolderSource(path=copy), ignore)


@pytest.mark.parametrize(
    ("name", "dtype", "said"),
    [
        ("model.layers.0.mlp.up_proj.weight", "F8_E4M3", "up_proj.weight is F8_E4M3"),
        ("model.layers.0.mlp.up_proj.qweight", "I32", "up_proj.qweight is I32"),
        ("model.layers.0.mlp.up_proj.weight", "U8", "up_proj.weight is U8"),
    ],
)
def test_packed_weights_that_no_configuration_tells_of_are_refused(
    folder: Path, tmp_path: Path, name: str, dtype: str, said: str
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    head = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "position_ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
            name: {"dtype": dtype, "shape": [1], "data_offsets": [8, 12]},
        }
    ).encode()
    (copy / "more.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(12))
    with pytest.raises(ExportError, match=said):
        locate(FolderSource(path=copy), ignore)


ADAPTER = {"base_model_name_or_path": "some/Plain-1B", "peft_type": "LORA", "r": 8}


def test_an_adapter_is_refused_with_what_to_do(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (copy / "model.safetensors").rename(copy / "adapter_model.safetensors")
    (copy / "config.json").unlink()
    for ask in (locate, fetch_config):
        with pytest.raises(ExportError, match=r"adapter .* to some/Plain-1B.* merge it with peft"):
            ask(FolderSource(path=copy), ignore)


@pytest.mark.parametrize("kind", ["quantised", "adapter"])
def test_nothing_large_is_downloaded_of_what_is_refused(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    served = Path(shutil.copytree(folder, tmp_path / "served"))
    if kind == "quantised":
        config = json.loads((served / "config.json").read_text())
        (served / "config.json").write_text(json.dumps(config | {"quantization_config": FP8}))
    else:
        (served / "config.json").unlink()
        (served / "adapter_config.json").write_text(json.dumps(ADAPTER))
    with serve_hub(served) as endpoint:
        ended = download(endpoint, tmp_path / "cache", REPOSITORY, COMMIT)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"hub:{REPOSITORY} has ")
    assert "Traceback" not in ended.stderr
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_ranker_that_has_no_score_is_refused_also_by_its_configuration_alone(
    tmp_path: Path,
) -> None:
    source = FolderSource(path=save_tiny_folder(tmp_path / "source", "qwen3"))
    recipe = load_recipe("ms-marco-minilm-l6-v2")
    assert isinstance(recipe, EncoderRecipe)
    with pytest.raises(ExportError, match=r"lack score\.weight\. .*-seq-cls"):
        fetch_encoder(replace(recipe, source=source), ignore)
    with pytest.raises(ExportError, match=r"lack score\.weight\. .*-seq-cls"):
        outline_of(fetch_config(source, ignore), recipe)


def test_templates_of_a_folder_in_a_hub_repository_are_downloaded(
    folder: Path, tmp_path: Path
) -> None:
    files = {"chat_template.jinja": PLAIN, EXTRA: WITH_TOOLS, "onnx/tokenizer.json": "{}"}
    served = with_templates(folder, tmp_path / "served", files, None)
    with serve_hub(served) as endpoint:
        ended = download(endpoint, tmp_path / "cache", REPOSITORY, COMMIT)
    assert ended.returncode == 0, ended.stderr
    snapshot = Path(ended.stdout.split()[0])
    assert (snapshot / EXTRA).read_text() == WITH_TOOLS
    assert not (snapshot / "onnx").exists()
