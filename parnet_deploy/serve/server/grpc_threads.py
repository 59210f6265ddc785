"""How gRPC reads its sockets and what it says, which it decides when it is first imported."""

from __future__ import annotations

import os

_VARIABLE = "GRPC_EXPERIMENTS"
_VERBOSITY = "GRPC_VERBOSITY"
_WANTED = "-event_engine_listener"


def read_in_poller() -> None:
    """Let gRPC read in the thread that tells the event loop, not in a pool of threads before it.

    By default its servers hand each message through one thread more, which cost about 0.2 ms of CPU
    for a request of 602 kB (1.83 and 1.85; a release that does not know the switch writes one line
    about it and goes on). Does nothing if gRPC is imported already, or if the
    variable is set. For a process that does nothing but serve.
    """
    os.environ.setdefault(_VARIABLE, _WANTED)


def keep_quiet() -> None:
    """Let gRPC's C core write nothing on stderr: what it would say, the server's own log says.

    Does nothing if gRPC is imported already, or if the variable is set.
    """
    os.environ.setdefault(_VERBOSITY, "NONE")
