"""Reads from an export's progress how long each of its stages took."""

from __future__ import annotations

import re
from collections import defaultdict

LINE = re.compile(r"^\[ *([0-9.]+) s\] (\w+)", re.MULTILINE)
STAGES = (
    "download",
    "load",
    "reference",
    "convert",
    "fuse",
    "quantize",
    "verify",
    "prefix",
    "pack",
)
"""The first words of lines that begin a stage; others belong to the one before."""
START = "start"
"""Imports and what else happens before the first line, and the end of the process."""


def stages_of(progress: str, seconds: float) -> dict[str, float]:
    """Returns seconds by stage, in the order of the first lines, which sum up to `seconds`."""
    found: defaultdict[str, float] = defaultdict(float)
    stage, at = START, 0.0
    for line in LINE.finditer(progress):
        now = float(line[1])
        found[stage] += now - at
        at = now
        if line[2] in STAGES:
            stage = line[2]
    found[START] += seconds - at
    return dict(found)
