"""What the backends on the CPU share: each segment's file becomes an engine on the host's cores."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from ..errors import DeviceUnavailableError
from ..machine.cores import share_cores, usable_cores
from ..placement import Segment
from ..plan import Plan, asked_backend
from ..spec import ModelSpec
from .backend import LoadedPlan
from .device import Engine
from .engine_file import EngineFile
from .host import HostDevice


class HostBackend:
    """See ``backend.Backend``. A backend of the CPU opens one engine; the rest is here.

    Engines run on a ``HostDevice``: they read and write its float32 NCHW buffers, in the thread
    that calls ``enqueue`` or a lane's own, and release the GIL while they run.
    """

    name = "host"

    def prepare(self, plan: Plan, cores: int) -> None:
        """Called before the engines of a plan are opened, which may use so many cores in all."""

    def open_engine(
        self, file: EngineFile, segment: Segment, spec: ModelSpec, plan: Plan, threads: int
    ) -> Engine:
        """Load one engine that may use so many cores.

        Raises:
            EngineLoadError: The file is not an engine of this segment, or not for this machine.
            OutOfMemoryError: It does not fit into memory.
            MissingExtraError: A package that it needs is not installed.
        """
        raise NotImplementedError

    def facts(self, plan: Plan) -> Mapping[str, Any]:
        """For people: the version of what runs the engines."""
        raise NotImplementedError

    def load(
        self,
        spec: ModelSpec,
        plan: Plan,
        files: Mapping[str, EngineFile],
        threads: int | None = None,
        *,
        trace: bool = False,
    ) -> LoadedPlan:
        """See ``backend.Backend``."""
        if plan.placement.devices != (0,):
            raise DeviceUnavailableError(
                f"placement {plan.placement.name}: got devices {plan.placement.devices}, "
                "expected 0, for the CPU is one device. Run: parnet-deploy build --backend "
                f"{asked_backend('', plan.backend)} without --gpus."
            )
        cores = threads or plan.threads or usable_cores()
        shares = share_cores(plan.placement, cores)
        engines: dict[str, Engine] = {}
        self.prepare(plan, cores)
        with ExitStack() as undo:
            for segment in plan.placement.segments:
                name = segment.name
                engines[name] = self.open_engine(files[name], segment, spec, plan, shares[name])
                undo.callback(engines[name].close)
            undo.pop_all()
        facts = {**self.facts(plan), "cores": cores, "threads": shares}
        return LoadedPlan(devices={0: HostDevice(trace=trace)}, engines=engines, facts=facts)
