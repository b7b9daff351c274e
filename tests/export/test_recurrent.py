"""Recurrent layers, by two operators written in plain torch, compute what transformers does.

transformers 4 has one of the three functions. So beside transformers' own stand tiny_hybrid.py's,
and Mamba 2 as its paper writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import pytest
import torch
from torch.nn.functional import pad, softplus
from transformers.cache_utils import Cache

from model_export.trace.recurrent import LinearAttention, Recurrence
from tests.support import tiny_hybrid

Function = Callable[..., Any]

BATCH, TOKENS, KEY_HEADS, HEADS, KEY_SIZE, VALUE_SIZE = 2, 70, 2, 4, 12, 20
"""More tokens than the 64 and the 16 that transformers takes at a time, and no multiple of them."""


def convolution(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    width = weight.shape[1]
    output = (pad(x, (0, 0, width - 1, 0)).unfold(1, width, 1) * weight).sum(-1)
    return output if bias is None else output + bias


def linear_attention(layer: LinearAttention) -> torch.Tensor:
    """Token by token."""
    query, key, value = layer.query, layer.key, layer.value
    if layer.norm_epsilon > 0:
        query, key = (
            each / (each.square().sum(-1, keepdim=True) + layer.norm_epsilon).sqrt()
            for each in (query, key)
        )
    query, key = (for_each_head(each, value.shape[2]) for each in (query, key))
    state = value.new_zeros(value.shape[0], value.shape[2], key.shape[3], value.shape[3])
    outputs = []
    for token in range(value.shape[1]):
        state = state * layer.decay[:, token, :, None, None].exp()
        new = value[:, token]
        if layer.beta is not None:
            recalled = torch.einsum("bhkv,bhk->bhv", state, key[:, token])
            new = (new - recalled) * layer.beta[:, token, :, None]
        state = state + torch.einsum("bhk,bhv->bhkv", key[:, token], new)
        outputs.append(layer.scale * torch.einsum("bhkv,bhk->bhv", state, query[:, token]))
    return torch.stack(outputs, dim=1)


def for_each_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.repeat_interleave(heads // x.shape[2], dim=2)


OURS = Recurrence(convolution, linear_attention)


def of_transformers(architecture: str, name: str) -> Function:
    file = import_module(f"transformers.models.{architecture}.modeling_{architecture}")
    function: Function = getattr(file, name)
    return function


def of_transformers_5(architecture: str, name: str) -> list[Function]:
    """None with transformers 4, where layers have no functions to call."""
    return [of_transformers(architecture, name)] if hasattr(Cache, "update_conv_state") else []


def delta_rule_of_transformers() -> Function:
    """That of transformers 4 is given every key head as often as it is used."""
    theirs = of_transformers("qwen3_next", "torch_chunk_gated_delta_rule")

    @wraps(theirs)
    def grouped(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **rest: Any) -> Any:
        query, key = (for_each_head(each, value.shape[2]) for each in (query, key))
        return theirs(query, key, value, **rest)

    return theirs if hasattr(Cache, "update_conv_state") else grouped


def mamba2(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,  # noqa: N803  (the paper's names)
    B: torch.Tensor,  # noqa: N803
    C: torch.Tensor,  # noqa: N803
    *,
    D: torch.Tensor | None,  # noqa: N803
    dt_bias: torch.Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
    **_: Any,
) -> torch.Tensor:
    """https://arxiv.org/abs/2405.21060, equation 1, of exp(dt A) and dt B."""
    dt = dt if dt_bias is None else dt + dt_bias
    dt = (softplus(dt) if dt_softplus else dt).clamp(*dt_limit)[..., None, None]
    B, C = (for_each_head(each, x.shape[2])[..., None, :] for each in (B, C))  # noqa: N806
    state = torch.zeros(())
    outputs = []
    for token in range(x.shape[1]):
        step, new = dt[:, token], x[:, token, :, :, None]
        state = torch.exp(A[:, None, None] * step) * state + step * B[:, token] * new
        outputs.append((C[:, token] * state).sum(-1))
    output = torch.stack(outputs, dim=1)
    return output if D is None else output + D[:, None] * x


def name_of(function: object) -> str:
    return getattr(function, "__module__", "").rpartition(".")[2]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(
    "theirs",
    [
        tiny_hybrid.causal_conv1d_fn,
        *of_transformers_5("lfm2", "causal_conv1d_fn"),
        *of_transformers_5("qwen3_next", "causal_conv1d_fn"),
    ],
    ids=name_of,
)
def test_the_convolution(theirs: Function, activation: str | None, biased: bool) -> None:
    x, weight = torch.randn(BATCH, 12, TOKENS), torch.randn(12, 3)
    bias = torch.randn(12) if biased else None
    found = OURS.causal_conv1d_fn(x, weight, bias, activation=activation)
    assert_close(found, theirs(x, weight, bias, activation=activation))


@pytest.mark.parametrize(
    ("normalised", "size"),
    [(False, 0.2), (True, 1.0), (True, 3e-4)],
    ids=["as they are", "over their norm", "so small that the epsilon decides"],
)
@pytest.mark.parametrize("key_heads", [KEY_HEADS, HEADS])
@pytest.mark.parametrize(
    "theirs",
    [tiny_hybrid.torch_chunk_gated_delta_rule, delta_rule_of_transformers()],
    ids=name_of,
)
def test_the_delta_rule(theirs: Function, key_heads: int, normalised: bool, size: float) -> None:
    """The squares of 12 elements of 3e-4 add up to 1e-6, which is the epsilon."""
    query, key = (torch.randn(BATCH, TOKENS, key_heads, KEY_SIZE) * size for _ in range(2))
    value = torch.randn(BATCH, TOKENS, HEADS, VALUE_SIZE)
    decay, beta = -torch.rand(BATCH, TOKENS, HEADS), torch.rand(BATCH, TOKENS, HEADS)
    given: dict[str, Any] = {"g": decay, "beta": beta, "use_qk_l2norm_in_kernel": normalised}
    found, _ = OURS.torch_chunk_gated_delta_rule(query, key, value, **given)
    expected, _ = theirs(query, key, value, **given)
    assert_close(found, expected)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dt_softplus", [False, True])
@pytest.mark.parametrize("dt_limit", [(0.0, float("inf")), (0.9, 1.1)])
@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize(
    "theirs", [mamba2, *of_transformers_5("falcon_h1", "mamba2_chunk_scan")], ids=name_of
)
def test_the_scan_of_mamba_2(
    theirs: Function, skips: bool, dt_limit: tuple[float, float], dt_softplus: bool, biased: bool
) -> None:
    """Steps lie on both sides of the finite limits, with and without bias and softplus."""
    x, dt = torch.randn(BATCH, TOKENS, HEADS, VALUE_SIZE), torch.rand(BATCH, TOKENS, HEADS) + 0.2
    B, C = torch.randn(2, BATCH, TOKENS, KEY_HEADS, KEY_SIZE)  # noqa: N806
    given: dict[str, Any] = {
        "chunk_size": 16,
        "D": torch.randn(HEADS) if skips else None,
        "dt_bias": torch.rand(HEADS) if biased else None,
        "dt_softplus": dt_softplus,
        "dt_limit": dt_limit,
    }
    A = -torch.rand(HEADS)  # noqa: N806
    found, _ = OURS.mamba2_chunk_scan(x, dt, A, B, C, **given)
    assert_close(found, theirs(x, dt, A, B, C, **given))
