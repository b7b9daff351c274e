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
from transformers import PreTrainedModel

from handlers.artifact.manifest import DRAFT_GRAPH, GRAPH, WEIGHTS
from model_export.decoder.convert import convert
from model_export.decoder.cut import layers_of
from model_export.draft.own_layers import write_own_layers
from model_export.fuse import fuse
from model_export.quantize import quantize
from model_export.recipe import Precision
from model_export.save import save
from tests.support.families import tiny
from tests.support.family_configurations import CONTEXT_LENGTH as SMALL_CONTEXT
from tests.support.graph_runner import GraphRunner
from tests.support.reference import last_logits
from tests.support.tiny_models import CONTEXT_LENGTH, SAVED, tiny_model
from tests.support.tiny_tokenizers import VOCABULARY

OTHERS = ("granite", "gpt_neox", "olmo2")
PROMPT = [3 + 7 * n % (VOCABULARY - 3) for n in range(47)]
EVERY_KIND = ("int8", "int4", "compact4", "compact5", "int6")


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


@pytest.mark.parametrize("family", [*SAVED, *OTHERS])
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
