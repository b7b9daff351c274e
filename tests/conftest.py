"""The models that the tests run: tiny random ones, and the demos'."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import jinja2.loaders  # noqa: F401 - whole, before the runtime imports it without what flask needs
import pytest

from handlers.artifact.manifest import Task
from tests.support import tiny_artifacts
from tests.support.encoder_tasks import ENCODER_TASKS
from tests.support.examples import register_profiles
from tests.support.tier_hooks import Tiers
from tests.support.tiers import TIERS
from tests.support.times import Times

register_profiles()
if "PYTEST_XDIST_WORKER" in os.environ:
    # Two workers on two cores: the threads of torch would fight for them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", action="append", choices=[*TIERS], help="the tests of this tier")
    parser.addoption(
        "--transformers-major",
        action="store_true",
        help="only what another major version of transformers may change",
    )
    parser.addoption("--times", type=Path, help="a file to which a line of all times is added")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Tiers(config))
    if config.getoption("times") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Times(config.getoption("times")))


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the servers' output."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def tiny_decoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this run's own: whatever a test does to it, the next run has the original."""
    directory = tmp_path_factory.mktemp("tiny") / "decoders"
    return shutil.copytree(tiny_artifacts.tiny_decoders(), directory)


@pytest.fixture(scope="session")
def tiny_artifact(tiny_decoders: Path) -> Path:
    """A random Llama of three layers, exported in fp32."""
    return tiny_decoders / "tiny_artifact"


@pytest.fixture(scope="session")
def tiny_window_artifact(tiny_decoders: Path) -> Path:
    """The same of a Mistral, whose attention sees 12 tokens."""
    return tiny_decoders / "tiny_window_artifact"


@pytest.fixture(scope="session")
def quantised_artifact(tiny_decoders: Path) -> Path:
    """The Llama with weights of 4 bits and a cache of 16."""
    return tiny_decoders / "quantised_artifact"


@pytest.fixture(scope="session")
def quantised_window_artifact(tiny_decoders: Path) -> Path:
    """The same of the Mistral."""
    return tiny_decoders / "quantised_window_artifact"


@pytest.fixture(scope="session")
def tiny_hybrid_artifact(tiny_decoders: Path) -> Path:
    """The Llama with a recurrent layer between two of attention, in fp32."""
    return tiny_decoders / "tiny_hybrid_artifact"


@pytest.fixture(scope="session")
def quantised_hybrid_artifact(tiny_decoders: Path) -> Path:
    """The same with weights of 4 bits."""
    return tiny_decoders / "quantised_hybrid_artifact"


@pytest.fixture(scope="session")
def tiny_encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    """A random BERT of two layers for each task of an encoder, in fp32."""
    directory = tmp_path_factory.mktemp("tiny") / "encoders"
    shutil.copytree(tiny_artifacts.tiny_encoders(), directory)
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


def _exported(recipe: str, directory: Path, pytestconfig: pytest.Config) -> Path:
    if not (directory / "manifest.json").exists():
        reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
        where = directory.relative_to(ROOT)
        reporter.write_line(f"Exporting {recipe} to {where}, once for all later runs ...")
        tiny_artifacts.run([sys.executable, "-m", "model_export", recipe, "--out", str(directory)])
    return directory
