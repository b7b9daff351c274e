"""Gate 4: the gates run in a process of their own, with what serves and nothing else.

The child imports handlers, not torch; its memory is gone when it ends. Its lines of progress
are passed on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from model_export.reporting import ExportError, Report
from model_export.verify.exchange import OUTCOME, TASK, Outcome, read_outcome, write

DECODERS = "model_export.verify"


def verify(
    task: msgspec.Struct, directory: Path, report: Report, program: str = DECODERS
) -> Outcome:
    """The figures of all gates and what was baked. `directory` is for the exchange of files.

    `program` is the module that reads the task and runs its gates.

    Raises ExportError with the sentence of the gate that failed.
    """
    directory.mkdir()
    write(directory / TASK, task)
    code, errors = _run(program, directory, report)
    if not (directory / OUTCOME).is_file():
        last = "".join(errors.strip().splitlines()[-1:])
        raise ExportError(f"Verification {_end_of_process(code)} {last}".strip())
    outcome = read_outcome(directory / OUTCOME)
    if outcome.failure is not None:
        raise ExportError(outcome.failure)
    return outcome


def _run(program: str, directory: Path, report: Report) -> tuple[int, str]:
    with (
        (directory / "errors.txt").open("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            [sys.executable, "-m", program, str(directory)],
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
