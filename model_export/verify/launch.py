"""Runs the gates in a process of their own, with what serves and nothing else.

The child imports handlers, not torch; its memory is gone when it ends. Its lines of progress
are passed on.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from model_export.reporting import ExportError, Report
from model_export.verify.exchange import (
    OUTCOME,
    REQUEST,
    DriftRequest,
    Outcome,
    VerifyRequest,
    read_outcome,
    write,
)

PROGRAM = "model_export.verify"


def verify(request: VerifyRequest | DriftRequest, directory: Path, report: Report) -> Outcome:
    """Returns the figures of all gates, and what was baked; or those of a drift.

    `directory` is made for the exchange of files. Raises ExportError with the sentence of the gate
    that failed.
    """
    shutil.rmtree(directory, ignore_errors=True)  # of an export that was interrupted
    directory.mkdir()
    write(directory / REQUEST, request)
    code, errors = _run(directory, report)
    if not (directory / OUTCOME).is_file():
        last = "".join(errors.strip().splitlines()[-1:])
        raise ExportError(f"Verification {_end_of_process(code)} {last}".strip())
    outcome = read_outcome(directory / OUTCOME)
    if outcome.failure is not None:
        raise ExportError(outcome.failure)
    return outcome


def _run(directory: Path, report: Report) -> tuple[int, str]:
    with (
        (directory / "errors.txt").open("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", PROGRAM, str(directory)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child,
    ):
        try:
            for line in child.stdout or ():
                report(line.rstrip())
        except BaseException:
            child.kill()  # leaving the block waits for its end
            raise
        code = child.wait()
        errors.seek(0)
        return code, errors.read()


def _end_of_process(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed, most likely because memory ran out: use a machine with more."
    return f"ended with exit code {code}:"
