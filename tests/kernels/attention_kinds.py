"""The kinds of attention that the tests go through."""

from __future__ import annotations

import dataclasses

from tests.kernels.attention_node import Kind

KINDS = {
    "grouped": Kind(heads=9, kv_heads=3, size=64),
    "one key-value head": Kind(heads=8, kv_heads=1, size=16),
    "each head its own": Kind(heads=3, kv_heads=3, size=24),
    "seven of a group": Kind(heads=7, kv_heads=1, size=48),
    "packed": Kind(packed=True, rotary_size=32),
    "rope": Kind(rotary_size=32),
    "rope in part": Kind(size=40, rotary_size=12),
    "rope in pairs": Kind(rotary_size=32, interleaved=True),
    "rope in pairs in part": Kind(size=20, rotary_size=8, interleaved=True),
    "window": Kind(window=7),
    "window of one": Kind(window=1),
    "wider window than a chunk": Kind(window=70),
    "softcap": Kind(softcap=3.0, scale=1.0),
    "sinks": Kind(sinks=True),
    "scale": Kind(scale=0.05),
    "all": Kind(
        packed=True,
        rotary_size=16,
        window=33,
        softcap=4.0,
        sinks=True,
        heads=6,
        size=80,
        interleaved=True,
    ),
    "16 wide": Kind(size=16),
    "odd": Kind(size=17),
    "100 wide": Kind(size=100),
    "128 wide": Kind(size=128),
    "256 wide": Kind(size=256),
}


def with_cache(kind: Kind, half: bool) -> Kind:
    return dataclasses.replace(kind, half=half)
