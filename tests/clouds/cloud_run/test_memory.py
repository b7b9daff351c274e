"""Compares the memory that the dry run says a process will hold with what one holds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.processes import peak_rss_mb
from handlers.artifact.manifest import Artifact
from tests.support.servers import ROOT, CloudRun, cloud_run

SLOTS, TOKENS = 3, 768
VARIABLES = {"KINDLING_SLOTS": str(SLOTS), "KINDLING_CONTEXT_LENGTH": str(TOKENS)}
# In a process of its own, which keeps torch and transformers out of this one.
PREDICT = """
from handlers.config import Settings
from model_export.recipe_loader import load_recipe
from model_export.sizing.dry_run import fetch_config
from model_export.sizing.footprint import cache_bytes, run_time_bytes, weights_of
from model_export.sizing.outline import outline_of
recipe = load_recipe("smollm2-135m")
settings = Settings.from_environ()
outline = outline_of(fetch_config(recipe.source, print), recipe)
weights = weights_of(outline, recipe.precision)
slot = cache_bytes(outline, recipe.precision, settings.context_length)
print(run_time_bytes(outline, weights, settings.slots * slot))
"""


def predicted() -> int:
    environ = os.environ | VARIABLES
    command = [sys.executable, "-c", PREDICT]
    return int(
        subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=True).stdout
    )


def fill_every_slot(server: CloudRun, vocabulary: int) -> None:
    """With prompts that share nothing, to the last position."""
    source = random.Random(5)
    prompts = [[source.randrange(100, vocabulary) for _ in range(TOKENS - 8)] for _ in range(SLOTS)]
    bodies = [{"prompt": prompt, "max_tokens": 8, "ignore_eos": True} for prompt in prompts]
    with ThreadPoolExecutor(SLOTS) as pool:
        answers = list(pool.map(lambda body: server.post("/v1/completions", body), bodies))
    assert [answer.status for answer in answers] == [200] * SLOTS, answers[0].body


def test_the_demo_takes_the_memory_that_the_dry_run_says(
    demo_artifact: Path, directory: Path
) -> None:
    vocabulary = Artifact.open(demo_artifact).manifest.vocab_size
    with cloud_run(demo_artifact, directory, **VARIABLES) as server:
        fill_every_slot(server, vocabulary)
        measured = peak_rss_mb(server.process.popen.pid) * 1e6
    assert predicted() == pytest.approx(measured, rel=0.2)
