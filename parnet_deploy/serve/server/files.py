"""How many files, and so connections, the process may have open."""

from __future__ import annotations

import resource

_OTHERS = 64  # files that are open besides connections: engines, libraries, sockets, the log


def raise_file_limit() -> int:
    """Allow as many open files as the system lets this process have; how many that are now.

    For a process that does nothing but serve. Shells start with 1024, for the sake of old programs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # "unlimited" is more than macOS takes
        return soft
    return hard


def too_few_files(allowed: int, connections: int) -> str | None:
    """What whoever starts the server should know, if so many connections are more than may be."""
    wanted = connections + _OTHERS
    if allowed in (resource.RLIM_INFINITY, -1) or allowed >= wanted:
        return None
    return (
        f"open files: got a limit of {allowed}, expected at least {wanted} for {connections} "
        "connections on each wire. Raise it with ulimit -n; until then some cannot be accepted"
    )
