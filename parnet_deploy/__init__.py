"""Lowest-latency inference for trained ParNet weights, with proof of an unchanged answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime.session import Runtime

__version__ = "0.1.0"
__all__ = ["Runtime", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the runtime, and numpy with it, only when somebody asks for it."""
    if name == "Runtime":
        from .runtime.session import Runtime

        return Runtime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
