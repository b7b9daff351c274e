"""The architecture as laws: who may import whom, and what the runtime never loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = sorted((ROOT / "handlers").rglob("*.py"))
EXPORTER = sorted((ROOT / "model_export").rglob("*.py"))
# From the ground up: a file imports from its own layer and from those before it.
LAYERS = [
    "__version__",
    "errors",
    "log",
    "lazy_imports",
    "cpus",
    "memory",
    "config",
    "artifact",
    "engine",
    "encoder",
    "text",
    "grammar",
    "api",
    "startup",
    "adapter",
]
ADAPTERS = {"aws_lambda", "cloud_run"}
BUILD_TIME = ["torch", "transformers", "optimum", "onnx", "onnx_ir", "onnxscript", "model_export"]
BUILD_TIME += ["accelerate", "gguf", "huggingface_hub", "safetensors"]
# What the first answer with thoughts or tools imports.
PARSERS = ["handlers.text.answer_parser", "handlers.text.tool_parser", "handlers.text.marks"]
# What a model outside the image needs, and one inside does not.
FETCHING = ["handlers.artifact.download", "handlers.artifact.disk_cache", "obstore"]
BAN = f"""
import sys

class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BUILD_TIME}:
            raise ImportError(name + " is banned at run time")

sys.meta_path.insert(0, Ban())
"""


def test_every_import_in_the_runtime_points_down_the_layers() -> None:
    wrong = [
        f"{name(path)} imports {imported}"
        for path in RUNTIME
        for imported in imports(path)
        if imported.startswith("handlers.") and rank(imported) > rank(name(path))
    ]
    assert not wrong


@pytest.mark.parametrize("package", [RUNTIME, EXPORTER], ids=["handlers", "model_export"])
def test_no_files_of_a_package_import_one_another(package: list[Path]) -> None:
    """Also not for type checking only, nor inside functions."""
    modules = {name(path) for path in package}
    graph = {name(path): set(imported_files(path, modules)) - {name(path)} for path in package}
    reached = {start: reachable(start, graph) for start in graph}
    cycles = {
        frozenset(end for end in reached[start] if start in reached[end])
        for start in graph
        if start in reached[start]
    }
    assert not cycles


def test_no_class_name_of_the_exporter_stands_for_two_things() -> None:
    names = [
        node.name
        for path in EXPORTER
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert sorted(set(names)) == sorted(names)


def test_the_exporter_uses_the_engine_and_its_words_but_nothing_that_serves() -> None:
    wrong = [
        f"{name(path)} imports {imported}"
        for path in EXPORTER
        for imported in imports(path)
        if imported.startswith("handlers.") and rank(imported) > rank("handlers.text")
    ]
    assert not wrong


def test_what_deploys_imports_nothing_that_serves_or_builds() -> None:
    ours = {"handlers", "model_export", "kernels", "bench", "tests"}
    files = sorted((ROOT / "deploy").rglob("*.py"))
    assert files
    assert not {name(path): found for path in files if (found := packages(path) & ours)}


def test_only_the_session_imports_onnxruntime() -> None:
    importers = {name(path) for path in RUNTIME if "onnxruntime" in packages(path)}
    assert importers == {"handlers.engine.session"}


def test_only_the_grammar_package_imports_llguidance() -> None:
    importers = {name(path) for path in RUNTIME if "llguidance" in packages(path)}
    own = ("compiler", "constraint", "sources")
    assert importers == {f"handlers.grammar.{module}" for module in own}


def test_only_the_store_imports_obstore() -> None:
    importers = {name(path) for path in RUNTIME if "obstore" in packages(path)}
    assert importers == {"handlers.artifact.object_store"}


def test_nothing_in_the_runtime_imports_what_the_build_needs() -> None:
    assert not {name(path): found for path in RUNTIME if (found := packages(path) & {*BUILD_TIME})}


def test_only_the_configuration_reads_the_environment() -> None:
    readers = {name(path) for path in RUNTIME if reads_the_environment(path)}
    assert readers == {"handlers.config"}


@pytest.mark.parametrize(
    "line",
    [
        "import torch",
        "import torch.nn.functional as F",
        "from transformers import AutoTokenizer",
        "def late() -> None:\n    import optimum",
        "from model_export.recipe import Recipe",
        "from deploy.smoke.endpoint import Endpoint",
        "import onnxruntime",
        "import llguidance",
        "from obstore.store import S3Store",
        "import os\n\nHOME = os.environ['HOME']",
        "import os\n\nHOME = os.getenv('HOME')",
    ],
)
def test_make_check_fails_on_an_import_that_crosses_a_boundary(line: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "handlers/api/chat.py"]
    source = f'"""A module."""\n\n{line}\n'
    checked = subprocess.run(
        [*command, "-"], input=source, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert checked.returncode == 1
    assert "TID251" in checked.stdout


LOAD = {
    "aws_lambda": "from handlers.aws_lambda import handler",
    # Within an event loop, which brings it its signals.
    "cloud_run": """
