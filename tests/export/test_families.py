"""docs/families.md is true: what it says exports does, and the rest is refused in its words."""

from __future__ import annotations

import importlib.util

import pytest

from model_export.trace.transformers5_only import SINCE_TRANSFORMERS_5
from tests.support.families import EXPORTS, examine
from tests.support.families_table import ABSENT, in_short, read_rows
from tests.support.family_configurations import OPTIMUM, families

# Those that export take seconds each: these stand for the others, beside the families of
# test_architectures.py. Every refusal is checked.
REPRESENTATIVE = (
    "apertus",  # an activation in another precision than the weights
    "bitnet",  # norms inside attention and MLP
    "cohere",  # interleaved rotary, one norm for attention and MLP
    "deepseek_v2",  # rotary embedding in complex numbers, keys and values of different widths
    "falcon_h1",  # attention and Mamba 2 in one layer
    "glm",  # interleaved rotary of a part
    "gpt_bigcode",  # one key-value head, learned positions
    "gpt_neo",  # attention of its own, without a scale, in a window in every second layer
    "gpt_neox",  # attention and MLP beside each other, packed projections
    "gpt_oss",  # attention sinks, sliding windows, experts
    "granitemoehybrid",  # layers of Mamba 2 beside layers of attention
    "lfm2",  # layers of a short convolution
    "llama4_text",  # rotary embedding in complex numbers, layers in chunks, experts of every token
    "olmo2",  # norms over all heads of query and key, norms behind
    "phi",  # rotary of a part, biases everywhere
    "phimoe",  # the greatest along an axis
    "qwen3_5_text",  # layers of the gated delta rule, sections of rotary embeddings
    "qwen3_moe",  # experts
)
ROWS = read_rows()
PRESENT = [kind for kind in REPRESENTATIVE if ROWS[kind].outcome() != ABSENT]
REFUSED = [kind for kind, row in ROWS.items() if row.outcome() not in {EXPORTS, ABSENT}]


def test_the_page_has_a_row_for_every_family_of_the_walk() -> None:
    assert {kind for kind, row in ROWS.items() if row.outcome() != ABSENT} == set(families())


@pytest.mark.skipif(importlib.util.find_spec("optimum") is None, reason="optimum is not installed")
def test_the_walk_is_over_optimums_whole_list() -> None:
    import optimum.exporters.onnx.model_configs  # noqa: F401  (registers the architectures)
    from optimum.exporters.tasks import TasksManager

    listed = TasksManager.get_supported_model_type_for_task("text-generation-with-past", "onnx")
    assert set(OPTIMUM) == set(listed)


def test_the_families_that_point_to_transformers_5_are_those_that_it_alone_exports() -> None:
    newer = {
        k for k, row in ROWS.items() if row.four not in {EXPORTS, ABSENT} and row.five == EXPORTS
    }
    assert newer == SINCE_TRANSFORMERS_5


@pytest.mark.filterwarnings("ignore")  # of transformers' files of a hundred families, at import
@pytest.mark.parametrize("kind", dict.fromkeys([*PRESENT, *REFUSED]))
def test_a_family_is_as_the_page_says(kind: str) -> None:
    verdict, row = examine(kind), ROWS[kind]
    assert (row.model_class, row.outcome()) == (verdict.model_class, in_short(verdict.outcome))
