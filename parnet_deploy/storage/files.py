"""Files of a deployment: read and hash them, bring them to disk, say what the disk did wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import DeploymentError
from . import names

_CHUNK_BYTES = 1024 * 1024
_CURES = {
    errno.ENOSPC: "Free some space",
    errno.EDQUOT: "Free some of your quota",
    errno.EFBIG: "Raise the limit on the size of files",
    errno.EROFS: "Choose a directory on a writable file system",
    errno.EACCES: "Make the directory writable, or choose another one",
    errno.EPERM: "Make the directory writable, or choose another one",
    errno.EIO: "Check the disk",
}


def open_plain(path: Path) -> BinaryIO:
    """Open a file to read it. A pipe in its place is refused; to open one would wait for ever.

    Raises:
        OSError: There is none, it is no plain file, or it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(handle, "rb")


def hash_file(path: Path) -> tuple[str, int]:
    """Sha256 in hex and number of bytes."""
    digest = hashlib.sha256()
    size = 0
    with open_plain(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def fsync_path(path: Path) -> None:
    """Wait until the file's content, or the directory's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(error: OSError, root: Path) -> DeploymentError:
    """Put a failure of our own file operations into words; says what is intact."""
    if os.path.lexists(root / names.JOURNAL):
        state = "The change is recorded whole; the next command that opens it completes it"
    elif os.path.lexists(root / names.MANIFEST):
        state = "The deployment is intact as it was before"
    else:
        state = "Nothing was published"
    cure = _CURES.get(error.errno or 0, "Remove the cause")
    reason = error.strerror or str(error)
    name = _written(error)
    at = f" {name}" if name else ""
    return DeploymentError(
        f"deployment {root}: cannot write{at}: got {reason!r}, expected a writable disk with room. "
        f"{state}. {cure} and run the command again."
    )


def _written(error: OSError) -> Any:
    """The file that was written: the second of two, for a copy names its source first."""
    return error.filename if error.filename2 is None else error.filename2


def disk_error(error: BaseException, root: Path) -> DeploymentError | None:
    """The same for an error that other code met while it wrote a staged file; None for others."""
    if isinstance(error, OSError) and error.errno in _CURES:
        name = _written(error)
        if name is None:  # a failed write names no file, a failed open does
            return storage_error(error, root)
        inside = isinstance(name, (str, os.PathLike)) and Path(name).is_relative_to(root)
        return storage_error(error, root) if inside else None
    if not isinstance(error, DeploymentError) and "No space left on device" in str(error):
        # Libraries written in C++ or Rust report it in their own exception, as text only.
        return storage_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), root)
    return None
