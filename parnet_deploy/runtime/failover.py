"""What takes over when a device is lost: the same engines elsewhere, another plan, the CPU.

Engines that hang count as lost: nothing can stop them, and their device need not come back either.
A sticky CUDA error leaves a device unusable for the rest of the process. What is left may still
answer, with the same engines on the other devices of the plan or with another plan of the
deployment. Whatever takes over has passed its canary, so the answer is the same within the
tolerance that its plan states; how long it takes is not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..deployment import Deployment
from ..errors import (
    BackendError,
    DeviceLostError,
    ParnetDeployError,
    SpecError,
    TimedOutError,
)
from ..placement import remap
from ..plan import Plan
from ..signing.trust import admit
from .backend import device_family
from .choose import read_plan
from .opened import Opened, OpenOptions, open_best, open_plan, open_proved

OnDeviceLost = Literal["refuse", "replan"]
POLICIES: tuple[OnDeviceLost, ...] = ("refuse", "replan")

_CPU = "cpu"
_LOG = logging.getLogger(__name__)


class Standby:
    """Finds successors for a runtime's plan. Thread-safe; one search at a time.

    ``losses`` says for people what was lost and what took over.

    Owns: nothing but what it has opened and not handed out yet.

    Raises:
        SpecError: There is no such policy.
    """

    def __init__(
        self, options: OpenOptions, policy: OnDeviceLost, *, path: Path | None = None
    ) -> None:
        if policy not in POLICIES:
            raise SpecError(
                f"on_device_lost: got {policy!r}, expected one of {', '.join(POLICIES)}."
            )
        self.options = options
        self.losses: list[dict[str, Any]] = []
        self._policy, self._path = policy, path
        self._dead: set[tuple[str, int]] = set()
        self._hung: list[Plan] = []  # on the CPU, which is not dead for that
        self._successors: dict[Opened, Opened] = {}
        self._hopeless: dict[Opened, DeviceLostError] = {}
        self._lock = threading.Lock()
        self._closed = False

    def successor(self, failed: Opened, error: BackendError) -> Opened | None:
        """What to use instead of a plan that raised this; None: nothing, the error stands.

        All threads that were on the failed plan get the same successor. The failed plan is closed.

        Raises:
            DeviceLostError: A device is lost and nothing is left that does without it.
        """
        with self._lock:
            known = self._successors.get(failed)
            if known is not None or self._closed:
                return known
            if failed in self._hopeless:
                raise DeviceLostError(str(self._hopeless[failed]), self._hopeless[failed].device)
            if self._policy == "refuse" or not isinstance(error, DeviceLostError | TimedOutError):
                return None
            with suppress(BackendError):
                failed.close()  # first: its engines would take the memory of those that follow
            found = self._search(failed, error)
            self._successors[failed] = found
            about = {"plan": found.about.get("plan"), "backend": found.plan.backend}
            devices = list(found.plan.placement.devices)
            self.losses.append({"error": str(error), "now": {**about, "devices": devices}})
            _LOG.warning("%s Now running on %s, devices %s.", error, found.plan.backend, devices)
        return found

    def close(self, now: Opened) -> None:
        """Close a plan and whatever took over from it; nothing is opened afterwards."""
        with self._lock:
            self._closed = True
            chain = [now]
            while (following := self._successors.get(chain[-1])) is not None:
                chain.append(following)
        for opened in chain:
            opened.close()

    def _search(self, failed: Opened, error: DeviceLostError | TimedOutError) -> Opened:
        """The first candidate that opens and computes what it should."""
        self._bury(failed.plan, error)
        tried = []
        for label, attempt in self._candidates(failed):
            try:
                return attempt()
            except ParnetDeployError as reason:
                if isinstance(reason, DeviceLostError) and reason.device is not None:
                    self._bury(failed.plan, reason)
                tried.append(f"[{label}] {reason}")
        self._hopeless[failed] = DeviceLostError(
            f"{error} Nothing else can answer: {' '.join(tried)}", _device_of(error)
        )
        raise self._hopeless[failed] from error

    def _bury(self, plan: Plan, error: DeviceLostError | TimedOutError) -> None:
        """Remember what is dead: the device that the error names, else all of the plan.

        Engines that hang have not said which device did; but the CPU is there for other engines.
        """
        family, device = device_family(plan.backend), _device_of(error)
        if family == _CPU and isinstance(error, TimedOutError):
            self._hung.append(plan)
            return
        lost = plan.placement.devices if device is None else (device,)
        self._dead |= {(family, device) for device in lost}

    def _candidates(self, failed: Opened) -> Iterator[tuple[str, Callable[[], Opened]]]:
        if self._left(failed.plan) and failed.plan not in self._hung:
            yield "the same engines elsewhere", lambda: self._reopen(failed)
        if self._path is not None:
            path = self._path
            yield (
                "another plan",
                lambda: open_best(Deployment.open(path), self.options, unfit=self._unfit),
            )

    def _gone(self, plan: Plan) -> list[int]:
        family = device_family(plan.backend)
        return [d for d in plan.placement.devices if (family, d) in self._dead]

    def _left(self, plan: Plan) -> list[int]:
        gone = self._gone(plan)
        return [d for d in plan.placement.devices if d not in gone]

    def _move(self, plan: Plan) -> Plan:
        """The plan on those of its devices that are left."""
        left, gone = self._left(plan), self._gone(plan)
        targets = {device: left[i % len(left)] for i, device in enumerate(gone)}
        return replace(plan, placement=remap(plan.placement, targets))

    def _reopen(self, failed: Opened) -> Opened:
        """The same plan, as it is in the deployment now, on what is left."""
        key = failed.about.get("plan")
        if self._path is None or key is None:
            return open_plan(failed.spec, self._move(failed.plan), failed.files, self.options)
        found = admit(Deployment.open(self._path), self.options.trust)
        files = read_plan(found, key, packed_devices=self.options.packed_devices)
        if not self._left(files.plan):
            raise DeviceLostError(f"plan {key}: it was built anew, for devices that are lost.")
        moved = replace(files, plan=self._move(files.plan))
        opened = open_proved(found.spec, moved, self.options, f"{self._path}, plan {key}")
        return replace(opened, about={"path": str(self._path), **opened.about, "skipped": {}})

    def _unfit(self, plan: Plan) -> str | None:
        if plan in self._hung:
            return "its engines did not come back."
        gone = self._gone(plan)
        return f"it needs device {gone[0]}, which is lost." if gone else None


def _device_of(error: BackendError) -> int | None:
    """Which device is lost, if that is known."""
    return error.device if isinstance(error, DeviceLostError) else None
