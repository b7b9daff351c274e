"""The models that the tests run: tiny random ones, and the demos'."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

from handlers.artifact.manifest import Task
from tests.support.encoder_tasks import ENCODER_TASKS

# A slow machine is no failure.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

ROOT = Path(__file__).parent.parent

EXPORT_TINY = """
import sys
from pathlib import Path
from tests.support.tiny_models import export_tiny
export_tiny(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
"""

EXPORT_TINY_ENCODERS = """
import sys
from pathlib import Path
from tests.support.tiny_encoders import INFOS, export_tiny_encoder
for task in INFOS:
    export_tiny_encoder(task, Path(sys.argv[1]) / task)
"""


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers' output goes."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of three layers, exported in fp32. In a process of its own, which keeps
    torch and its half a gigabyte out of this one."""
    return _tiny("llama", "fp32", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_window_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a Mistral, whose attention sees 12 tokens."""
    return _tiny("mistral", "fp32", tmp_path_factory)


@pytest.fixture(scope="session")
def quantised_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Llama with weights of 4 bits and a cache of 16."""
    return _tiny("llama", "int4", tmp_path_factory)


@pytest.fixture(scope="session")
def quantised_window_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of the Mistral."""
    return _tiny("mistral", "int4", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_hybrid_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Llama with a recurrent layer between two of attention, in fp32."""
    return _tiny("hybrid", "fp32", tmp_path_factory)


@pytest.fixture(scope="session")
def quantised_hybrid_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with weights of 4 bits."""
    return _tiny("hybrid", "int4", tmp_path_factory)


@pytest.fixture(scope="session")
def tiny_encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    """A random BERT of two layers for each task of an encoder, in fp32."""
    directory = tmp_path_factory.mktemp("tiny_encoders")
    _run([sys.executable, "-W", "ignore", "-c", EXPORT_TINY_ENCODERS, str(directory)])
    return {task: directory / task for task in ENCODER_TASKS}


@pytest.fixture(scope="session")
def demo_artifact(pytestconfig: pytest.Config) -> Path:
    """build/model. Exported now if `make` has not done so: that takes minutes, once."""
    return _exported("smollm2-135m", ROOT / "build" / "model", pytestconfig)


@pytest.fixture(scope="session")
def embeddings_artifact(pytestconfig: pytest.Config) -> Path:
    """The demo of embeddings, where `make` puts it. 40 s, once."""
    directory = ROOT / "build" / "models" / "all-minilm-l6-v2"
    return _exported("all-minilm-l6-v2", directory, pytestconfig)


def _tiny(family: str, weights: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(f"{family}_{weights}")
    _run([sys.executable, "-c", EXPORT_TINY, family, str(directory), weights])
    return directory


def _exported(recipe: str, directory: Path, pytestconfig: pytest.Config) -> Path:
    if not (directory / "manifest.json").exists():
        reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
        where = directory.relative_to(ROOT)
        reporter.write_line(f"Exporting {recipe} to {where}, once for all later runs ...")
        _run([sys.executable, "-m", "model_export", recipe, "--out", str(directory)])
    return directory


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{ended.stdout}{ended.stderr}")
