"""What a precision search has measured so far, kept on disk until it ends.

The file lies in the deployment without being an artifact of it. It belongs to exactly one question:
another table, other gates or other images start anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage.files import open_plain
from ..storage.names import SEARCH_PREFIX
from .metrics import MAX_DB


class SearchLog:
    """Sensitivities and steps; written through after each. ``path`` None keeps them in memory."""

    def __init__(self, path: Path | None, key: str) -> None:
        self._path, self._key = path, key
        self.sensitivity: dict[str, float] = {}
        self.steps: list[dict[str, Any]] = []
        self.resumed = False
        found = _read(path) if path is not None else None
        if found is not None and found.get("key") == key:
            known, steps = found.get("sensitivity"), found.get("steps")
            if isinstance(known, Mapping) and all(_is_number(v) for v in known.values()):
                self.sensitivity = {str(name): float(value) for name, value in known.items()}
            if isinstance(steps, list) and all(_is_step(step) for step in steps):
                self.steps = steps
            self.resumed = bool(self.sensitivity or self.steps)

    @classmethod
    def of(cls, directory: Path, target: str, key: str) -> SearchLog:
        """The log of a deployment's search for one target."""
        return cls(directory / f"{SEARCH_PREFIX}{target}.json", key)

    def add_sensitivity(self, layer: str, sqnr_db: float) -> None:
        """Keep what one layer does."""
        self.sensitivity[layer] = sqnr_db
        self._write()

    def add_step(self, **step: Any) -> None:
        """Keep a configuration that was evaluated: ``keep``, ``failed`` and what else there is."""
        self.steps.append(dict(step))
        self._write()

    def failed(self, keep: Sequence[str]) -> list[str] | None:
        """Why this configuration failed before; None if it was not tried, or passed."""
        for step in self.steps:
            if step["keep"] == list(keep):
                return list(step["failed"]) or None
        return None

    def remove(self) -> None:
        """The search has ended: its result stands in the report."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        """Replace the file as a whole; a disk that refuses costs the resumption, not the search."""
        if self._path is None:
            return
        content = {"key": self._key, "sensitivity": self.sensitivity, "steps": self.steps}
        text = json.dumps(content, indent=1)
        temporary = self._path.with_name(f"{self._path.name}.part")  # one: the next replaces it
        try:
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with open_plain(path) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_DB


def _is_step(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), list) and all(isinstance(item, str) for item in value[name])
        for name in ("keep", "failed")
    )
