"""The cache's memory: what its views share, and what they cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handlers.engine.kv_cache import CacheTensor, KvCache
from handlers.errors import ArtifactError

KEYS = CacheTensor("past_key_values.0.key", "present.0.key", np.float16, (2, 8, 16), 16)
VALUES = CacheTensor("past_key_values.0.value", "present.0.value", np.float32, (2, 16), 1)
STATE = CacheTensor(
    "past_states.1.recurrent", "present_states.1.recurrent", np.float32, (4, 6, 5), 0
)
TENSORS = (KEYS, VALUES)


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * 4096


def filled(slots: int, capacity: int, tensors: tuple[CacheTensor, ...] = TENSORS) -> KvCache:
    """Every value is another."""
    cache = KvCache.allocate(tensors, slots=slots, capacity=capacity)
    for view in cache.rows(0, slots):
        view.reshape(-1)[:] = np.arange(view.size)
    return cache


@pytest.mark.parametrize("capacity", [17, 31, 32])
def test_every_tensor_has_its_own_shape_and_type_and_whole_blocks(capacity: int) -> None:
    views = KvCache.allocate(TENSORS, slots=3, capacity=capacity).rows(0, 3)
    assert [view.shape for view in views] == [(3, 2, 2, 8, 16), (3, 2, 32, 16)]
    assert [view.dtype for view in views] == [np.float16, np.float32]


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 16), (5, 20), (16, 40), (33, 48)])
def test_a_copy_has_all_positions_and_no_block_behind_them(start: int, stop: int) -> None:
    cache = filled(2, 48)
    keys, values = ([*view.copy()] for view in cache.rows(0, 2))
    cache.copy_prefix(0, 1, start, stop)
    first, last = start // 16, -(-stop // 16)
    keys[1][:, first:last] = keys[0][:, first:last]
    values[1][:, start:stop] = values[0][:, start:stop]
    for found, expected in zip(cache.rows(0, 2), (keys, values), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_one_cache_gives_another_attaches_and_copies() -> None:
    cache, other = filled(2, 48), KvCache.allocate(TENSORS, slots=2, capacity=64)
    parts = cache.slot_views(1, 0, 21)
    assert [part.shape for part in parts] == [(2, 2, 8, 16), (2, 21, 16)]
    other.attach(np.frombuffer(b"".join(part.tobytes() for part in parts), np.uint8), 21)
    other.copy_prefix(2, 0, 0, 21)
    for found, expected in zip(other.slot_views(0, 0, 21), parts, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_state_has_one_size_and_is_copied_whole() -> None:
    cache = filled(3, 48, (*TENSORS, STATE))
    states = cache.rows(0, 3)[2]
    assert states.shape == (3, 4, 6, 5)
    before = states.copy()
    cache.copy_prefix(2, 0, 5, 20)
    np.testing.assert_array_equal(states, before[[2, 1, 2]])
    assert cache.slot_views(1, 0, 7)[2].shape == (4, 6, 5)


def test_a_prefix_of_another_size_is_refused() -> None:
    cache = KvCache.allocate(TENSORS, slots=1, capacity=32)
    with pytest.raises(ArtifactError, match="has 3,199 bytes where 21 tokens of this graph take"):
        cache.attach(np.zeros(3199, np.uint8), 21)


def test_rows_are_contiguous_views_of_the_same_memory() -> None:
    cache = KvCache.allocate(TENSORS, slots=4, capacity=32)
    view = cache.rows(1, 2)[1]
    view[0] = 7.0
    assert view.flags["C_CONTIGUOUS"]
    assert (cache.rows(1, 1)[1] == 7.0).all()
    assert not cache.rows(0, 1)[1].any()
    assert not cache.rows(2, 2)[1].any()


def test_a_cache_costs_memory_only_where_it_is_written() -> None:
    before = resident_bytes()
    cache = KvCache.allocate(TENSORS, slots=64, capacity=16_384)  # 201 MB
    cache.rows(63, 1)[1][0, 0, :256] = 1.0
    assert resident_bytes() - before < 4_000_000
    assert np.count_nonzero(cache.rows(63, 1)[1]) == 256 * 16
