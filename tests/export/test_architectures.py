"""Every supported architecture goes through convert and fuse, and answers as transformers does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.masking_utils import (
    and_masks,
    causal_mask_function,
    chunked_overlay,
    sliding_window_causal_mask_function,
)

from model_export.decoder.convert import convert
from model_export.reporting import ExportError
from model_export.save import save
from model_export.trace.attention import Window, window_of
from model_export.trace.support import check_exportable
from tests.support.graph_runner import GraphRunner
from tests.support.reference import greedy_ids
from tests.support.tiny_exports import export_tiny
from tests.support.tiny_models import CONTEXT_LENGTH, FAMILIES, tiny_model
from tests.support.tiny_tokenizers import VOCABULARY

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def prompts() -> list[list[int]]:
    """One, some, and more tokens than the widest sliding window."""
    source = random.Random(7)
    return [[source.randrange(3, VOCABULARY) for _ in range(n)] for n in (1, 9, 47, 30)]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def graph(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(family, tmp_path_factory.mktemp(family)) / "model.onnx"


@pytest.fixture(scope="module")
def expected(family: str) -> list[list[int]]:
    return greedy_ids(tiny_model(family), prompts(), 24)


def test_the_answers_of_a_random_model_wander(expected: list[list[int]]) -> None:
    assert min(len(set(answer)) for answer in expected) > 3


def test_each_prompt_alone_gets_the_ids_of_transformers(
    graph: Path, expected: list[list[int]]
) -> None:
    for prompt, answer in zip(prompts(), expected, strict=True):
        assert GraphRunner(graph, 1, CONTEXT_LENGTH).greedy([prompt], 24) == [answer]


def test_staggered_rows_with_chunked_prompts_get_the_same_ids(
    graph: Path, expected: list[list[int]]
) -> None:
    runner = GraphRunner(graph, len(expected), CONTEXT_LENGTH)
    assert runner.greedy(prompts(), 24, chunk=7) == expected


def test_padding_columns_may_lie_behind_learned_positions(tmp_path: Path) -> None:
    graph = export_tiny("gpt2", tmp_path) / "model.onnx"
    nearly_full = [3 + n % 500 for n in range(CONTEXT_LENGTH - 1)]
    runner = GraphRunner(graph, 2, CONTEXT_LENGTH + 8)
    runner.step([nearly_full, []])
    runner.step([[5], [4, 5, 6, 7, 8]])
    assert runner.lengths.tolist() == [CONTEXT_LENGTH, 5]


def test_weights_stay_the_models_own_memory() -> None:
    model = tiny_model("llama")
    weight = model.get_parameter("model.embed_tokens.weight")
    exported = convert(model, CONTEXT_LENGTH)
    tensor = exported.graph.initializers["model.model.embed_tokens.weight"].const_value
    assert tensor is not None
    assert tensor.numpy().__array_interface__["data"][0] == weight.data_ptr()


def test_a_model_is_left_as_it_was(tmp_path: Path) -> None:
    model = tiny_model("gemma3")
    before = greedy_ids(model, prompts()[:2], 8)
    implementation = model.config._attn_implementation
    save(convert(model, CONTEXT_LENGTH), tmp_path)
    assert model.config._attn_implementation == implementation
    assert not model.training
    assert greedy_ids(model, prompts()[:2], 8) == before


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            lambda: BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=1)),
            "BloomForCausalLM",
        ),
        (
            lambda: MptForCausalLM(MptConfig(vocab_size=64, d_model=32, n_heads=2, n_layers=1)),
            "MptForCausalLM",
        ),
    ],
)
def test_alibi_is_refused_with_the_architectures_name(model: object, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        convert(model().eval(), 32)  # type: ignore[operator]


def test_an_architecture_without_text_generation_is_refused() -> None:
    model = T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=16, num_layers=1))
    with pytest.raises(ExportError, match=r"T5ForConditionalGeneration \(t5\)"):
        convert(model, 32)


def test_dynamic_rope_is_refused_beyond_its_original_length() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0}
    model = LlamaForCausalLM(LlamaConfig(**SMALL | {"rope_scaling": rope}))
    model.config.original_max_position_embeddings = 32
    with pytest.raises(ExportError, match=r"dynamic.*over 32 tokens.*context_length to 32"):
        convert(model, 64)
    convert(model, 32)


def test_longrope_is_refused_beyond_its_original_length() -> None:
    factors = [1.0] * 8
    rope = {"type": "longrope", "short_factor": factors, "long_factor": factors}
    config = Phi3Config(**SMALL, original_max_position_embeddings=32, rope_scaling=rope)
    with pytest.raises(ExportError, match=r"longrope.*over 32 tokens"):
        convert(Phi3ForCausalLM(config), 64)


def test_a_rope_by_length_of_one_kind_of_layers_is_refused() -> None:
    """As transformers 5 writes the rotary embeddings of a model that has several."""
    model = LlamaForCausalLM(LlamaConfig(**SMALL))
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    model.config.rope_parameters = {
        "sliding_attention": plain,
        "full_attention": plain | {"rope_type": "dynamic", "factor": 2.0},
    }
    with pytest.raises(ExportError, match="frequencies change with the length, beside others"):
        check_exportable(model, 32)


LLAMA_4 = {"attention_chunk_size": 64, "floor_scale": 64, "no_rope_layers": [0, 1]}


def llama_4(**others: object) -> PreTrainedModel:
    sizes = SMALL | {"num_hidden_layers": 2, "head_dim": 16, "num_local_experts": 2}
    return Llama4ForCausalLM(Llama4TextConfig(**sizes | LLAMA_4 | others))


def test_chunks_of_attention_are_refused_beyond_the_first() -> None:
    model = llama_4(attention_chunk_size=32)
    with pytest.raises(ExportError, match=r"chunks of 32 tokens.*context_length to 32 or less"):
        check_exportable(model, 33)
    check_exportable(model, 32)


def test_queries_scaled_by_their_position_are_refused_from_the_first_that_is() -> None:
    model = llama_4(floor_scale=32)
    with pytest.raises(ExportError, match=r"from token 32 on.*context_length to less than 32"):
        check_exportable(model, 32)
    check_exportable(model, 31)


@pytest.mark.parametrize("others", [{"attn_temperature_tuning": False}, {"no_rope_layers": [1, 1]}])
def test_queries_that_no_layer_scales_may_stand_at_any_position(others: dict[str, object]) -> None:
    check_exportable(llama_4(floor_scale=32, **others), 64)


def test_attention_scaled_by_the_layer_is_refused() -> None:
    config = GPT2Config(n_embd=32, n_layer=1, n_head=2, scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(ExportError, match="scale_attn_by_inverse_layer_idx"):
        convert(GPT2LMHeadModel(config), 32)


@pytest.mark.parametrize("length", [1, 65])
def test_a_context_that_the_positions_do_not_reach_is_refused(length: int) -> None:
    with pytest.raises(ExportError, match="has positions for 2 to 64"):
        convert(LlamaForCausalLM(LlamaConfig(**SMALL)), length)


def test_a_causal_mask_is_a_window_without_an_edge() -> None:
    causal = causal_mask_function  # annotated as of numbers, called with tensors
    assert window_of(causal, 40) == Window(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [1, 7, 39])
def test_a_sliding_mask_is_a_window_of_its_width(width: int) -> None:
    assert window_of(sliding_window_causal_mask_function(width), 40) == Window(width)


def test_a_chunked_mask_is_not_a_window() -> None:
    chunked = and_masks(chunked_overlay(8, torch.zeros(1, dtype=torch.int64)), causal_mask_function)
    assert window_of(chunked, 40) is None


def test_a_mask_that_sees_ahead_is_not_a_window() -> None:
    assert window_of(lambda _batch, _head, _query, key: key >= 0, 40) is None
