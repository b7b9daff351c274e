"""Tests what a recurrent layer must not lose without a word, and what of it gets more bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from model_export.decoder.convert import convert
from model_export.fuse import fuse
from model_export.quantize import quantize
from model_export.recipe import Precision
from model_export.reporting import ExportError
from model_export.trace import recurrent
from model_export.trace.cache import SharedCache
from model_export.trace.recurrent import Recurrence
from tests.support.tiny_hybrid import make_hybrid
from tests.support.tiny_models import tiny_model

LENGTH = 64
NONE: Any = None


@pytest.fixture
def hybrid() -> PreTrainedModel:
    return tiny_model("hybrid")


def test_a_convolution_by_another_function_is_refused(
    hybrid: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state would be lost, and the recurrence behind it would hide that."""
    monkeypatch.setattr(recurrent, "_FUNCTIONS", ("torch_chunk_gated_delta_rule",))
    with pytest.raises(ExportError, match="in its layers 1 a convolution of its own"):
        convert(hybrid, LENGTH)


def test_a_recurrence_that_the_model_computed_itself_is_refused() -> None:
    cache = SharedCache("SomeForCausalLM")
    with pytest.raises(ExportError, match="SomeForCausalLM has in its layer 3 a recurrence"):
        cache.update_recurrent_state(torch.zeros(1, 2, 3, 4), 3)


def test_a_second_state_of_a_kind_is_refused() -> None:
    cache = SharedCache("SomeForCausalLM")
    for asked in (cache.get_conv_state, cache.get_recurrent_state):
        assert asked(3, state_idx=0) is None
        with pytest.raises(ExportError, match="more than one state of a kind in its layer 3"):
            asked(3, state_idx=1)


@pytest.mark.parametrize("function", ["causal_conv1d_fn", "mamba2_chunk_scan"])
def test_an_argument_that_no_operator_has_is_refused(function: str) -> None:
    ours = getattr(Recurrence(NONE, NONE), function)
    given = {"causal_conv1d_fn": 2, "mamba2_chunk_scan": 5}[function]
    with pytest.raises(ExportError, match="is given seq_idx, which our operators cannot express"):
        ours(*[torch.zeros(1, 2, 3)] * given, seq_idx=torch.zeros(1))


def test_mixed_layers_give_a_recurrent_layers_input_more_bits() -> None:
    """The first and the last of three layers get them; here the first is the recurrent one."""
    model = make_hybrid(tiny_model("llama"), layer=0)
    graph = quantize(fuse(convert(model, LENGTH)), Precision("int4", mixed_layers=True)).graph
    eight = [
        "/".join(str(node.name).split("/")[3:6])
        for node in graph
        if node.op_type == "AffineMatMul" and node.attributes["bits"].as_int() == 8
    ]
    assert eight == [
        "layers.0/self_attn/project",
        "layers.0/mlp/down_proj",
        "layers.2/self_attn/GroupQueryAttention",
        "layers.2/mlp/down_proj",
    ]
