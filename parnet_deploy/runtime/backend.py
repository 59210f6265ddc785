"""Which backends there are, and what one is. Importing this module imports none of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from ..errors import BackendError
from ..extras import import_for
from ..plan import Plan
from ..spec import ModelSpec
from .device import Device, Engine
from .engine_file import EngineFile


class BackendEntry(NamedTuple):
    """Where a backend is, the extra that installs what it needs, and its rank (0 is best).

    ``family`` tells whose devices its ordinals number: a GPU that one backend has lost is lost to
    every other of the family.
    """

    where: str
    extra: str
    rank: int
    family: str


BACKENDS: dict[str, BackendEntry] = {
    "tensorrt": BackendEntry(
        "parnet_deploy.runtime.tensorrt.backend:TensorRtBackend", "gpu", rank=0, family="cuda"
    ),
    "onnxruntime-cuda": BackendEntry(
        "parnet_deploy.runtime.onnxruntime.cuda:OnnxRuntimeCudaBackend",
        "gpu",
        rank=10,
        family="cuda",
    ),
    "onnxruntime": BackendEntry(
        "parnet_deploy.runtime.onnxruntime.cpu:OnnxRuntimeBackend", "cpu", rank=20, family="cpu"
    ),
    "openvino": BackendEntry(
        "parnet_deploy.runtime.openvino.backend:OpenVinoBackend", "openvino", rank=20, family="cpu"
    ),
    "mnn": BackendEntry("parnet_deploy.runtime.mnn:MnnBackend", "mnn", rank=20, family="cpu"),
    "ncnn": BackendEntry("parnet_deploy.runtime.ncnn:NcnnBackend", "ncnn", rank=20, family="cpu"),
    "mixed": BackendEntry("parnet_deploy.runtime.mixed:MixedBackend", "cpu", rank=20, family="cpu"),
    "fake": BackendEntry(
        "parnet_deploy.runtime.fake.backend:FakeBackend", "cpu", rank=90, family="fake"
    ),
}
_PACKAGES = {
    "onnxruntime": "onnxruntime",
    "onnxruntime-cuda": "onnxruntime",
    "openvino": "openvino",
    "mnn": "MNN",
    "ncnn": "ncnn",
}
"""The module that a backend imports, where one is enough to tell."""


def on_host(backend: str) -> bool:
    """Whether a backend of this name computes on the host's cores; simulated devices do."""
    return backend in BACKENDS and BACKENDS[backend].family != "cuda"


@dataclass(frozen=True, kw_only=True)
class LoadedPlan:
    """Devices and engines of one plan. ``facts`` is for people: versions, thread counts.

    Owns: devices and engines.
    """

    devices: Mapping[int, Device]
    engines: Mapping[str, Engine]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def close(self) -> None:
        """Free the engines, then the devices. Idempotent. Executors on them are closed before.

        Goes on whatever one of them raises; the last error surfaces.
        """
        with ExitStack() as parts:  # last in, first out
            for device in self.devices.values():
                parts.callback(device.close)
            for engine in self.engines.values():
                parts.callback(engine.close)


class Backend(Protocol):
    """Turns the engine files of a plan into engines on devices."""

    @property
    def name(self) -> str:
        """The name in the table."""

    def load(
        self,
        spec: ModelSpec,
        plan: Plan,
        files: Mapping[str, EngineFile],
        threads: int | None = None,
        *,
        trace: bool = False,
    ) -> LoadedPlan:
        """Load every engine of a plan.

        Args:
            spec: The network.
            plan: What was built.
            files: Engine file of each segment.
            threads: Cores that engines may use; None: what the plan says, else every usable core.
            trace: Let devices record the time of each operation. They then run without graphs.

        Raises:
            DeviceUnavailableError: The machine has not the devices of the placement.
            EngineLoadError: A file is not an engine of this segment, or not for this machine.
        """


def load_backend(name: str) -> Backend:
    """Import a backend.

    Raises:
        BackendError: There is no backend of this name.
        MissingExtraError: A package that it needs is not installed.
    """
    entry = _entry(name)
    module, _, attribute = entry.where.partition(":")
    backend: Backend = getattr(import_for(module, entry.extra), attribute)()
    return backend


def backend_rank(name: str) -> int:
    """How a backend compares with others; lower is better.

    Raises:
        BackendError: There is no backend of this name.
    """
    return _entry(name).rank


def device_family(name: str) -> str:
    """Whose devices the ordinals of a backend number.

    Raises:
        BackendError: There is no backend of this name.
    """
    return _entry(name).family


def extras_of(plan: Plan) -> tuple[str, ...]:
    """The extras with which a machine can run a plan.

    Raises:
        BackendError: It names a backend that there is not.
    """
    return tuple(sorted({_entry(name).extra for name in plan.homes.values()}))


def is_installed(name: str) -> bool:
    """Whether the package of a backend can be found here; it is not imported, so it may be broken.

    Backends without a package of their own count as installed.
    """
    module = _PACKAGES.get(name)
    return module is None or find_spec(module) is not None


def _entry(name: str) -> BackendEntry:
    if name not in BACKENDS:
        near = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BackendError(f"backend: got {name!r}, expected one of {', '.join(BACKENDS)}.{hint}")
    return BACKENDS[name]
