"""Tells what kind of file system a file lies on, as the kernel lists its mounts."""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

# By FUSE, but of this machine: a rootless container's image, and a disk of NTFS.
LOCAL = ("fuse.fuse-overlayfs", "fuseblk")


def file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Returns the type of the file system of an existing file: "ext4", "nfs4", "fuse.gcsfuse".

    "" where the kernel does not tell. The format is proc_pid_mountinfo(5)'s; statfs(2), which
    tells the same as a number, is not in Python's library.
    """
    device = path.stat().st_dev
    numbers = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split()
        if fields[2] == numbers:
            return fields[fields.index("-", 6) + 1]
    return ""


def is_network(kind: str) -> bool:
    """Tells whether each read of it may be a request to another machine.

    EFS, S3 Files and Filestore are mounted as NFS, Cloud Storage by FUSE.
    """
    return kind.startswith(("nfs", "fuse")) and kind not in LOCAL


def is_memory(kind: str) -> bool:
    """Tells whether what is written to it takes the process's memory."""
    return kind in {"tmpfs", "ramfs"}
