"""Where the bytes of an engine come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..deployment import Deployment


class EngineFile(Protocol):
    """A ``Path``, or a ``CheckedFile``. ``str`` of it is its name in messages.

    Backends read it whole and load those bytes: a library that opened the path itself could get
    others than the ones that were checked.
    """

    def read_bytes(self) -> bytes:
        """All of it.

        Raises:
            OSError: It cannot be read.
            DeploymentError: These are not the bytes that were written.
        """


@dataclass(frozen=True, kw_only=True)
class CheckedFile:
    """An artifact of a deployment, held against its sha256 each time it is read."""

    deployment: Deployment
    name: str

    def __str__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.deployment.path / self.name

    def read_bytes(self) -> bytes:
        """See ``EngineFile``; exactly these bytes were checked."""
        return self.deployment.read_bytes(self.name)
