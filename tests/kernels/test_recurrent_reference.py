"""Linear attention beside transformers' own."""

from __future__ import annotations

import numpy as np
import torch
from transformers.models.qwen3_next.modeling_qwen3_next import torch_recurrent_gated_delta_rule

from tests.kernels.linear_node import Linear
from tests.kernels.recurrent_node import Node


def test_qwen3_nexts_own_reference_gives_the_same() -> None:
    """Decay, delta rule and norm, by transformers' own loop over the tokens."""
    kind = Linear(heads=4, key_heads=4, key_size=64, value_size=48, scale=64**-0.5)
    node, new = Node(kind, rows=2), kind.new_tokens(rows=2)
    given = {name: torch.from_numpy(array) for name, array in new.arrays.items()}
    y, state = torch_recurrent_gated_delta_rule(
        given["query"].unflatten(2, (4, 64)),
        given["key"].unflatten(2, (4, 64)),
        given["value"].unflatten(2, (4, 48)),
        g=given["decay"],
        beta=given["beta"],
        initial_state=None,
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    np.testing.assert_allclose(node.step(new), y.flatten(2).numpy(), rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(node.state, state.numpy(), rtol=2e-5, atol=1e-5)
