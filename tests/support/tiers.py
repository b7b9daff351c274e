"""Tells a test's tier by its folder, its file's imports and what its fixtures need.

No test says its tier itself, and none can be in a wrong one unnoticed: the tests of `fast` fail
where one starts a process, and a run of `fast` alone never loads torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.import_graph import ROOT, reach
from tests.support.name_graph import Question
from tests.support.tiny_artifacts import DECODERS

TIER = "tier"
"""The property of a test's report."""
TIERS = {
    "fast": "runs in this process, without torch and without a model",
    "engine": "runs a tiny model in this process, without torch",
    "demo": "reads a demo's model in this process, without torch",
    "aws": "calls AWS, which moto answers in this process",
    "export": "loads torch, or starts an export",
    "processes": "starts servers, emulators, clients or other programs",
    "images": "runs the images with Docker",
}
TOGETHER = ("fast", "engine", "demo", "aws", "export")
"""Those whose tests may run beside each other."""

TINY = {*DECODERS, "tiny_decoders", "tiny_encoders"}
DEMOS = {"demo_artifact", "embeddings_artifact"}
STARTS_PROCESSES = Question(
    frozenset({"subprocess", "multiprocessing"}), ("tests", "scripts", "bench", "deploy")
)
USES_TRANSFORMERS = Question(
    frozenset({"transformers", "sentence_transformers", "tokenizers", "subprocess"}),
    ("tests", "model_export"),
)
USES_MOTO = Question(frozenset({"moto"}), ("tests",))
TORCH = {"torch", "transformers", "optimum", "sentence_transformers"}


@cache
def tier_of_file(path: Path) -> str | None:
    """The tier of all tests of a file, where its folder or its imports tell it."""
    folders = path.relative_to(ROOT / "tests").parts
    if folders[0] in {"images", "export"}:
        return folders[0]
    packages = reach(path, late=False).packages
    if "schemathesis" in packages:  # it writes thousands of requests to a server when collected
        return "processes"
    return "export" if packages & TORCH else None


def tier_of(item: pytest.Function) -> str:
    """The tier of a test."""
    if tier := tier_of_file(item.path):
        return tier
    names = set(fixtures_of(item))
    if any(USES_MOTO(*function) for function in functions_of(item, names - TINY - DEMOS)):
        return "aws"
    if any(STARTS_PROCESSES(*function) for function in functions_of(item, names - TINY - DEMOS)):
        return "processes"
    if names & DEMOS:
        return "demo"
    return "engine" if names & TINY else "fast"


def depends_on_transformers(item: pytest.Function) -> bool:
    """Returns whether another major version of transformers may change what the test finds."""
    functions = functions_of(item, set(fixtures_of(item)))
    return any(USES_TRANSFORMERS(*function) for function in functions)


def functions_of(item: pytest.Function, fixtures: set[str]) -> Iterator[tuple[Path, str]]:
    """The file and the name of a test's function, and of those of its fixtures."""
    yield item.path, item.originalname
    for name in fixtures:
        for fixture in _definitions(item, name):
            function = inspect.unwrap(fixture.func)
            yield Path(function.__code__.co_filename), function.__name__


def fixtures_of(item: pytest.Function) -> Iterator[str]:
    """The names of all fixtures that a test needs, those also that its parameters name."""
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    waiting = [*item.fixturenames, *_texts(parameters)]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen or not (found := _definitions(item, name)):
            continue
        seen.add(name)
        yield name
        waiting += [each for fixture in found for each in fixture.argnames]


def _definitions(item: pytest.Function, name: str) -> Iterable[pytest.FixtureDef[object]]:
    if not name.isidentifier():
        return ()
    return item.session._fixturemanager.getfixturedefs(name, item) or ()


def _texts(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple):
            yield from (each for each in value if isinstance(each, str))
