"""Calls that are given up if their engines do not come back in time.

Nothing can stop an engine that hangs, neither on a CPU nor on a GPU. What can be promised is that
its caller goes on, and that the engine, should it ever come back, finds nothing of the caller's to
read or write. So a watched call runs in another thread, on memory of that thread, and its caller
only waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import BackendError, SpecError, TimedOutError
from ..spec import IMAGE, LOGITS, ModelSpec
from .crew import Call, Crew
from .executor import Executor
from .slot import Shape

LONGEST_S = 86_400.0


class Watchdog:
    """Stands before an executor: the same ``run`` and ``run_on``, with a time limit.

    The limit is for what a call takes once its turn has come; waiting for a turn does not count. A
    call that is given up keeps its thread and its slot until its engines come back. While all slots
    are so, calls are refused at once. Thread-safe.

    Args:
        executor: What runs the calls.
        spec: The network.
        timeout_s: The limit.
        where: For messages.

    Owns: a thread, and host memory for one batch, for each slot. Borrows the executor.

    Raises:
        SpecError: The limit is no such number of seconds.
    """

    def __init__(
        self, executor: Executor, spec: ModelSpec, *, timeout_s: float, where: str
    ) -> None:
        check_timeout(timeout_s)
        self._executor, self._timeout_s, self._where = executor, timeout_s, where
        self._image, self._logits = spec.tensors[IMAGE], spec.tensors[LOGITS]
        largest = executor.largest
        self._crew = Crew(
            executor.slots, self._image.nbytes(*largest), self._logits.nbytes(*largest)
        )
        self._closed = False

    @property
    def stuck(self) -> int:
        """Slots whose call has taken longer than it may."""
        return sum(running_s > self._timeout_s for running_s in self._crew.running_s())

    def run(self, image: int, logits: int, shape: Shape) -> None:
        """See ``Executor.run``. The image is copied first; after this returned it is not read.

        Raises:
            TimedOutError: The engines did not come back, or no slot is left whose engines did.
        """
        self._make(self._executor.run, image, self._image.nbytes(*shape), logits, shape)

    def run_on(
        self, image: int, logits: int, shape: Shape, stream: int, device: int | None = None
    ) -> None:
        """See ``Executor.run_on``. The image is read where it is, so maybe after a time-out too.

        Raises:
            TimedOutError: As in ``run``.
        """

        def work(memory: int, result: int, shape: Shape) -> None:
            self._executor.run_on(image, result, shape, stream, device)

        self._make(work, 0, 0, logits, shape)

    def close(self, then: Callable[[], None]) -> int:
        """Refuse what comes, and wait for what runs, but for no longer than the limit.

        Args:
            then: Frees what calls use. Called when none runs any more: before this returns, or
                when the last one that was given up comes back.

        Returns: How many calls were left behind.
        """
        self._closed = True
        return self._crew.close(self._timeout_s, then)

    def _make(
        self,
        work: Callable[[int, int, Shape], None],
        image: int,
        nbytes: int,
        logits: int,
        shape: Shape,
    ) -> None:
        """Let a thread make a call, and wait until it is done or given up."""
        self._executor.check(shape)
        call = Call(
            work=work,
            image=image,
            image_bytes=nbytes,
            logits=logits,
            logits_bytes=self._logits.nbytes(*shape),
            shape=shape,
        )
        try:
            if self._left_s(call) > 0 and not self._closed:
                self._crew.put(call)
                while (left_s := self._left_s(call)) > 0:
                    if call.done.acquire(timeout=left_s):
                        break
        finally:
            call.leave()
        if call.finished:
            return
        if call.error is not None:
            raise call.error
        if self._closed and call.since is None:
            raise self._refusal()
        raise self._timed_out(call)

    def _left_s(self, call: Call) -> float:
        """How long to wait for a call before looking again; not positive: give it up.

        One whose turn has not come waits as long as a slot may come back.
        """
        begun_s = self._crew.latest_s if call.since is None else call.since
        return min(begun_s + self._timeout_s - time.monotonic(), self._timeout_s)

    def _timed_out(self, call: Call) -> TimedOutError:
        slots = self._executor.slots
        late = "its engines" if call.since is not None else f"the engines of all {slots} slots"
        return TimedOutError(
            f"{self._where}: got no answer from {late} in {self._timeout_s:g} s, expected one. A "
            "slot is out of use until its engines come back; if they never do, restart the process."
        )

    def _refusal(self) -> BackendError:
        return BackendError(f"{self._where}: it is closed. Open it again.")


def check_timeout(timeout_s: object) -> None:
    """Refuse a time limit that cannot be.

    Raises:
        SpecError: Not a number of seconds above 0, up to a day.
    """
    number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not number or not 0 < timeout_s <= LONGEST_S:  # type: ignore[operator]
        raise SpecError(
            f"timeout_s: got {timeout_s!r:.80}, expected seconds above 0, up to {LONGEST_S:g}."
        )
