"""What ``parnet_deploy.c`` calls. Nothing here raises: an error is part of the reply.

The C side has no logic of its own, so that what can go wrong goes wrong in Python, in the same
words as for Python's callers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from ..errors import BackendError
from ..runtime.session import Runtime
from .status import Status, explain

P = ParamSpec("P")
T = TypeVar("T")

Reply = tuple[int, bytes, Any]
"""Status, message (UTF-8, empty if all went well), result."""

ABI_VERSION = 1
"""``PARNET_ABI_VERSION`` of the header that this module answers to."""


def answered(work: Callable[P, T]) -> Callable[P, Reply]:
    """Let a function reply instead of raising. Ctrl-C is not an answer, and goes through."""

    @wraps(work)
    def call(*args: P.args, **kwargs: P.kwargs) -> Reply:
        try:
            return (Status.OK, b"", work(*args, **kwargs))
        except Exception as error:
            return (*explain(error), None)

    return call


class Handle:
    """A runtime as C holds it: by a pointer that stays valid for good, also after ``close``.

    Owns: the runtime, until it is closed.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime: Runtime | None = runtime

    @answered
    def run(self, in_ptr: int, out_ptr: int, n: int, height: int, width: int) -> None:
        """See ``Runtime.run_into``; height and width 0 stand for the one size there is."""
        size = (height, width) if height or width else None
        self._open().run_into(in_ptr, out_ptr, n, size=size)

    @answered
    def describe(self) -> tuple[int | str, ...]:
        """The members of ``parnet_description``, in their order."""
        runtime = self._open()
        low, high = runtime.input_size.low, runtime.input_size.high
        spec, about = runtime.spec, runtime.describe()
        sizes = (spec.in_channels, *low, *high, spec.num_classes, runtime.max_batch)
        return (*sizes, about["backend"], about["plan"])

    @answered
    def close(self) -> None:
        """See ``Runtime.close``. Whoever comes second waits too."""
        runtime = self._runtime
        if runtime is not None:
            runtime.close()
            self._runtime = None

    def _open(self) -> Runtime:
        if self._runtime is None:
            raise BackendError("runtime: it is closed. Open it again with parnet_open.")
        return self._runtime


@answered
def open_runtime(
    path: str, backend: str | None, plan: str | None, slots: int, threads: int, replan: int
) -> Handle:
    """See ``Runtime.open``. 0 slots or threads stand for the default."""
    return Handle(
        Runtime.open(
            path,
            backend=backend,
            plan=plan,
            slots=slots or 1,
            threads=threads or None,
            on_device_lost="replan" if replan else "refuse",
        )
    )
