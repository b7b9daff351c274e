"""Counts the CPUs that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

# 1 vCPU at 1,769 MB: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
LAMBDA_MB_PER_CPU = 1769


def available_cpus(lambda_megabytes: str | None = None) -> int:
    """Returns the least of CPU affinity, cgroup quota and the share that Lambda grants.

    `lambda_megabytes` is AWS_LAMBDA_FUNCTION_MEMORY_SIZE, where it is set. The host's count would
    oversubscribe: a container of 1 vCPU on a host of 64 cores would start 64 threads that wait for
    one another.
    """
    limits = [float(len(os.sched_getaffinity(0)))]
    quota = _cgroup_quota()
    if quota is not None:
        limits.append(quota)
    if lambda_megabytes and lambda_megabytes.isdigit():
        limits.append(int(lambda_megabytes) / LAMBDA_MB_PER_CPU)
    return max(1, math.ceil(min(limits)))


def _cgroup_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Returns the CPUs granted by cgroup v2's cpu.max or v1's cfs quota, None if unlimited."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)
