"""TensorRT's timing cache on disk: merged by builds that run at once, never a reason to fail.

The file is the sha256 of the content, then the content, so that damaged bytes never reach TensorRT.
Only code of the child process calls this.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ...runtime.tensorrt.log import LOGGER
from .engine_cache import write_file

_DIGEST_BYTES = 32


def read_timing(path: Path) -> bytes:
    """The content of the file; empty, and logged, if it is damaged or cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        LOGGER.warning("timing cache %s: ignored: %s", path.name, error.strerror or error)
        return b""
    digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        LOGGER.warning("timing cache %s: ignored, for it is damaged; it is written anew", path.name)
        return b""
    return content


def use_timing(config: Any, path: Path) -> bool:
    """Let a build use what is in the file; False if there is nothing, or it is foreign."""
    content = read_timing(path)
    if content:
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return True
        LOGGER.warning(
            "timing cache %s: ignored, for it is of another version or GPU; it is written anew",
            path.name,
        )
    config.set_timing_cache(config.create_timing_cache(b""), False)
    return False


def keep_timing(config: Any, path: Path) -> bool:
    """Merge what a build measured into the file; False, and logged, if that is impossible."""
    from filelock import FileLock

    measured = config.get_timing_cache()
    if measured is None:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            content = bytes(_merge(config, read_timing(path), measured).serialize())
            write_file(path, hashlib.sha256(content).digest() + content)
    except OSError as error:
        LOGGER.warning("timing cache %s: not written: %s", path.name, error.strerror or error)
        return False
    return True


def _merge(config: Any, others: bytes, measured: Any) -> Any:
    """What other builds have stored meanwhile and this one's; this one's if they do not mix."""
    if not others:
        return measured
    merged = config.create_timing_cache(others)
    mixed = merged is not None and merged.combine(measured, False)
    return merged if mixed else measured
