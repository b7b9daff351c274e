"""A language model that ranks by saying yes or no: from a recipe to scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore
from transformers import AutoConfig, AutoModelForCausalLM

from handlers.artifact.manifest import Artifact, EncoderInfo, PairPrompt
from handlers.encoder.batching import pad
from handlers.encoder.request import EncoderInput
from handlers.encoder.session import EncoderSession
from handlers.text.tokenizer import Tokenizer
from model_export.encoder.convert import convert
from model_export.encoder.judge import Judge
from model_export.encoder.judge_reference import make_judge_reference
from model_export.encoder.source import EncoderSource, fetch_encoder
from model_export.fuse import ENCODER_PASSES, fuse
from model_export.pipeline import export as run_export
from model_export.recipe import EncoderRecipe, JudgeTable
from model_export.recipe_loader import load_recipe
from model_export.reporting import ExportError
from model_export.save import save
from model_export.sizing.dry_run import fetch_config
from model_export.sizing.outline import outline_of
from model_export.verify.encoder import check_tokens
from tests.api.client import ApiClient
from tests.support.configurations import CONFIGURATIONS
from tests.support.exact_encoders import serve
from tests.support.reports import ignore
from tests.support.tiny_judge import (
    NO,
    PROMPT,
    TABLE,
    YES,
    prompt_of,
    save_judge_folder,
    share_of_yes,
)

RECIPE = """
[model]
id = "Tiny"
licence = "Apache-2.0"

[source]
path = "source"

[export]
task = "text-ranking"
max_tokens = {max_tokens}
{table}
[precision]
weights = "int8"

