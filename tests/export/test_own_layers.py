"""A draft model of a model's own first layers: their answers, from the model's own weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from handlers.artifact.manifest import DRAFT_GRAPH, GRAPH, WEIGHTS
from handlers.engine.batch import Batch
from handlers.engine.session import Session
from model_export.decoder.convert import convert
from model_export.decoder.cut import layers_of
from model_export.draft.own_layers import write_own_layers
from model_export.draft.support import check_draft, check_sibling
from model_export.fuse import fuse
from model_export.quantize import quantize
from model_export.recipe import DraftTable, Precision
from model_export.reporting import ExportError
from model_export.save import save
from tests.support.families import tiny
from tests.support.family_configurations import CONTEXT_LENGTH as SMALL_CONTEXT
from tests.support.graph_runner import GraphRunner
from tests.support.reference import last_logits
from tests.support.tiny_models import CONTEXT_LENGTH, SAVED, tiny_model
from tests.support.tiny_tokenizers import VOCABULARY

FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3-partial",
    "smollm3",
    "gpt2",
    "granite",
)
PROMPT = [3 + 7 * n % (VOCABULARY - 3) for n in range(47)]


@contextmanager
def without_layers_from(model: PreTrainedModel, count: int) -> Iterator[None]:
    """Lets all layers from the `count`th on return what they are given."""

    def passes(_: torch.nn.Module, args: Any, given: Any, result: Any) -> Any:
        states = args[0] if args else given["hidden_states"]
        return (states, *result[1:]) if isinstance(result, tuple) else states

    found = layers_of(model)
    assert found is not None
    hooks = [
        layer.register_forward_hook(passes, with_kwargs=True) for layer in found.layers[count:]
    ]
    yield
    for hook in hooks:
        hook.remove()


def write(model: PreTrainedModel, layers: int, precision: Precision, directory: Path) -> None:
    """The artefact's graphs: that of the model and that of its first layers."""
    context = min(CONTEXT_LENGTH, getattr(model.config, "max_position_embeddings", SMALL_CONTEXT))
    save(quantize(fuse(convert(model, context)), precision), directory)
    write_own_layers(model, layers, lambda: fuse(convert(model, context)), precision, directory)


def external(graph: Path) -> dict[str, tuple[str, ...]]:
    """Where each tensor lies that is in no graph, by its name."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    return {
        tensor.name: tuple(each.value for each in tensor.external_data)
        for tensor in tensors
        if tensor.external_data
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_layers_answer_as_the_model_does_without_the_others(
    tmp_path: Path, family: str
) -> None:
    model = tiny_model(family) if family in SAVED else tiny(family)
    found = layers_of(model)
    assert found is not None
    layers = len(found.layers) - 1
    write(model, layers, Precision("fp32"), tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()
    with without_layers_from(model, layers):
        expected = last_logits(model, PROMPT)
    logits = GraphRunner(tmp_path / DRAFT_GRAPH, 1, len(PROMPT)).step([PROMPT])[0]
    np.testing.assert_allclose(logits, expected, atol=2e-3)
    whole = last_logits(model, PROMPT)
    assert np.abs(whole - expected).max() > 0.1
    assert (tmp_path / WEIGHTS).read_bytes() == before
    ours, theirs = external(tmp_path / DRAFT_GRAPH), external(tmp_path / GRAPH)
    assert 0 < len(ours) < len(theirs)
    assert ours == {name: theirs[name] for name in ours}


@pytest.mark.parametrize(
    "precision",
    [
        Precision("int8"),
        Precision("int4", algorithm="k_quant", lm_head="int8", mixed_layers=True),
        Precision("int4", algorithm="symmetric", lm_head="fp32"),
        Precision("compact5"),
    ],
    ids=Precision.describe,
)
@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_their_weights_and_what_they_keep_are_the_models_own(
    tmp_path: Path, family: str, precision: Precision
) -> None:
    layers = 2
    write(tiny_model(family), layers, precision, tmp_path)
    ours, theirs = external(tmp_path / DRAFT_GRAPH), external(tmp_path / GRAPH)
    assert ours == {name: theirs[name] for name in ours}
    whole, first = (kept_after_prompt(tmp_path / each) for each in (GRAPH, DRAFT_GRAPH))
    assert len(first) == 2 * layers < len(whole)
    for of_the_model, of_the_draft in zip(whole, first, strict=False):
        np.testing.assert_array_equal(of_the_model, of_the_draft)


def kept_after_prompt(graph: Path) -> list[NDArray[np.floating]]:
    """The keys and values of PROMPT, layer by layer."""
    count = len(PROMPT)
    session = Session(graph, threads=1, slots=1, capacity=count)
    batch = Batch(
        first_slot=0,
        input_ids=np.array([PROMPT], np.int64),
        query_seqlens=np.array([count], np.int32),
        seqlens_k=np.array([count - 1], np.int32),
        logits_indices=np.array([count - 1], np.int64),
    )
    session.step(batch)
    return [np.array(view) for view in session.cache.slot_views(0, 0, count)]


def test_weights_that_are_not_the_models_are_refused(tmp_path: Path) -> None:
    write(tiny_model("llama"), 2, Precision("int8"), tmp_path)
    other = tiny_model("llama")
    with torch.no_grad():
        other.get_parameter("model.layers.1.mlp.down_proj.weight").mul_(2)
    graph = fuse(convert(other, CONTEXT_LENGTH))
    with pytest.raises(ExportError, match=r"layers\.1/mlp/down_proj/.*\.scales .* other values"):
        write_own_layers(other, 2, graph.clone, Precision("int8"), tmp_path)
    with pytest.raises(ExportError, match=r"has no weight of this name"):
        write_own_layers(other, 2, graph.clone, Precision("fp32"), tmp_path)


def test_a_model_with_states_takes_no_drafts() -> None:
    for check in (
        lambda model: check_draft(model, DraftTable(layers=1)),
        lambda model: check_draft(model, DraftTable(recipe="smollm2-135m")),
        lambda model: check_sibling(model, CONTEXT_LENGTH),
    ):
        with pytest.raises(ExportError, match="LlamaForCausalLM has layers that keep a state"):
            check(tiny_model("hybrid"))


def test_a_model_that_does_not_divide_has_no_first_layers() -> None:
    model = tiny_model("llama")
    model.config.num_kv_shared_layers = 1
    with pytest.raises(ExportError, match="LlamaForCausalLM does not divide"):
        check_draft(model, DraftTable(layers=1))
