"""Runs a program to its end and measures it with all its children: time, CPU and memory.

A program that takes more memory than it may, or leaves too little of the disk, is killed alone,
before the machine is in trouble. Its output goes to a file.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import memory_mb
from bench.servers import ROOT

SAMPLE_SECONDS = 0.2
END_LIMIT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a program, in megabytes (1e6)."""

    memory_mb: float = float("inf")
    """Of its own, in all its processes; mapped files do not count, which the kernel takes back."""
    free_disk_mb: float = 0.0
    """What has to stay free on the disk that it writes to."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, and where it is run."""

    words: Sequence[str]
    directory: Path = ROOT
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Usage:
    """The time and the memory that a program took. Megabytes are 1e6 bytes, at their peak."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_mb: float = 0.0
    """The resident set: mapped files count as far as they are in memory."""
    peak_own_mb: float = 0.0
    """The part of it that is no file's."""
    failed: str | None = None
    """The reason where it did not end well."""

    def add(self, other: Usage) -> None:
        """Adds a program that ran after it."""
        self.seconds += other.seconds
        self.cpu_seconds += other.cpu_seconds
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.peak_own_mb = max(self.peak_own_mb, other.peak_own_mb)
        self.failed = self.failed or other.failed


def run(command: Command, log: Path, limits: Limits) -> Usage:
    """Runs a program to its end, or to a limit."""
    before = _cpu_seconds()
    started = time.perf_counter()
    usage = Usage()
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command.words,
            cwd=command.directory,
            env=os.environ | command.environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            usage.failed = _watch(process, usage, limits, log.parent)
        finally:
            _end(process)
    usage.seconds = time.perf_counter() - started
    usage.cpu_seconds = _cpu_seconds() - before
    if process.returncode != 0 and usage.failed is None:
        usage.failed = f"ended with {process.returncode}: {_last_words(log)}"
    return usage


def _watch(
    process: subprocess.Popen[bytes], usage: Usage, limits: Limits, directory: Path
) -> str | None:
    """Samples until the program has ended. Returns the limit that it passed, if it did."""
    _offer_to_be_killed(process.pid)
    while process.poll() is None:
        resident, own = memory_mb(process.pid)
        usage.peak_mb = max(usage.peak_mb, resident)
        usage.peak_own_mb = max(usage.peak_own_mb, own)
        if own > limits.memory_mb:
            return f"killed: it took more than {limits.memory_mb:,.0f} MB of memory"
        if shutil.disk_usage(directory).free < limits.free_disk_mb * 1e6:
            return f"killed: it left less than {limits.free_disk_mb:,.0f} MB of the disk"
        time.sleep(SAMPLE_SECONDS)
    return None


def _offer_to_be_killed(pid: int) -> None:
    """Tells the kernel to kill this program first where memory runs out between two samples."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000", encoding="ascii")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends it and its children: as a person would, and by force where that does not help."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(END_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")[-300:]
