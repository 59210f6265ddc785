"""A plan whose engines are loaded and whose executor is ready: what a ``Runtime`` runs on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..deployment import Deployment
from ..errors import DeploymentError
from ..placement import check_placement
from ..plan import Plan
from ..signing.trust import Trust, admit
from ..spec import ModelSpec
from .arrays.inputs import address_of, check_count
from .backend import Backend, LoadedPlan, load_backend
from .canary import check_canary
from .choose import NOT_HERE, PlanFiles, none_runs, order_plans, read_plan
from .engine_file import EngineFile
from .executor import Executor
from .outputs import OutputPool
from .watchdog import Watchdog, check_timeout

Logits = NDArray[np.float32]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """How to open any plan; see ``Runtime.open``. ``loader``: a backend instance to use.

    ``trust``: who must have signed the deployment, also the one that a lost device makes open.
    """

    slots: int = 1
    threads: int | None = None
    trace: bool = False
    packed_devices: bool = False
    timeout_s: float | None = None
    check_finite: bool = False
    loader: Backend | None = None
    trust: Trust | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """One plan, ready to answer. ``files`` are its engines; ``about`` is for people.

    ``host``: what runs calls that wait for their logits: the executor, or a watchdog before it.
    ``canary``: what the plan must answer, if that was stored. ``where`` is for messages.

    Owns: executor, engines and devices, and device memory of ``outputs``.
    """

    spec: ModelSpec
    plan: Plan
    files: Mapping[str, EngineFile]
    loaded: LoadedPlan
    executor: Executor
    host: Executor | Watchdog
    outputs: OutputPool
    where: str
    canary: bytes | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, images: NDArray[np.float32]) -> Logits:
        """Logits (N, K) of host images (N, C, H, W), C-contiguous; a fresh array."""
        batch, _, height, width = images.shape
        logits = np.empty((batch, self.spec.num_classes), dtype=np.float32)
        self.host.run(address_of(images), address_of(logits), (batch, height, width))
        return logits

    def prove(self) -> dict[str, Any]:
        """Run the stored input and compare; see ``check_canary``.

        Raises:
            CheckFailedError: The engines compute something else than when the plan was built.
            DeploymentError: The plan has no canary.
        """
        if self.canary is None:
            raise DeploymentError(
                f"{self.where}: got no canary, expected a stored input. Run: parnet-deploy build."
            )
        limit = self.plan.made.get("tolerance")
        return check_canary(self.answer, self.canary, limit, where=self.where)

    @property
    def stuck(self) -> int:
        """Slots whose call was given up and has not come back."""
        return self.host.stuck if isinstance(self.host, Watchdog) else 0

    def close(self) -> None:
        """Wait for the calls in flight, then free everything. Idempotent.

        With a time limit it waits no longer than that. What is stuck is then left behind, with all
        that it uses; should it come back, that is freed.
        """
        if not isinstance(self.host, Watchdog):
            self._free()
            return
        left = self.host.close(self._free)
        if left:
            _LOG.error(
                "%s: %d of %d slots did not come back; engines, buffers and threads are left",
                self.where,
                left,
                self.executor.slots,
            )

    def _free(self) -> None:
        with ExitStack() as parts:  # last in, first out, whatever one of them raises
            for part in (self.loaded, self.outputs, self.executor):
                parts.callback(part.close)


def open_plan(
    spec: ModelSpec,
    plan: Plan,
    files: Mapping[str, EngineFile],
    options: OpenOptions,
    where: str | None = None,
) -> Opened:
    """Load the engines of a plan and make its executor.

    Args:
        spec: The network.
        plan: The plan.
        files: Engine file of each segment.
        options: How to open it.
        where: For messages; None: the placement.

    Raises:
        SpecError: The placement does not compute the network, or no slot or thread was given.
        BackendError: The plan does not run on this machine.
    """
    where = where or f"placement {plan.placement.name}"
    check_placement(plan.placement, spec)
    if options.timeout_s is not None:
        check_timeout(options.timeout_s)  # before anything is loaded
    if options.threads is not None:
        check_count("threads", options.threads)
    loader = options.loader or load_backend(plan.backend)
    with ExitStack() as undo:
        loaded = loader.load(spec, plan, files, options.threads, trace=options.trace)
        undo.callback(loaded.close)
        executor = Executor(
            spec=spec,
            placement=plan.placement,
            devices=loaded.devices,
            engines=loaded.engines,
            input_size=plan.input_size,
            max_batch=plan.max_batch,
            slots=options.slots,
            check_finite=options.check_finite,
            where=where,
        )
        undo.callback(executor.close)
        host: Executor | Watchdog = executor
        if options.timeout_s is not None:
            host = Watchdog(executor, spec, timeout_s=options.timeout_s, where=where)
        undo.pop_all()
    return Opened(
        spec=spec,
        plan=plan,
        files=files,
        loaded=loaded,
        executor=executor,
        host=host,
        where=where,
        outputs=OutputPool(executor.allocate_logits, executor.home.create_event),
    )


def open_proved(spec: ModelSpec, files: PlanFiles, options: OpenOptions, where: str) -> Opened:
    """Open a plan and run its canary, if it has one.

    Args:
        spec: The network.
        files: The plan, its engines and its canary.
        options: How to open it.
        where: For messages.

    Raises:
        CheckFailedError: The canary gave other logits than when the plan was built.
        BackendError: The plan does not run on this machine.
    """
    opened = open_plan(spec, files.plan, files.engines, options, where)
    opened = replace(opened, canary=files.canary)
    with ExitStack() as undo:
        undo.callback(opened.close)
        about: dict[str, Any] = {"plan": files.key}
        if files.canary is not None:
            about["canary"] = opened.prove()
        undo.pop_all()
    return replace(opened, about=about)


def open_best(
    found: Deployment,
    options: OpenOptions,
    *,
    backend: str | None = None,
    key: str | None = None,
    unfit: Callable[[Plan], str | None] = lambda plan: None,
) -> Opened:
    """Open the first plan that runs here.

    Args:
        found: The deployment.
        options: How to open it.
        backend: Plans of this backend only.
        key: This plan only; then what keeps it from running is raised as it is.
        unfit: Why a plan must not be tried, if so.

    Raises:
        DeploymentUntrustedError: None of the trusted keys has signed it. Nothing was loaded.
        DeploymentError: There is no such plan, or a file was changed.
        BackendError: No plan runs on this machine; the message has the reason for each.
        CheckFailedError: A plan loads, and computes something else than when it was built.
    """
    admit(found, options.trust)
    skipped: dict[str, str] = {}
    for name in order_plans(found, backend=backend, key=key):
        files = read_plan(found, name, packed_devices=options.packed_devices)
        why = unfit(files.plan)
        if why is not None:
            skipped[name] = why
            continue
        try:
            opened = open_proved(found.spec, files, options, f"{found.path}, plan {name}")
        except NOT_HERE as error:
            if key is not None:
                raise
            _LOG.warning("plan %s does not run on this machine: %s", name, error)
            skipped[name] = str(error)
            continue
        _LOG.info("%s: running plan %s on %s", found.path, name, files.plan.backend)
        return replace(opened, about={"path": str(found.path), **opened.about, "skipped": skipped})
    raise none_runs(found, skipped)
