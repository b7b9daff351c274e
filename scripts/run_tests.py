"""Runs the tests: those that may run beside each other by two workers, then those of processes.

`make test` calls it with ARGS, which go to pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.tiers import TOGETHER

ROOT = Path(__file__).resolve().parent.parent
PYTEST = (sys.executable, "-m", "pytest")
BESIDE_EACH_OTHER = ("--numprocesses", "2", "--dist", "worksteal")
NO_TESTS = 5
"""pytest's exit status where nothing was chosen, as by a -k that means tests of the other tiers."""


def main(arguments: list[str]) -> int:
    """Returns 0 where all chosen tests pass, and pytest's exit status otherwise."""
    together = [*BESIDE_EACH_OTHER, *(f"--tier={tier}" for tier in TOGETHER)]
    # What tests of processes measure, and how long they wait, suffers no work beside them.
    found = [_run([*together, *arguments]), _run(["--tier=processes", *arguments])]
    if set(found) == {NO_TESTS}:
        return NO_TESTS
    return next((status for status in found if status not in {0, NO_TESTS}), 0)


def _run(options: list[str]) -> int:
    done = subprocess.run([*PYTEST, *options], cwd=ROOT, env=os.environ, check=False)
    if done.returncode < 0 or done.returncode == 2:  # interrupted
        sys.exit(2)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
