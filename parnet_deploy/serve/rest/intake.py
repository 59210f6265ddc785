"""Where bytes from the socket go: to the parser, or straight into the memory of a large body.

A tensor of a request is hundreds of kilobytes, and each copy of it costs as much as parsing the
rest. So the body of a request that says how long it is is read by the kernel into its own memory,
laid out so that the raw tensor behind the JSON is aligned: engines then read it in place.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .connection import GuardedConnection

READ_BYTES = 64 * 1024
"""Read at a time for the parser: heads, and small bodies."""

_ALIGNMENT = 64


def new_scratch() -> memoryview:
    """Memory for what the parser reads, and for what nobody wants."""
    return memoryview(bytearray(READ_BYTES))


class LargeBody:
    """Memory for a body of known length.

    Args:
        length: Bytes of the body.
        header_length: Bytes of JSON before the raw tensor: what follows them is aligned.
    """

    def __init__(self, length: int, header_length: int) -> None:
        memory = np.empty(length + _ALIGNMENT, dtype=np.uint8)
        address: int = memory.__array_interface__["data"][0]
        start = -(address + header_length) % _ALIGNMENT
        self.content = memoryview(memory)[start : start + length]  # type: ignore[arg-type]
        self._length, self._filled = length, 0

    @property
    def filled(self) -> int:
        """Bytes that have come."""
        return self._filled

    @property
    def is_complete(self) -> bool:
        """Whether all have."""
        return self._filled == self._length

    def add(self, data: bytes | bytearray) -> None:
        """Copy some in."""
        self.content[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def free(self, scratch: memoryview) -> memoryview:
        """Where the next bytes go, ``scratch`` if nobody wants them; ``advance`` says how many."""
        if not self.content:
            return scratch[: self._length - self._filled]
        return self.content[self._filled :]

    def advance(self, count: int) -> None:
        """So many were written into ``free``."""
        self._filled += count

    def discard(self) -> None:
        """Let go of the memory; what still comes is counted, and kept nowhere."""
        self.content = memoryview(b"")


class Intake(asyncio.BufferedProtocol):
    """What the transport talks to, in front of a connection.

    Args:
        receiver: The connection.
        scratch: Of ``new_scratch``; filled and parsed in one go, so one does for all connections of
            an event loop. Never for those of two: they would read each other's bytes.
    """

    def __init__(self, receiver: GuardedConnection, scratch: memoryview) -> None:
        self._receiver, self._scratch = receiver, scratch
        self.connection_lost = receiver.connection_lost  # type: ignore[method-assign]
        self.eof_received = receiver.eof_received  # type: ignore[method-assign]
        self.pause_writing = receiver.pause_writing  # type: ignore[method-assign]
        self.resume_writing = receiver.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._receiver.connection_made(transport)  # type: ignore[arg-type]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport reads to next."""
        body = self._receiver.large_body
        return self._scratch if body is None else body.free(self._scratch)

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read there."""
        body = self._receiver.large_body
        if body is None:
            self._receiver.data_received(self._scratch[:nbytes])
        else:
            body.advance(nbytes)
            self._receiver.large_body_advanced()
