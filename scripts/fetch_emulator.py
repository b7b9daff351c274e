"""Fetches AWS's Lambda Runtime Interface Emulator to build/aws-lambda-rie. Run by the Makefile.

The emulator is one static binary (Apache-2.0, github.com/aws/aws-lambda-runtime-interface-emulator)
that the PyPI package aws-sam-cli carries for both CPUs: no other download site is needed, and of
the package nothing but that file is unpacked.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TARGET = Path(__file__).resolve().parent.parent / "build" / "aws-lambda-rie"
PACKAGE = "aws-sam-cli==1.170.0"
MEMBER = "samcli/local/rapid/aws-lambda-rie-{cpu}"
SHA256 = {
    "x86_64": "6b1e686e62ab2baf5759c412c4864276ef2a88b094fca53ec070637ccba9b9a5",
    "arm64": "ec2e5d09633d853834c008b1ef264bf834b258a94d551d2b2074966494b39a21",
}


def main() -> None:
    """Downloads, unpacks and checks the binary; leaves an existing one that is intact alone."""
    cpu = emulator_cpu(platform.machine())
    if TARGET.exists() and is_intact(TARGET.read_bytes(), cpu):
        return
    with tempfile.TemporaryDirectory() as directory:
        binary = zipfile.ZipFile(download(Path(directory))).read(MEMBER.format(cpu=cpu))
    if not is_intact(binary, cpu):
        sys.exit(f"The emulator in {PACKAGE} is not the one that was checked: its sha256 differs.")
    install(binary, TARGET)


def emulator_cpu(machine: str) -> str:
    """The emulator's name for a CPU that `uname -m` names."""
    cpu = {"aarch64": "arm64", "amd64": "x86_64"}.get(machine.lower(), machine.lower())
    if cpu not in SHA256:
        sys.exit(f"There is no Lambda emulator for {machine}, only for {', '.join(SHA256)}.")
    return cpu


def is_intact(binary: bytes, cpu: str) -> bool:
    """Returns whether these are the bytes that this file pins."""
    return hashlib.sha256(binary).hexdigest() == SHA256[cpu]


def download(directory: Path) -> Path:
    """The package's wheel, alone: its dependencies are not needed."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(directory), PACKAGE]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(f"The Lambda emulator could not be fetched: pip found no {PACKAGE}.")
    return next(directory.glob("*.whl"))


def install(binary: bytes, target: Path) -> None:
    """Moved into place whole, so that an interrupted run leaves no half of a program."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.write_bytes(binary)
    partial.chmod(0o755)
    partial.replace(target)


if __name__ == "__main__":
    main()
