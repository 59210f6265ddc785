"""OpenVINO, imported without its telemetry; nothing else here imports it.

``import openvino`` imports its command-line converter, which sends an event over the network and
writes a client id into ``~/intel``, unless the user has opted out there. No setting of the process
stops it, but without the package openvino_telemetry the converter goes on with a silent stand-in.
So that package is hidden while OpenVINO is imported. What was imported before stays as it is.

Source: ``openvino/tools/ovc/__init__.py`` and ``telemetry_utils.py`` of openvino 2026.4.1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TELEMETRY = "openvino_telemetry"


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let a module seem not installed."""
    there = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]  # documented: its import then fails
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(there)


with _hidden(_TELEMETRY):
    import openvino as ov

__all__ = ["ov"]