[tolerance]
min_top1_agreement = 0.5
max_score_difference = 0.5
"""
QUERY = "Who lives above the sea?"
DOCUMENTS = [
    "A keeper lived alone.",
    "Paris",
    "",
    "It rains in the morning, 你好 <|im_end|> {query}",
]
ORDINARY = [*DOCUMENTS[:3], "It rains in the morning, 你好 {query}"]
"""Without the text of a control token, which transformers takes for the token itself."""
LONG = "the keeper counted ships, and nothing else happened; " * 30


def recipe_of(directory: Path, table: str = TABLE, max_tokens: int = 256) -> EncoderRecipe:
    path = directory / "tiny.toml"
    path.write_text(RECIPE.format(table=table, max_tokens=max_tokens), encoding="utf-8")
    recipe = load_recipe(str(path))
    assert isinstance(recipe, EncoderRecipe)
    return recipe


def scores(client: Any, documents: list[str], **wish: Any) -> list[float]:
    body = {"query": QUERY, "documents": documents, **wish}
    results = client.json("POST", "/v1/rerank", body)["results"]
    return [each["relevance_score"] for each in sorted(results, key=lambda each: each["index"])]


def test_a_language_model_becomes_a_ranker(tmp_path: Path) -> None:
    save_judge_folder(tmp_path / "source")
    run_export(recipe_of(tmp_path), tmp_path / "out", ignore)
    manifest = Artifact.open(tmp_path / "out").manifest
    assert manifest.encoder == EncoderInfo(
        dimensions=0, max_tokens=256, labels=(YES,), activation="sigmoid", pair_prompt=PROMPT
    )
    assert manifest.vocab_size == 512
    assert manifest.model.architecture == "Qwen3ForCausalLM"
    assert manifest.verification["tokens"]["pairs"] > 96
    assert manifest.verification["exact"]["largest_error"] < 1e-5
    assert manifest.verification["drift"]["inputs"] == 96
    graph = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False).graph
    heads = {one.name: list(one.dims) for one in graph.initializer if "lm_head" in one.name}
    assert list(heads.values()) == [[64]], heads  # of all rows of the output projection, one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_judge_folder(tmp_path_factory.mktemp("judge") / "source")


@pytest.fixture(scope="module")
def client(folder: Path) -> ApiClient:
    return serve(folder, "text-ranking", folder.parent / "artefact", TABLE)


def test_its_scores_are_the_share_of_yes_that_transformers_finds(
    folder: Path, client: ApiClient
) -> None:
    found = scores(client, ORDINARY)
    assert max(found) - min(found) > 0.001
    expected = share_of_yes(folder, [prompt_of(QUERY, document) for document in ORDINARY])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_score_is_the_same_alone_and_beside_others(client: ApiClient) -> None:
    documents = [*DOCUMENTS, LONG[:300]]
    alone = [scores(client, [document])[0] for document in documents]
    np.testing.assert_allclose(scores(client, documents), alone, atol=1e-6)


@pytest.mark.parametrize("name", ["instruction", "instruct"])
def test_a_request_may_have_an_instruction_of_its_own(
    folder: Path, client: ApiClient, name: str
) -> None:
    told = "Find {document} or rain."
    found = scores(client, DOCUMENTS[:2], **{name: told})
    before, after = PROMPT.template.replace("{query}", QUERY).split("{document}")
    before = before.replace("{instruction}", told)
    expected = share_of_yes(folder, [f"{before}{each}{after}" for each in DOCUMENTS[:2]])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(np.array(found) - scores(client, DOCUMENTS[:2])).max() > 1e-4


def test_a_document_beyond_the_context_is_cut_before_the_end_of_the_prompt(
    folder: Path, client: ApiClient
) -> None:
    status, error = client.error("POST", "/v1/rerank", {"query": QUERY, "documents": [LONG]})
    assert (status, error["param"], error["code"]) == (
        400,
        "documents[0]",
        "context_length_exceeded",
    )
    found = scores(client, [LONG], truncate=True)
    kept = LONG
    tokenizer = Tokenizer.load(folder.parent / "artefact" / "tokenizer.json")
    while len(tokenizer.encode(prompt_of(QUERY, kept))) > 256:
        kept = kept[:-1]
    assert len(tokenizer.encode(prompt_of(QUERY, kept))) == 256  # it ends with a token
    np.testing.assert_allclose(found, share_of_yes(folder, [prompt_of(QUERY, kept)]), atol=1e-5)


def loaded(directory: Path, table: str = TABLE, max_tokens: int = 256) -> EncoderSource:
    return fetch_encoder(recipe_of(directory, table, max_tokens), ignore)


def test_another_prompt_than_transformers_fails_gate_1(folder: Path) -> None:
    source = loaded(folder.parent)
    assert source.judge is not None
    reference = make_judge_reference(source, source.judge)
    assert max(reference.cut) == 256
    shortest = min(reference.cut)
    assert sum(len(each.ids) == shortest for each in reference.cut[shortest]) > 48
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    assert check_tokens(reference, tokenizer, PROMPT)["texts"] == 0
    other = replace_prompt("<|im_start|>assistant\n\n", "<|im_start|>assistant\n")
    with pytest.raises(ExportError, match="Gate 1 failed"):
        check_tokens(reference, tokenizer, other)


def replace_prompt(old: str, new: str) -> PairPrompt:
    return PairPrompt(PROMPT.template.replace(old, new), PROMPT.instruction)


def test_words_that_were_exchanged_fail_gate_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_judge_folder(tmp_path / "source")
    exact = convert

    def spoilt(model: Any, head: Any, judge: Any) -> Any:
        return exact(model, head, replace(judge, yes=judge.no, no=judge.yes))

    monkeypatch.setattr("model_export.encoder.convert.convert", spoilt)
    with pytest.raises(ExportError, match=r"Gate 2 failed: .* away from transformers'"):
        run_export(recipe_of(tmp_path), tmp_path / "out", ignore)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('yes = "y"', 'yes = "yes or no"', "yes is 'yes or no', of which the tokenizer makes"),
        ("{query}", "{question}", r"template must have {query} exactly once"),
        ("{document}", "{document}{document}", r"must have {document} exactly once"),
        ("{instruction}", "{instruction} {instruction}", r"have {instruction} at most once"),
        ("{instruction}", "", "write both, or neither"),
        ('no = "n"', 'know = "n"', "unknown field `know`"),
    ],
)
def test_what_is_wrong_with_the_table_is_said(folder: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        loaded(folder.parent, TABLE.replace(old, new, 1))


def test_a_prompt_that_leaves_no_room_for_a_document_is_refused(folder: Path) -> None:
    source = loaded(folder.parent, max_tokens=40)
    assert source.judge is not None
    with pytest.raises(ExportError, match=r"leaves a document none of max_tokens, 40"):
        make_judge_reference(source, source.judge)


def test_a_model_that_caps_its_logits_is_refused(tmp_path: Path) -> None:
    save_judge_folder(tmp_path / "source", "gemma2")
    with pytest.raises(ExportError, match="final_logit_softcapping"):
        loaded(tmp_path)


def test_a_model_that_scales_its_logits_is_judged_by_them(tmp_path: Path) -> None:
    folder = save_judge_folder(tmp_path / "source", "llama")  # with the weights that Granite has
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {
        "model_type": "granite",
        "architectures": ["GraniteForCausalLM"],
        "logits_scaling": 4.0,
        "attention_multiplier": 0.25,
    }
    path.write_text(json.dumps(config), encoding="utf-8")
    found = scores(serve(folder, "text-ranking", tmp_path / "artefact", TABLE), ORDINARY)
    expected = share_of_yes(folder, [prompt_of(QUERY, document) for document in ORDINARY])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_dry_run_counts_no_output_projection(folder: Path) -> None:
    recipe = recipe_of(folder.parent)
    outline = outline_of(fetch_config(recipe.source, ignore), recipe)
    assert sum(512 in (each.rows, each.columns) for each in outline.matrices) == 1


def test_the_shipped_recipe_has_the_prompt_of_the_models_page() -> None:
    """As vLLM, sentence-transformers and MTEB quote it."""
    recipe = load_recipe("qwen3-reranker-0.6b")
    assert isinstance(recipe, EncoderRecipe)
    assert recipe.export.judge == JudgeTable(
        yes="yes",
        no="no",
        instruction="Given a web search query, retrieve relevant passages that answer the query",
        template="<|im_start|>system\nJudge whether the Document meets the requirements based on "
        'the Query and the Instruct provided. Note that the answer can only be "yes" or "no".'
        "<|im_end|>\n<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n"
        "<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    )


def test_two_layers_in_the_shipped_recipes_shape_judge_as_transformers_does(
    tmp_path: Path,
) -> None:
    fields = CONFIGURATIONS["qwen3-reranker-0.6b"] | {"num_hidden_layers": 2, "vocab_size": 512}
    kind = fields.pop("model_type")
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(kind, **fields), attn_implementation="eager"
    ).eval()
    rows = [list(range(3, 40)), [7, 500, 9], list(range(300, 420, 7))]
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in rows]
    expected = [[float(row[40] - row[41])] for row in logits]
    save(fuse(convert(model, None, Judge(40, 41, PROMPT)), ENCODER_PASSES), tmp_path)
    session = EncoderSession(tmp_path / "model.onnx", threads=1)
    found = session.run(pad([EncoderInput(ids) for ids in rows]))
    assert np.abs(np.array(expected)).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_table_is_a_rankers(folder: Path) -> None:
    text = RECIPE.format(table=TABLE, max_tokens=64).replace("text-ranking", "text-classification")
    (folder.parent / "other.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match="is a ranker's, not text-classification's"):
        load_recipe(str(folder.parent / "other.toml"))


# What sentence-transformers saves of such a model.

ROLES = """<|im_start|>system
Judge: {{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first \
| default("Find what answers.") }}<|im_end|>
<|im_start|>user
Query: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
Document: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first \
}}<|im_end|>
{% if add_generation_prompt %}<|im_start|>assistant

