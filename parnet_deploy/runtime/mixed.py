"""The ``mixed`` backend: segments of one plan on different backends of the CPU.

They hand each other float32 NCHW tensors in host memory, so that any may follow any. An engine
whose own layout is another converts at its borders, as it does in a plan of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ..errors import BackendError
from ..placement import Segment
from ..plan import Plan
from ..spec import ModelSpec
from .backend import load_backend
from .device import Engine
from .engine_file import EngineFile
from .host_backend import HostBackend


class MixedBackend(HostBackend):
    """See ``host_backend.HostBackend``. Only the backends that the plan names are imported."""

    name = "mixed"

    def __init__(self) -> None:
        self._backend = cache(_load)

    def prepare(self, plan: Plan, cores: int) -> None:
        """See ``host_backend.HostBackend``."""
        for name in sorted(set(plan.backends.values())):
            self._backend(name).prepare(plan, cores)

    def open_engine(
        self, file: EngineFile, segment: Segment, spec: ModelSpec, plan: Plan, threads: int
    ) -> Engine:
        """See ``host_backend.HostBackend``."""
        backend = self._backend(plan.backends[segment.name])
        return backend.open_engine(file, segment, spec, plan, threads)

    def facts(self, plan: Plan) -> Mapping[str, Any]:
        """See ``host_backend.HostBackend``."""
        found: dict[str, Any] = {"backends": dict(plan.backends)}
        for name in sorted(set(plan.backends.values())):
            found |= self._backend(name).facts(plan)
        return found


def _load(name: str) -> HostBackend:
    backend = load_backend(name)
    if not isinstance(backend, HostBackend) or isinstance(backend, MixedBackend):
        raise BackendError(f"mixed plan: got a segment on {name}, expected a backend of the CPU.")
    return backend
