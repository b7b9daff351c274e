"""functions-framework with stand-ins: nothing of its synchronous side is loaded, or lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from handlers.lazy_imports import lazy_imports

ROOT = Path(__file__).parents[3]

EAGER = "import functions_framework.aio, sys\n"
LAZY = f"""
from handlers.lazy_imports import lazy_imports
from handlers.cloud_run.__main__ import SYNCHRONOUS_SIDE

with lazy_imports(*SYNCHRONOUS_SIDE):
    {EAGER}
"""

# A target of each kind; an execution id is told in what a function prints and logs.
FUNCTIONS = """
import logging
import functions_framework
import functions_framework.aio

@functions_framework.http
def flask_function(request):
    return f"{type(request).__mro__[1]} {request.method}"

@functions_framework.cloud_event
def flask_event(event):
    print(event["id"])

@functions_framework.aio.http
async def http(request):
    print("printed")
    logging.getLogger().warning("logged")
    return request.method

@functions_framework.aio.cloud_event
async def event(event):
    print(event["id"])
"""

SEND = """
import asyncio
import httpx
import functions_framework

HTTP = {"function-execution-id": "abc", "content-type": "application/json"}
EVENT = HTTP | {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "here", "ce-type": "t"}

def to_flask(target, headers):
    with functions_framework.create_app(target, "functions.py").test_client() as client:
        answer = client.post("/", headers=headers, data="{}")
        print(answer.status_code, answer.text)

def to_asgi(target, headers):
    async def post():
        app = functions_framework.aio.create_asgi_app(target, "functions.py")
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://f") as client:
            answer = await client.post("/", headers=headers, content="{}")
            print(answer.status_code, answer.text)
    asyncio.run(post())
"""

LOADED = (
    "print({name.partition('.')[0] for name in sys.modules} & {'flask', 'werkzeug', 'cloudevents'})"
)


def run(script: str, folder: Path, **environ: str) -> str:
    """All that a process of its own writes, in the order in which it does."""
    (folder / "functions.py").write_text(FUNCTIONS)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_an_asynchronous_function_answers_without_flask_werkzeug_or_cloudevents(
    tmp_path: Path,
) -> None:
    """Also after an upgrade of functions-framework, or this fails."""
    lines = run(f"{LAZY}{SEND}to_asgi('http', HTTP)\n{LOADED}", tmp_path).splitlines()
    assert lines == ["printed", "logged", "200 POST", "set()"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            "to_flask('flask_function', HTTP)",
            "200 <class 'werkzeug.wrappers.request.Request'> POST",
        ),
        ("to_flask('flask_event', EVENT)", '"execution_id": "abc"'),
        ("to_flask('flask_event', HTTP)", "400 "),
        ("to_asgi('event', EVENT)", '"execution_id": "abc"'),
        ("to_asgi('event', HTTP)", "400 "),
        ("to_asgi('http', HTTP)", '"execution_id": "abc"'),
    ],
)
def test_every_kind_of_function_works_with_stand_ins_as_without_them(
    tmp_path: Path, call: str, said: str
) -> None:
    lazy, eager = (
        run(f"{imports}{SEND}{call}", tmp_path, LOG_EXECUTION_ID="true")
        for imports in (LAZY, EAGER)
    )
    assert lazy == eager
    assert said in lazy


@pytest.fixture
def slow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that has not been imported."""
    (tmp_path / "a_slow_module.py").write_text("NUMBER = 7\n\ndef add(a, b):\n    return a + b\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "a_slow_module", raising=False)
    return "a_slow_module"


def importing(module: str) -> Any:
    with lazy_imports(module):
        return __import__(module)


def test_a_module_is_imported_when_one_of_its_names_is_used(slow_module: str) -> None:
    module = importing(slow_module)
    assert slow_module not in sys.modules
    assert module.NUMBER == 7
    assert slow_module in sys.modules


def test_a_call_within_the_block_is_made_when_its_result_is_used(slow_module: str) -> None:
    with lazy_imports(slow_module):
        total = __import__(slow_module).add(3, b=4)
    assert slow_module not in sys.modules
    assert total.bit_length() == 3


def test_a_module_that_is_there_already_stays(slow_module: str) -> None:
    real = __import__(slow_module)
    assert importing(slow_module) is real
    assert sys.modules[slow_module] is real


def test_a_block_within_a_block_leaves_the_outer_ones_stand_ins_alone(slow_module: str) -> None:
    with lazy_imports(slow_module):
        module = __import__(slow_module)
        with lazy_imports("another_slow_module"):
            pass
        number = module.NUMBER
        assert type(number) is type(module)
    assert number.bit_length() == 3


def test_an_import_that_fails_takes_its_stand_ins_away(slow_module: str) -> None:
    with pytest.raises(TypeError), lazy_imports(slow_module):
        type("Derived", (__import__(slow_module).Base,), {})
    assert slow_module not in sys.modules
    assert __import__(slow_module).NUMBER == 7
