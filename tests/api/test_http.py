"""Tests the ids of requests: the client's own where it can be passed on."""

from __future__ import annotations

import pytest

from handlers.api.http import request_id


@pytest.mark.parametrize("given", ["a", "req-1/2;3", "!" * 128])
def test_the_clients_own_id_is_kept(given: str) -> None:
    assert request_id({"x-request-id": given}, "ours") == given


@pytest.mark.parametrize("given", ["", " ", "a b", "é", "a\n", "\x7f", "!" * 129])
def test_an_id_that_a_header_or_the_log_cannot_carry_is_replaced(given: str) -> None:
    assert request_id({"x-request-id": given}, "ours") == "ours"


def test_a_request_without_an_id_gets_ours() -> None:
    assert request_id({}, "ours") == "ours"
