"""A small disk that a zygote mounts for itself, and what is done to it there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

DISK_BYTES = 32 << 20
_ROOM = "ballast"


def mounted(folder: Path) -> list[str]:
    """Words in front of a command, for which a tmpfs is mounted there; nobody else sees it."""
    mount = f'mount -t tmpfs -o size={DISK_BYTES} tmpfs "{folder}" && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]


def lacking(folder: Path) -> str | None:
    """What is missing for that here."""
    if shutil.which("unshare") is None:
        return "unshare"
    if subprocess.run([*mounted(folder), "true"], capture_output=True, check=False).returncode:
        return "the right to mount a tmpfs in a user namespace"
    return None


def fill(folder: str, free_bytes: int) -> int:
    """Leave so much room on the disk; returns how much there is."""
    path = Path(folder) / _ROOM
    path.unlink(missing_ok=True)
    size = _free(folder) - free_bytes
    if size > 0:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    return _free(folder)


def put(source: str, folder: str) -> None:
    """An empty disk with a copy of a directory."""
    for path in Path(folder).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(source, Path(folder) / Path(source).name)


def set_writable(folder: str, writable: bool) -> None:
    """Or read-only, as a disk that has errors becomes."""
    subprocess.run(["mount", "-o", f"remount,{'rw' if writable else 'ro'}", folder], check=True)


def _free(folder: str) -> int:
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize
