"""The options of ``serve`` that guard against engines that hang or are wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from .options import FiniteRange

Function = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What was chosen; by default nothing."""

    engine_timeout_ms: float | None
    prove_every: float | None
    check_finite: bool

    @property
    def timeout_s(self) -> float | None:
        """How long a run may take."""
        return self.engine_timeout_ms / 1e3 if self.engine_timeout_ms else None

    @property
    def prove_every_s(self) -> float:
        """How often the canary runs again; 0: never."""
        return self.prove_every or 0.0

    def refuse_on_ray(self) -> None:
        """Replicas on a cluster do not know these yet.

        Raises:
            click.UsageError: One was given.
        """
        if self.engine_timeout_ms or self.prove_every or self.check_finite:
            raise click.UsageError(
                "--engine-timeout-ms, --prove-every and --check-finite are not for a Ray cluster "
                "yet. Leave them out."
            )


def guard_options(function: Function) -> Function:
    """Add the options; the function gets them as ``guard``."""

    @click.option(
        "--engine-timeout-ms",
        type=FiniteRange(1),
        help="Give a run up that takes longer: not ready until its engine comes back.",
    )
    @click.option(
        "--prove-every",
        type=FiniteRange(1, 86_400),
        metavar="SECONDS",
        help="Run the canary again this often; not ready any more if its logits are wrong.",
    )
    @click.option(
        "--check-finite", is_flag=True, help="Fail a request rather than answer NaN or infinities."
    )
    @functools.wraps(function)
    def with_guard(
        *args: Any,
        engine_timeout_ms: float | None,
        prove_every: float | None,
        check_finite: bool,
        **more: Any,
    ) -> Any:
        guard = Guard(
            engine_timeout_ms=engine_timeout_ms, prove_every=prove_every, check_finite=check_finite
        )
        return function(*args, guard=guard, **more)

    return with_guard
