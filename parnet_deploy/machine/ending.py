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
    hint = " (is there too little memory?)" if -status == signal.SIGKILL else ""
    return f"was ended by {signal_name(-status)}{hint}"


def signal_name(number: int) -> str:
    """SIGSEGV and the like."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
