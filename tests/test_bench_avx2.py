"""Under `--avx2` the servers see AVX2 and nothing wider."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import avx2
from bench.prepare import NotRunnable

PRINT_WIDE = """
from numpy._core._multiarray_umath import __cpu_features__ as has
print([name for name in ("AVX2", "AVX512F", "AVX512_ICL", "AVX512_SPR") if has.get(name)])
"""
CAN_TRAP = "cpuid_fault" in Path("/proc/cpuinfo").read_text()


def test_a_server_sees_avx2_alone_or_the_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(avx2.PRELOAD, "")
    if not CAN_TRAP:
        with pytest.raises(NotRunnable, match="cannot trap CPUID"):
            avx2.show_avx2_alone()
        return
    avx2.show_avx2_alone()
    seen = subprocess.run(
        (sys.executable, "-c", PRINT_WIDE), env=os.environ, capture_output=True, check=True
    )
    assert seen.stdout.strip() == b"['AVX2']"
    assert avx2.is_shown_alone()
