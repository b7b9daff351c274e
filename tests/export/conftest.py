"""Before any test of the export imports torch."""

from __future__ import annotations

import os

# As `python -m model_export` does: OpenMP's threads otherwise spin while they wait for each other,
# which on a busy machine makes tiny models ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("PYTORCH_JIT", "0")
