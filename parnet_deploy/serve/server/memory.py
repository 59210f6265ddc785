"""Memory of a process that serves: freed blocks are kept, and what lives on is not searched."""

from __future__ import annotations

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_MMAP_BYTES = 4 * 2**20  # larger blocks go back to the system when they are freed
_TRIM_BYTES = 128 * 2**20
_PAD_BYTES = 16 * 2**20  # how much more than needed is taken at a time, and kept


def keep_freed_memory() -> bool:
    """Let malloc keep small blocks that were freed, 128 MiB at the heap's end; whether it does.

    Blocks of 4 MiB and more are not kept: many large bodies at a time would stay for ever, wherever
    a small block that lives on lies behind them. Only glibc can be told so.

    By default glibc maps each block of more than 128 KiB anew and unmaps it when it is freed, and
    the kernel clears its pages each time. A request of 602 kB passes through several such blocks:
    see docs/serving.md for what that costs. For a process that does nothing but serve.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    wanted = {
        _M_MMAP_THRESHOLD: _MMAP_BYTES,
        _M_TRIM_THRESHOLD: _TRIM_BYTES,
        _M_TOP_PAD: _PAD_BYTES,
    }
    return all([mallopt(name, value) for name, value in wanted.items()])


def spare_collector() -> None:
    """Keep what is there now, modules and engines, out of every later garbage collection.

    Requests make new objects all the time, so the collector runs all the time; without this it
    looks at every object that an import ever made. To be called when everything is open.
    """
    gc.collect()
    gc.freeze()