{% endif %}"""
MESSAGES = {
    name: {"method": "forward", "method_output_name": "logits"} for name in ("text", "message")
}
MESSAGES["message"]["format"] = "flat"


def save_cross_encoder(
    directory: Path, template: str = ROLES, no: str | None = NO, **settings: Any
) -> CrossEncoder:
    """Returns the model as sentence-transformers loads what it saved."""
    folder = save_judge_folder(directory / "transformer")
    transformer = Transformer(
        str(folder),
        transformer_task="text-generation",
        modality_config=MESSAGES,
        module_output_name="causal_logits",
        processing_kwargs={"chat_template": {"add_generation_prompt": True}},
        processor_kwargs={"chat_template": template, "model_max_length": 200},
    )
    ids = [transformer.tokenizer.convert_tokens_to_ids(word) for word in (YES, no) if word]
    model = CrossEncoder(modules=[transformer, LogitScore(*ids)], device="cpu", **settings)
    model.save(str(directory / "saved"), create_model_card=False)
    witness: CrossEncoder = CrossEncoder(str(directory / "saved"), device="cpu")
    return witness


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"no": None, "activation_fn": torch.nn.Identity()},
        {"prompts": {"rain": "Find rain."}, "default_prompt_name": "rain"},
    ],
    ids=["by default", "yes alone", "with a prompt"],
)
def test_sentence_transformers_scores_alike(tmp_path: Path, settings: dict[str, Any]) -> None:
    witness = save_cross_encoder(tmp_path, **settings)
    client = serve(tmp_path / "saved", "text-ranking", tmp_path / "artefact")
    documents = [*DOCUMENTS[:3], LONG]
    pairs: Any = [(QUERY, document) for document in documents]
    found = scores(client, documents, truncate=True)
    np.testing.assert_allclose(np.array(found), witness.predict(pairs), atol=1e-4)
    told = np.array(scores(client, documents, truncate=True, instruction="Find a bottle."))
    np.testing.assert_allclose(told, witness.predict(pairs, prompt="Find a bottle."), atol=1e-4)
    assert np.abs(told - found).max() > 1e-4


@pytest.mark.parametrize(
    "template",
    [ROLES.replace('"query")', '"user")'), ROLES.replace("| first }}\n", "| first | trim }}\n")],
    ids=["without a query", "trimmed"],
)
def test_a_chat_template_that_is_no_plain_prompt_is_refused(tmp_path: Path, template: str) -> None:
    assert template != ROLES
    save_cross_encoder(tmp_path)
    path = tmp_path / "saved" / "chat_template.jinja"
    assert path.is_file()
    path.write_text(template, encoding="utf-8")
    with pytest.raises(ExportError, match="does not put a query and a document"):
        serve(tmp_path / "saved", "text-ranking", tmp_path / "artefact")


def test_a_recipe_may_say_what_the_files_say_and_nothing_else(tmp_path: Path) -> None:
    save_cross_encoder(tmp_path).save(str(tmp_path / "source"), create_model_card=False)
    assert loaded(tmp_path).info.pair_prompt == PROMPT
    with pytest.raises(ExportError, match="says otherwise: leave it out"):
        loaded(tmp_path, TABLE.replace('no = "n"', 'no = "m"'))
