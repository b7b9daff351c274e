"""`python -m model_export.encoder.verify DIRECTORY`: the verifying process of an encoder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from handlers.artifact.manifest import Artifact
from handlers.config import Settings
from handlers.encoder.encoder import Encoder
from handlers.errors import KindlingError
from handlers.text.tokenizer import Tokenizer
from model_export.encoder.verify.drift import check_drift
from model_export.encoder.verify.exchange import EncoderGates, read_task
from model_export.encoder.verify.gates import check_exact, check_tokens, inputs_of
from model_export.verify.exchange import OUTCOME, TASK, Outcome, write


def main() -> None:
    """Runs the gates in order and writes the outcome."""
    directory = Path(sys.argv[1])
    try:
        outcome = Outcome(figures=_run_gates(read_task(directory / TASK)), failure=None)
    except KindlingError as error:
        outcome = Outcome(figures={}, failure=str(error))
    write(directory / OUTCOME, outcome)


def _run_gates(task: EncoderGates) -> dict[str, Any]:
    reference = task.reference
    artifact = Artifact.open(task.quantised)
    _say("verify: gate 1, ids of texts and pairs")
    tokens = check_tokens(reference, Tokenizer.load(artifact.tokenizer))
    _say(f"verify: gate 2, {len(reference.answers) + 1} rows of the fp32 graph")
    exact = _encoder(task, Artifact.open(task.exact))
    figures = {"tokens": tokens, "exact": check_exact(reference, exact)}
    _say("verify: gate 3, drift of the quantised graph")
    inputs = inputs_of(reference)
    drift = check_drift(
        exact.encode(inputs),
        _encoder(task, artifact).encode(inputs),
        task.tolerance,
        activation=artifact.encoder.activation,
        documents=reference.documents,
    )
    return {**figures, "drift": drift}


def _encoder(task: EncoderGates, artifact: Artifact) -> Encoder:
    settings = {
        "KINDLING_THREADS": str(task.threads),
        "KINDLING_CONTEXT_LENGTH": str(max(16, task.reference.max_tokens)),
    }
    return Encoder.load(artifact, Settings.from_environ(settings))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
