"""The composition root, in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.config import Settings
from handlers.errors import ArtifactError
from handlers.startup import load_service, process_age_ms


def test_a_service_is_loaded_whole(tiny_artifact: Path) -> None:
    settings = Settings.from_environ({"MODEL_DIR": str(tiny_artifact), "KINDLING_SLOTS": "2"})
    service = load_service(settings)
    assert service.settings is settings
    assert (service.engine.slots, service.engine.running) == (2, 0)


def test_a_missing_model_is_an_error_that_says_how_to_get_one(tmp_path: Path) -> None:
    settings = Settings.from_environ({"MODEL_DIR": str(tmp_path)})
    with pytest.raises(ArtifactError, match="Export one with `make export`"):
        load_service(settings)


def test_the_age_of_a_process_is_read_from_the_kernel(tmp_path: Path) -> None:
    age = process_age_ms()
    assert 0 < age <= process_age_ms()
    stat = tmp_path / "stat"
    fields = Path("/proc/self/stat").read_text().rpartition(") ")[2]
    stat.write_text(f"{os.getpid()} (a name) with (brackets)) {fields}")
    assert process_age_ms(stat) >= age


def test_the_runtime_loads_no_torch_no_transformers_and_no_asyncio_on_lambda(
    tiny_artifact: Path,
) -> None:
    """asyncio costs tens of milliseconds of cold start that the inline engine never needs."""
    script = (
        "import sys, handlers.aws_lambda\n"
        "heavy = {'torch', 'transformers', 'optimum', 'onnx', 'asyncio', 'functions_framework'}\n"
        "sys.stderr.write(' '.join(heavy & set(sys.modules)))"
    )
    environ = os.environ | {"MODEL_DIR": str(tiny_artifact)}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=False
    )
    assert ended.stderr == ""
