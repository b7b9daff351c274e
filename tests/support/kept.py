"""Keeps on disk what takes the tests long to make, until what it is made of changes.

It lies below build/, so that `make clean` removes it. A directory's name is the hash of its sources
and of the packages that make it. Two processes that want the same thing make it once.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from tests.support.import_graph import ROOT

HOME = ROOT / "build" / "tests"
KEPT = 6
"""Directories of one name: some branches' beside each other."""
PACKAGES = (
    *("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "optimum", "optimum-onnx"),
    *("tokenizers", "torch", "transformers", "ziglang"),
)


def kept(name: str, sources: Iterable[Path], make: Callable[[Path], object]) -> Path:
    """The directory that `make` filled, now or when the same sources were last asked for.

    Nobody may change a file in it.
    """
    found = HOME / name / _key(sources)
    found.parent.mkdir(parents=True, exist_ok=True)
    with found.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.is_dir():
            with tempfile.TemporaryDirectory(dir=found.parent, prefix="making-") as scratch:
                made = Path(scratch, "made")
                made.mkdir()
                make(made)
                made.rename(found)
            _remove_old(found.parent)
        found.touch()
    return found


def _key(sources: Iterable[Path]) -> str:
    digest = hashlib.sha256(repr(_versions()).encode())
    for path in sorted(sources):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def _versions() -> tuple[str, ...]:
    found = [platform.machine(), sys.version]
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:  # optimum, beside transformers 5
            found.append(f"no {package}")
    return tuple(found)


def _remove_old(home: Path) -> None:
    by_age = sorted(
        (path for path in home.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    for path in by_age[:-KEPT]:
        shutil.rmtree(path)
