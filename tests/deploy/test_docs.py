"""Tests what docs/deploy.md and the README say of deploying: figures, settings and commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.cost import Prices, per_million
from deploy.aws.release import parameters
from handlers.cpus import LAMBDA_MB_PER_CPU

ROOT = Path(__file__).resolve().parents[2]
DOCS = (ROOT / "docs" / "deploy.md").read_text()
README = (ROOT / "README.md").read_text()
PRICES = Prices.load()


def measured(row: str) -> float:
    """The README's figure of Kindling with AVX2, its number alone."""
    found = re.search(rf"^\| {re.escape(row)} \| ([\d.]+) ", README, re.MULTILINE)
    assert found, row
    return float(found[1])


READING = 512 / measured("first token after 512 prompt tokens") * 1e3
ONE = measured("decode, 1 stream")
FOUR = measured("decode, 4 streams together")
LAMBDA = PRICES.lambda_second(2, peak_mb=0)
CLOUD_RUN = PRICES.cloud_run_second(2, peak_mb=2**30 / 1e6)

COSTS = {
    "Lambda, 3,538 MB, reading a prompt of 512": (LAMBDA, READING),
    "Lambda, 3,538 MB, writing, one request at a time": (LAMBDA, ONE),
    "Cloud Run, 2 vCPU and 1 GiB, reading a prompt of 512": (CLOUD_RUN, READING),
    "Cloud Run, 2 vCPU and 1 GiB, writing, one request": (CLOUD_RUN, ONE),
    "Cloud Run, 2 vCPU and 1 GiB, writing, four together": (CLOUD_RUN, FOUR),
}


@pytest.mark.parametrize("row", COSTS)
def test_a_cost_is_the_price_over_the_measured_speed(row: str) -> None:
    second, speed = COSTS[row]
    cost = per_million(second, speed)
    assert f"| {row} | {second:.7f} | {speed:.0f} | {cost:.3f} |" in DOCS


def test_the_readme_rounds_the_same_costs_and_names_the_prices_date() -> None:
    lambda_reads, lambda_writes, reads, writes_one, writes_four = (
        f"${per_million(*cost):.2f}" for cost in COSTS.values()
    )
    in_order = [lambda_reads, lambda_writes, reads, writes_four, writes_one]
    assert re.findall(r"\$\d+\.\d\d", README) == in_order
    for text in (DOCS, README):
        assert PRICES.date in text


def test_two_vcpus_are_the_memory_that_the_costs_name() -> None:
    assert f"{2 * LAMBDA_MB_PER_CPU:,} MB" in DOCS


def test_every_parameter_that_is_set_in_the_docs_exists() -> None:
    named = re.findall(r"`([A-Z][a-z]\w+)=", DOCS) + re.findall(r" ([A-Z][a-z]\w+)=", DOCS)
    assert len(named) > 8
    assert set(named) <= parameters().keys()


def test_every_file_and_make_word_that_is_named_exists() -> None:
    words = set(re.findall(r"\bmake ([a-z-]+)", DOCS)) - {"images"}
    makefile = (ROOT / "Makefile").read_text()
    assert words
    assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in words)
    for path in re.findall(r"`((?:deploy|tests|bench)/[\w./-]+\.\w+)`", DOCS):
        assert (ROOT / path).is_file(), path
