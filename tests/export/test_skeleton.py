"""A skeleton has the weights that transformers would load, and reads none of the large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import BertConfig, PreTrainedModel

from model_export.fetch import skeleton
from model_export.fetch.load import DECODER, LoadedModel, fetch, load
from model_export.fetch.locate import Located, locate
from model_export.fetch.safetensors_file import WeightFile
from model_export.fetch.skeleton import load_skeleton
from model_export.fetch.stand_ins import fill, real_weights, weight_of
from model_export.recipe import FolderSource, GgufSource
from model_export.reporting import ExportError
from tests.support.families import tiny
from tests.support.families_table import ABSENT, read_rows
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_gguf import write_tiny_gguf

FAMILIES = (
    "llama",
    "apertus",  # parameters in another precision
    "deepseek_v3",  # a few layers without experts
    "falcon_h1",  # parameters of many shapes
    "gemma3",  # a part of a model that also sees
    "gpt2",  # tied, and transposed
    "gpt_oss",  # experts in tensors of three axes
    "llama4_text",
    "mixtral",  # experts under other names, which transformers 5 stacks
    "olmo_hybrid",
    "phimoe",
    "qwen3_moe",
    "recurrent_gemma",  # transformers 5 makes weights of its own for a module before it keeps ours
)
ROWS = read_rows()


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skeleton, "_REAL", 0)


def folder_of(model: PreTrainedModel, directory: Path) -> Located:
    model.save_pretrained(directory, safe_serialization=True)
    return Located(directory, None, (), "folder:tiny", "0")


def check_against_transformers(located: Located, auto_class: str) -> PreTrainedModel:
    """The skeleton, once it is compared with the model that transformers loads by itself."""
    auto = getattr(transformers, auto_class)
    expected, info = auto.from_pretrained(
        located.directory,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    model, missing = load_skeleton(located, auto_class, ignore)
    assert type(model) is type(expected)
    assert not model.training
    assert sorted(missing) == sorted(info["missing_keys"])
    with real_weights(model):
        found, wanted = model.state_dict(), expected.state_dict()
        assert list(found) == list(wanted)
        assert all(torch.equal(found[name], wanted[name]) for name in set(wanted) - set(missing))
    assert len(list(model.parameters())) == len(list(expected.parameters()))
    buffers = dict(expected.named_buffers())
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert getattr(model, "generation_config", None) == getattr(expected, "generation_config", None)
    return model


@pytest.mark.parametrize(
    "kind", [kind for kind in FAMILIES if kind in ROWS and ROWS[kind].outcome() != ABSENT]
)
def test_a_family_has_the_weights_that_transformers_loads(kind: str, tmp_path: Path) -> None:
    model = check_against_transformers(folder_of(tiny(kind), tmp_path), DECODER.auto_class)
    in_fp32 = [one for one in model.parameters() if one.dtype == torch.float32]
    assert all(weight_of(parameter) is not None for parameter in in_fp32)


def tiny_bert() -> BertConfig:
    return BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
    )


def test_a_model_for_words_is_loaded_as_its_encoder(tmp_path: Path) -> None:
    located = folder_of(transformers.BertForMaskedLM(tiny_bert()), tmp_path)
    model = check_against_transformers(located, "AutoModel")
    assert "embeddings.word_embeddings.weight" in dict(model.named_parameters())


def test_an_encoder_is_loaded_as_a_classifier_that_lacks_its_head(tmp_path: Path) -> None:
    located = folder_of(transformers.BertModel(tiny_bert()), tmp_path)
    _, missing = load_skeleton(located, "AutoModelForSequenceClassification", ignore)
    assert sorted(missing) == ["classifier.bias", "classifier.weight"]


def test_older_names_of_norms_are_found(tmp_path: Path) -> None:
    located = folder_of(transformers.BertModel(tiny_bert()), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value + 1
        for name, value in weights.items()
    }
    save_file(older, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check_against_transformers(located, "AutoModel")


def test_tied_weights_are_one_stand_in(tmp_path: Path) -> None:
    config = tiny("llama").config
    config.tie_word_embeddings = True
    located = folder_of(transformers.LlamaForCausalLM(config), tmp_path)
    model: Any = check_against_transformers(located, DECODER.auto_class)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with real_weights(model):
        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert weight_of(model.lm_head.weight) is None
    assert weight_of(model.lm_head.weight) is not None
    fill(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert weight_of(model.lm_head.weight) is None


def test_a_shape_that_the_configuration_does_not_have_is_refused(tmp_path: Path) -> None:
    source = FolderSource(path=save_tiny_folder(tmp_path / "tiny"))
    weights = load_file(source.path / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(3)
    save_file(weights, source.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match="transformers cannot load as a decoder"):
        fetch(source, ignore)


def test_a_weight_that_the_files_lack_is_named(tmp_path: Path) -> None:
    source = FolderSource(path=save_tiny_folder(tmp_path / "tiny"))
    weights = load_file(source.path / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, source.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"its files lack model\.norm\.weight"):
        fetch(source, ignore)


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_no_byte_of_a_large_weight_is_read_while_a_model_loads(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "folder":
        located = locate(FolderSource(path=save_tiny_folder(tmp_path / "tiny", "mistral")), ignore)
    else:
        located = locate(GgufSource(gguf=write_tiny_gguf(tmp_path / "tiny.gguf")), ignore)
    read: list[int] = []
    original = WeightFile.read

    def counted(file: WeightFile, offset: int, count: int) -> Any:
        read.append(count)
        return original(file, offset, count)

    monkeypatch.setattr(WeightFile, "read", counted)
    loaded: LoadedModel = load(located, report=ignore)
    assert sum(read) < 8 + 6000  # the head of a file of safetensors
    read.clear()
    fill(loaded.model)
    assert sum(read) == sum(4 * parameter.numel() for parameter in loaded.model.parameters())
