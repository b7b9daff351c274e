"""The tiny models that whole test runs share: made by one process, which alone loads torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.import_graph import ROOT, reach
from tests.support.kept import kept

DECODERS = {
    "tiny_artifact": ("llama", "fp32"),
    "tiny_window_artifact": ("mistral", "fp32"),
    "quantised_artifact": ("llama", "int4"),
    "quantised_window_artifact": ("mistral", "int4"),
    "tiny_hybrid_artifact": ("hybrid", "fp32"),
    "quantised_hybrid_artifact": ("hybrid", "int4"),
}
"""The family and the weights of each fixture's model."""
ATTENTION_ARTIFACTS = tuple(name for name, (family, _) in DECODERS.items() if family != "hybrid")
"""Fixtures of what decodes: with and without a window, in fp32 and in int4."""
TINY_ARTIFACTS = tuple(DECODERS)
"""And with a recurrent layer, whose answers are never drafted."""

EXPORT_DECODERS = """
import sys
from pathlib import Path
from tests.support.tiny_artifacts import DECODERS
from tests.support.tiny_exports import export_tiny
for name, (family, weights) in DECODERS.items():
    export_tiny(family, Path(sys.argv[1], name), weights)
"""
EXPORT_ENCODERS = """
import sys
from pathlib import Path
from tests.support.encoder_tasks import ENCODER_TASKS
from tests.support.tiny_encoders import export_tiny_encoder
for task in ENCODER_TASKS:
    export_tiny_encoder(task, Path(sys.argv[1], task))
"""


def tiny_decoders() -> Path:
    """The directory with a complete artefact for each of DECODERS."""
    return _exported("tiny-decoders", "tiny_exports.py", EXPORT_DECODERS)


def tiny_encoders() -> Path:
    """The directory with a complete artefact for each of ENCODER_TASKS."""
    return _exported("tiny-encoders", "tiny_encoders.py", EXPORT_ENCODERS)


def run(command: list[str]) -> None:
    """Runs a program to its end. Raises RuntimeError with its output when it fails."""
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{command} failed:\n{ended.stdout}{ended.stderr}")


def _exported(name: str, source: str, program: str) -> Path:
    sources = {Path(__file__), *reach(Path(__file__).with_name(source), late=True).files}
    return kept(
        name, sources, lambda out: run([sys.executable, "-W", "ignore", "-c", program, str(out)])
    )
