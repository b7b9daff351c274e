"""Names the machine in the tag of a wheel that holds compiled kernels. Called by hatchling."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface[Any]):
    """The library is one machine's, of any Python, and needs glibc 2.28: kernels/__main__.py."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Called before the files are gathered."""
        if (Path(self.root) / "handlers" / "engine" / "kernels.so").exists():
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-manylinux_2_28_{platform.machine()}"
