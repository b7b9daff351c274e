"""Removes from installed packages what a server never reads. Run by the Dockerfiles.

    python slim.py DIRECTORY LICENCE

LICENCE is the text of the Apache License 2.0, for packages under it that bring no copy.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

# Megabytes as of onnxruntime 1.32 and numpy 2.5.
UNUSED = (
    "onnxruntime/capi/libonnxruntime.so*",  # 35: the C library; Python's binding has its own copy
    "onnxruntime/transformers",  # 5: tools that make models
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "numpy/f2py",
    "numpy/**/tests",
    "numpy/_core/include",
    "numpy/_core/lib/*.a",
    "**/*.pyi",
    "bin",  # console scripts: an image starts its one process by `python -m`
)


UNLICENSED = ("tokenizers",)  # Apache-2.0 by its metadata, without the text


def main(directory: Path, licence: Path) -> None:
    """Licences, in the packages' dist-info, stay."""
    for pattern in UNUSED:
        for path in sorted(directory.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    for package in UNLICENSED:
        for information in directory.glob(f"{package}-*.dist-info"):
            shutil.copy(licence, information / "LICENSE")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
