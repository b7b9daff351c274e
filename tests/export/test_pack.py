"""An artefact appears whole or not at all, and its manifest says what is in it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import tokenizers
from transformers import PreTrainedTokenizerFast

from handlers import __version__
from handlers.artifact.manifest import MANIFEST, SCHEMA, Artifact, Manifest, parse_manifest
from model_export.decoder.export import DecoderStrategy
from model_export.decoder.generation_config import stop_token_ids
from model_export.fetch.load import LoadedModel, fetch
from model_export.manifest import describe_files, make_manifest, save_manifest
from model_export.package import write_sidecars
from model_export.recipe import DecoderRecipe, FolderSource
from model_export.recipe_loader import load_decoder_recipe
from tests.support import dialect_templates
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_tokenizers import CHATML, END_OF_TEXT, IM_END, VOCABULARY


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = save_tiny_folder(tmp_path_factory.mktemp("tiny"))
    return fetch(FolderSource(path=folder), ignore)


@pytest.fixture
def recipe() -> DecoderRecipe:
    return load_decoder_recipe("smollm2-135m")


def write_manifest(directory: Path, recipe: DecoderRecipe, loaded: LoadedModel) -> None:
    fields = DecoderStrategy(recipe, loaded).manifest_fields(ignore)
    files = describe_files(directory)
    save_manifest(directory, make_manifest(recipe, loaded, fields, "int4", files))


def test_the_manifest_describes_every_file_and_the_model(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe
) -> None:
    write_sidecars(tmp_path, recipe, loaded)
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    write_manifest(tmp_path, recipe, loaded)
    manifest = msgspec.json.decode((tmp_path / MANIFEST).read_bytes(), type=Manifest)
    present = {path.name for path in tmp_path.iterdir()} - {MANIFEST}
    assert set(manifest.files) == present
    for name, info in manifest.files.items():
        content = (tmp_path / name).read_bytes()
        assert (info.size, info.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest.schema == SCHEMA
    assert manifest.model.architecture == "LlamaForCausalLM"
    assert manifest.vocab_size == VOCABULARY
    assert manifest.special_tokens["eos_token"] == "<|im_end|>"
    assert manifest.precision == "int4"
    assert manifest.verification == {}
    assert {"python", "torch", "transformers", "onnxruntime"} <= set(manifest.versions)
    assert manifest.versions["kindling"] == __version__


def test_the_manifest_has_the_dialect_of_the_chat_template(
    tmp_path: Path, recipe: DecoderRecipe
) -> None:
    folder = save_tiny_folder(tmp_path / "source", chat_template=dialect_templates.TAGGED)
    loaded, out = fetch(FolderSource(path=folder), ignore), tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"a graph")
    write_sidecars(out, recipe, loaded)
    write_manifest(out, recipe, loaded)

    dialect = Artifact(out, parse_manifest((out / MANIFEST).read_bytes(), MANIFEST)).dialect

    assert dialect.tools is not None
    assert dialect.tools.trigger == "<tool_call>"
    assert dialect.thinking is not None
    assert dialect.thinking.off == {"enable_thinking": False}


def test_a_file_that_is_known_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    known = describe_files(tmp_path)
    (tmp_path / "old").write_bytes(b"new")
    (tmp_path / "more").write_bytes(b"more")
    files = describe_files(tmp_path, known)
    assert files["old"] is known["old"]
    assert files["more"].sha256 == hashlib.sha256(b"more").hexdigest()


def test_writing_the_manifest_again_does_not_list_the_manifest(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe
) -> None:
    for _ in range(2):
        write_manifest(tmp_path, recipe, loaded)
    assert MANIFEST not in msgspec.json.decode((tmp_path / MANIFEST).read_bytes())["files"]


def test_a_tokenizer_that_cuts_and_pads_is_written_without_that(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe
) -> None:
    loaded.tokenizer.backend_tokenizer.enable_truncation(4)
    loaded.tokenizer.backend_tokenizer.enable_padding(length=64)
    write_sidecars(tmp_path, recipe, loaded)
    loaded.tokenizer.backend_tokenizer.no_truncation()
    loaded.tokenizer.backend_tokenizer.no_padding()
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "one two three four five six seven"
    assert written.decode(written.encode(text).ids) == text


def test_an_added_token_without_a_row_in_the_model_is_text(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe
) -> None:
    backend = loaded.tokenizer.backend_tokenizer
    more = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(backend.to_str()), eos_token="<image>"
    )
    more.add_tokens(["<plain>"])
    text = "a <image> and <plain>"
    assert max(more.encode(text)) > VOCABULARY
    write_sidecars(tmp_path, recipe, replace(loaded, tokenizer=more))
    write_manifest(tmp_path, recipe, replace(loaded, tokenizer=more))
    written = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert written.encode(text).ids == backend.encode(text).ids
    manifest = msgspec.json.decode((tmp_path / MANIFEST).read_bytes(), type=Manifest)
    assert all(token_id < VOCABULARY for token_id in manifest.eos_token_ids)


def test_a_model_without_a_chat_template_is_packed_without_one(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe
) -> None:
    write_sidecars(tmp_path, recipe, replace(loaded, chat_template=None))
    assert not (tmp_path / "chat_template.jinja").exists()


def test_the_models_own_licence_is_shipped(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe
) -> None:
    write_sidecars(tmp_path, recipe, loaded)
    assert (tmp_path / "LICENSE").read_text() == "The tiny licence.\n"


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("Apache-2.0", "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"),
        ("MIT", "under the licence MIT.\n\nMIT License\n"),
        ("MIT", "The above copyright notice and this permission notice shall be included"),
        ("ISC", "under the licence ISC.\n\nIts text: https://spdx.org/licenses/ISC.html"),
        (
            "LicenseRef-Gemma",
            "LicenseRef-Gemma.\n\nIts text is the Gemma Terms of Use: https",
        ),
        ("LicenseRef-Own", "licence LicenseRef-Own.\n\nIts text is where the weights are from."),
        ("../Apache-2.0", "under the licence ../Apache-2.0"),
    ],
)
def test_a_model_that_carries_no_licence_text_gets_one_or_a_notice(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe, licence: str, said: str
) -> None:
    model = msgspec.structs.replace(recipe.model, licence=licence)
    write_sidecars(
        tmp_path, msgspec.structs.replace(recipe, model=model), replace(loaded, licence_files=())
    )
    assert said in (tmp_path / "LICENSE").read_text()


def test_a_model_that_carries_nothing_but_a_notice_gets_its_licence_too(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe
) -> None:
    notice = tmp_path / "source" / "NOTICE"
    notice.parent.mkdir()
    notice.write_text("The model's own.\n")
    write_sidecars(tmp_path, recipe, replace(loaded, licence_files=(notice,)))
    assert (tmp_path / "NOTICE").read_text() == "The model's own.\n"
    assert f"under the licence {recipe.model.licence}." in (tmp_path / "LICENSE").read_text()


GEMMA = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at "
    "ai.google.dev/gemma/terms"
)
LLAMA = (
    "Llama {0} is licensed under the Llama {0} Community License, Copyright © Meta Platforms, Inc. "
    "All Rights Reserved."
)
QWEN = (
    "Qwen is licensed under the Qwen RESEARCH LICENSE AGREEMENT, Copyright (c) Alibaba Cloud. "
    "All Rights Reserved."
)


@pytest.mark.parametrize(
    ("licence", "sentence"),
    [
        ("LicenseRef-Gemma", GEMMA),
        ("LicenseRef-Llama-3.1", LLAMA.format("3.1")),
        ("LicenseRef-Llama-3.2", LLAMA.format("3.2")),
        ("LicenseRef-Qwen-Research", QWEN),
    ],
)
def test_a_licence_that_asks_for_a_notice_gets_its_sentence_beside_the_models_own_files(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe, licence: str, sentence: str
) -> None:
    model = msgspec.structs.replace(recipe.model, licence=licence)
    notice = tmp_path / "source" / "NOTICE"
    notice.parent.mkdir()
    notice.write_text("The model's own.\n")
    files = (*loaded.licence_files, notice)
    write_sidecars(
        tmp_path, msgspec.structs.replace(recipe, model=model), replace(loaded, licence_files=files)
    )
    assert (tmp_path / "LICENSE").read_text() == "The tiny licence.\n"
    first, second = (tmp_path / "NOTICE").read_text(encoding="utf-8").splitlines()[:2]
    assert (first, second) == ("The model's own.", sentence)


def test_a_licence_that_asks_for_no_notice_gets_none(
    tmp_path: Path, loaded: LoadedModel, recipe: DecoderRecipe
) -> None:
    write_sidecars(tmp_path, recipe, loaded)
    assert not (tmp_path / "NOTICE").exists()


def declare_end(loaded: LoadedModel, token_id: int | None) -> None:
    for config in (loaded.model.config, loaded.model.generation_config):
        assert config is not None
        config.eos_token_id = token_id


def test_the_end_of_a_turn_is_read_off_the_chat_template(loaded: LoadedModel) -> None:
    declare_end(loaded, END_OF_TEXT)
    assert stop_token_ids(loaded) == (END_OF_TEXT, IM_END)
    assert stop_token_ids(replace(loaded, chat_template=None)) == (END_OF_TEXT,)


@pytest.mark.parametrize(
    ("template", "ids"),
    [
        (CHATML, {END_OF_TEXT, IM_END}),
        (CHATML.replace("message['content'] + '<", "message['content'] + ' \\n<"), {0, 2}),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", {END_OF_TEXT}),
        ("{% for m in messages %}{{ m.content }} End<|im_end|>{% endfor %}", {END_OF_TEXT}),
        ("{{ messages | length }}<|im_end|>", {END_OF_TEXT}),
    ],
)
def test_only_a_token_right_after_the_answer_ends_a_turn(
    loaded: LoadedModel, template: str, ids: set[int]
) -> None:
    declare_end(loaded, END_OF_TEXT)
    assert set(stop_token_ids(replace(loaded, chat_template=template))) == ids


def test_a_model_that_declares_no_end_takes_the_tokenizers(loaded: LoadedModel) -> None:
    declare_end(loaded, None)
    assert stop_token_ids(replace(loaded, chat_template=None)) == (IM_END,)
