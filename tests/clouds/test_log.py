"""The log: one JSON object a line, whatever happens in it."""

from __future__ import annotations

import io
import itertools
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from handlers import log
from handlers.api.http import TokenUsage, identifying_headers
from handlers.log import LOGGER, RequestLog, configure


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Sets a process's log up at INFO, and captures what it writes."""
    before = LOGGER.handlers, LOGGER.level, LOGGER.propagate
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    configure("INFO")
    yield stream
    LOGGER.handlers, LOGGER.propagate = before[0], before[2]
    LOGGER.setLevel(before[1])


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_has_the_keys_that_both_clouds_filter_by(output: io.StringIO) -> None:
    logging.getLogger("handlers.engine").warning("slow %s", "step")
    (line,) = lines(output)
    assert line["message"] == "slow step"
    assert line["level"] == line["severity"] == "WARNING"
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None


def test_a_level_below_the_chosen_one_is_not_written(output: io.StringIO) -> None:
    logging.getLogger("handlers.engine").debug("step")
    assert lines(output) == []


def test_line_breaks_and_tracebacks_stay_on_their_line(output: io.StringIO) -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        LOGGER.exception("failed\nbadly")
    (line,) = lines(output)
    assert line["message"] == "failed\nbadly"
    assert line["exception"].endswith("ValueError: first\nsecond")


def test_a_request_is_one_line_with_the_tokens_of_its_usage(output: io.StringIO) -> None:
    RequestLog("id-1", "POST", "/v1/\ud800\n").log_completed(200, TokenUsage(3, 5))
    (line,) = lines(output)
    assert (line["id"], line["method"], line["path"]) == ("id-1", "POST", "/v1/\ud800\n")
    assert (line["status"], line["prompt_tokens"], line["completion_tokens"]) == (200, 3, 5)
    assert line["ms"] >= 0
    assert "drafted_tokens" not in line


def test_drafts_are_logged_where_some_were_computed(output: io.StringIO) -> None:
    usage = TokenUsage(3, 50, drafted_tokens=40, accepted_tokens=31)
    RequestLog("id-1", "POST", "/v1/completions").log_completed(200, usage)
    (line,) = lines(output)
    assert (line["drafted_tokens"], line["accepted_tokens"]) == (40, 31)


def test_a_line_stays_short_whatever_a_client_sends(output: io.StringIO) -> None:
    RequestLog("id", "M" * 60_000, "/v1/" + "x" * 60_000 + "/models").log_completed(404)
    try:
        raise KeyError("k" * 60_000)
    except KeyError:
        LOGGER.exception("failed: %s", "m" * 60_000)
    request, failure = lines(output)
    assert (len(request["path"]), len(request["method"])) == (256, 256)
    assert (request["path"][:5], request["path"][-7:]) == ("/v1/x", "/models")
    assert request["message"] == f"{request['method']} 404"
    assert (len(failure["message"]), len(failure["exception"])) == (2048, 16_384)
    assert failure["exception"].startswith("Traceback")


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, None),
        (TokenUsage(3, 5), (3, 5)),
        (TokenUsage(3), (3, 0)),
    ],
)
def test_tokens_are_logged_where_an_answer_took_some(
    output: io.StringIO, usage: TokenUsage | None, counts: tuple[int, int] | None
) -> None:
    RequestLog("id-2", "POST", "/v1/responses").log_completed(200, usage)
    (line,) = lines(output)
    assert ("completion_tokens" in line) == (counts is not None)
    assert counts is None or (line["prompt_tokens"], line["completion_tokens"]) == counts


def test_the_first_request_of_a_process_is_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_requests", itertools.count())
    first, second = RequestLog("1", "GET", "/healthz"), RequestLog("2", "GET", "/healthz")
    assert identifying_headers(first.id, first.cold) == {
        "x-request-id": "1",
        "x-kindling-cold": "true",
    }
    assert identifying_headers(second.id, second.cold) == {"x-request-id": "2"}


def test_a_probe_leaves_the_first_request_to_be_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_requests", itertools.count())
    probe, first = RequestLog.of_probe("1", "GET", "/healthz"), RequestLog("2", "GET", "/v1/models")
    assert (probe.cold, first.cold) == (False, True)


def test_where_nobody_waited_for_the_process_no_request_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_requests", itertools.count())
    log.mark_warm()
    assert not RequestLog("1", "GET", "/healthz").cold
