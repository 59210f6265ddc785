"""What one client, and all of them together, may take up."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on sizes, counts and times. A client beyond one is refused or disconnected.

    ``body_bytes`` holds for the body as sent and for the body decompressed, and for a gRPC message.
    """

    body_bytes: int = 16 * MIB
    all_bodies_bytes: int = (
        256 * MIB
    )  # of all requests of a wire that are sent or answered just now
    json_bytes: int = 4 * MIB  # the JSON of a request: parsing it holds up all others
    head_bytes: int = 32 * 1024  # request line and headers together
    headers: int = 100
    connections: int = 1000
    head_s: float = 10.0  # from the first byte, or the connection, to the last header
    body_s: float = 10.0
    body_rate_bytes_s: float = 64 * 1024
    idle_s: float = 75.0  # a connection kept open without a request
    write_s: float = 30.0  # a client that does not read its answer
    linger_s: float = 2.0  # sending on after having been refused
    calls: int = 128  # at once on one gRPC connection; twice what a queue holds by default
    message_s: float = 30.0  # for the message of a gRPC call, from the call's beginning
    streams: int = 64  # of gRPC over all connections; each may begin a message at any time
    stream_requests: int = 32  # unanswered ones of one gRPC stream

    def body_time_s(self, received_bytes: int) -> float:
        """How long a body may take of which so much has come: ``body_s``, and more at a rate."""
        return self.body_s + received_bytes / self.body_rate_bytes_s
