"""Keeps what an export has made so far in a directory beside its destination.

The directory's name is fixed, so that an export that was killed goes on from what is there: the
reference, and the matrices that are written. It holds the fingerprint of what is being exported;
another recipe, source or version starts anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from handlers.artifact.manifest import MANIFEST, Manifest
from model_export.manifest import package_versions
from model_export.package import REPLACED
from model_export.recipe import Recipe
from model_export.reporting import ExportError, Report

FINGERPRINT = "fingerprint"


def check_destination(out: Path) -> None:
    """Raises ExportError when `out` holds something that is not an artefact."""
    if out.exists() and not _replaceable(out):
        raise ExportError(
            f"{out} exists and is not an artefact (it has no {MANIFEST} of one): it is left alone. "
            f"Choose another --out, or delete it."
        )


def scratch_path(out: Path) -> Path:
    """Returns where an export to `out` works: on the same file system, as it is renamed."""
    return out.parent / f".{out.name}-building"


def fingerprint(recipe: Recipe, revision: str) -> str:
    """Returns a digest of all that decides an artefact's bytes: recipe, source, versions, code.

    The shipped texts are of the code; a recipe's own is of the recipe.
    """
    digest = hashlib.sha256(msgspec.json.encode([recipe, revision], enc_hook=repr))
    digest.update(repr(sorted(package_versions().items())).encode())
    package = Path(__file__).parent
    code = [*package.rglob("*.py"), *package.rglob("*.c")]
    for path in sorted([*code, *(package / "corpus").iterdir()]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def scratch_dir(out: Path, mark: str, report: Report) -> Iterator[Path]:
    """Makes or finds the scratch directory on the file system of `out`.

    It is gone when the block ends, but for an interruption, after which the same export goes on
    there. `mark`: its fingerprint. Raises ExportError while another export to `out` is running.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = scratch_path(out)
    lock = _locked(scratch, out)
    try:
        _put_back(scratch / REPLACED, out)
        _start_or_go_on(scratch, mark, report)
        yield scratch
    except Exception:
        shutil.rmtree(scratch)
        raise
    except BaseException:
        report(f"interrupted: the same command goes on from what {scratch} holds")
        raise
    else:
        shutil.rmtree(scratch)
    finally:
        os.close(lock)


def _locked(scratch: Path, out: Path) -> int:
    """Makes the directory where it is missing, and locks it until its descriptor is closed."""
    while True:
        scratch.mkdir(exist_ok=True)
        descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ExportError(
                f"Another export to {out} is running: wait for it, or choose another --out."
            ) from None
        if scratch.exists() and os.fstat(descriptor).st_ino == scratch.stat().st_ino:
            return descriptor
        os.close(descriptor)  # the export that had it has just ended and deleted it


def _put_back(replaced: Path, out: Path) -> None:
    """Puts back an older artefact, where an export was killed between publish's two renames."""
    if replaced.exists() and not out.exists():
        replaced.rename(out)


def _start_or_go_on(scratch: Path, mark: str, report: Report) -> None:
    file = scratch / FINGERPRINT
    if file.is_file() and file.read_text(encoding="utf-8") == mark:
        report("go on with the export that was interrupted")
        return
    for path in scratch.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    file.write_text(mark, encoding="utf-8")


def _replaceable(out: Path) -> bool:
    return out.is_dir() and (_is_artefact(out) or not any(out.iterdir()))


def _is_artefact(directory: Path) -> bool:
    """Reads its manifest: web apps and browser extensions have a manifest.json too."""
    try:
        msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return False
    return True
