"""How a child process ended, in words."""

from __future__ import annotations

import signal


def ending(status: int) -> str:
    """What follows "its process": the signal or the exit status, and why that may have been.

    Args:
        status: As ``subprocess`` tells it, negative for a signal.
    """
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = " (is there too little memory?)" if -status == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
