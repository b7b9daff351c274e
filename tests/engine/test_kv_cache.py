"""The cache's memory: what its views share, and what they cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from handlers.engine.kv_cache import CacheTensor, KvCache

TENSORS = (
    CacheTensor("past_key_values.0.key", "present.0.key", heads=2, head_dim=8),
    CacheTensor("past_key_values.0.value", "present.0.value", heads=2, head_dim=16),
)


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def test_every_tensor_has_its_own_shape() -> None:
    cache = KvCache(TENSORS, slots=3, capacity=32)
    assert [view.shape for view in cache.rows(0, 3)] == [(3, 2, 32, 8), (3, 2, 32, 16)]


def test_rows_are_contiguous_views_of_the_same_memory() -> None:
    cache = KvCache(TENSORS, slots=4, capacity=32)
    view = cache.rows(1, 2)[0]
    view[0] = 7.0
    assert view.flags["C_CONTIGUOUS"]
    assert (cache.rows(1, 1)[0] == 7.0).all()
    assert not cache.rows(0, 1)[0].any()
    assert not cache.rows(2, 2)[0].any()


def test_a_cache_costs_memory_only_where_it_is_written() -> None:
    before = resident_bytes()
    cache = KvCache(TENSORS, slots=64, capacity=16_384)  # 201 MB
    cache.rows(63, 1)[1][0, 0, :256] = 1.0
    assert resident_bytes() - before < 4_000_000
    assert np.count_nonzero(cache.rows(63, 1)[1]) == 256 * 16
