"""Names the machine in the tag of a wheel that holds compiled C. Called by hatchling."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARIES = ("handlers/engine/kernels.so", "model_export/quantize/search_affine.so")


class LibrariesHook(BuildHookInterface[Any]):
    """The libraries are one machine's, of any Python, and need glibc 2.28: kernels/__main__.py."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Called before the files are gathered."""
        if any(Path(self.root, library).exists() for library in LIBRARIES):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-manylinux_2_28_{platform.machine()}"