import asyncio

async def load():
    import handlers.cloud_run.function

asyncio.run(load())
""",
}


@pytest.mark.parametrize("adapter", LOAD)
def test_an_adapter_loads_and_serves_where_the_build_time_packages_cannot_be_imported(
    adapter: str, tiny_artifact: Path
) -> None:
    modules = modules_after(LOAD[adapter], MODEL_DIR=str(tiny_artifact))
    assert "onnxruntime" in modules
    assert modules.isdisjoint({"llguidance", *FETCHING, *PARSERS, *BUILD_TIME})


def test_importing_a_part_of_lambdas_package_loads_no_model() -> None:
    """Only its `handler` does, which awslambdaric reads from the package."""
    parts = "import handlers.aws_lambda.events, handlers.aws_lambda.runtime.poller"
    modules = modules_after(parts)
    assert modules.isdisjoint({"asyncio", "onnxruntime", "numpy", "handlers.aws_lambda.function"})


def test_importing_the_api_costs_neither_asyncio_nor_onnxruntime() -> None:
    computes_vectors = ("embeddings", "classify", "rerank")
    api = [
        name(path)
        for path in RUNTIME
        if name(path).startswith("handlers.api") and path.stem not in computes_vectors
    ]
    modules = modules_after(f"import {', '.join(api)}")
    assert modules.isdisjoint({"asyncio", "llguidance", "onnxruntime", "numpy", *BUILD_TIME})


def test_lambdas_own_runtime_costs_neither_asyncio_nor_an_http_library(
    tiny_artifact: Path,
) -> None:
    start = "from handlers.aws_lambda.runtime.__main__ import _load\n_load()"
    modules = modules_after(start, MODEL_DIR=str(tiny_artifact))
    assert "handlers.aws_lambda.runtime.poller" in modules
    assert modules.isdisjoint({"asyncio", "http.client", "email", "ssl", "_hashlib"})


def modules_after(statement: str, **environ: str) -> set[str]:
    """sys.modules of a fresh process in which the build-time packages are banned."""
    program = f"{BAN}\n{statement}\nprint(*sys.modules)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=environ, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def name(path: Path) -> str:
    """The dotted name of a file's module."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def rank(module: str) -> int:
    """A module's layer; a new file in handlers/ has to be given one."""
    part = module.split(".")[1] if "." in module else "errors"
    return LAYERS.index("adapter" if part in ADAPTERS else part)


def imports(path: Path) -> Iterator[str]:
    """Returns what a file imports, also inside functions and for type checking only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from handlers import config` imports a module, not a name in one.
            whole = node.module == "handlers"
            yield from (f"handlers.{a.name}" for a in node.names) if whole else (node.module,)


def imported_files(path: Path, modules: set[str]) -> Iterator[str]:
    """Those of `modules` that a file imports, whole or names in them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            yield node.module  # also where the name is a module of this package
            yield from (
                inner for alias in node.names if (inner := f"{node.module}.{alias.name}") in modules
            )


def reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    """Returns what can be reached from `start` by one step or more."""
    reached: set[str] = set()
    ahead = [start]
    while ahead:
        new = graph[ahead.pop()] - reached
        reached |= new
        ahead += new
    return reached


def packages(path: Path) -> set[str]:
    """The top-level packages among a file's imports."""
    return {imported.partition(".")[0] for imported in imports(path)}


def reads_the_environment(path: Path) -> bool:
    """Returns whether a file names os.environ or os.getenv."""
    return any(
        isinstance(node, ast.Attribute | ast.alias)
        and (node.attr if isinstance(node, ast.Attribute) else node.name)
        in {"environ", "environb", "getenv", "putenv"}
        for node in ast.walk(ast.parse(path.read_text()))
    )
