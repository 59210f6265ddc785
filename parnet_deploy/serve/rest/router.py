"""From a path to what answers it: segments compared one by one, names decoded after splitting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote

Target = TypeVar("Target")


class Router(Generic[Target]):
    """Patterns such as ``/v2/models/{model}/infer``; the first that matches is taken."""

    def __init__(self, patterns: Iterable[tuple[str, Target]]) -> None:
        self._by_length: dict[int, list[tuple[list[str], Target]]] = {}
        for pattern, target in patterns:
            segments = _split(pattern)
            self._by_length.setdefault(len(segments), []).append((segments, target))

    def find(self, path: str) -> tuple[Target, dict[str, str]] | None:
        """What a path leads to and its parameters. One slash at the end is overlooked.

        Args:
            path: Still quoted, so that a name may contain a slash.
        """
        segments = _split(path)
        for pattern, target in self._by_length.get(len(segments), ()):
            parameters = _match(pattern, segments)
            if parameters is not None:
                return target, parameters
        return None


def _split(path: str) -> list[str]:
    segments = path.split("/")[1:]
    if len(segments) > 1 and not segments[-1]:
        segments.pop()
    return segments


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    parameters = {}
    for expected, got in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not got:
                return None
            parameters[expected[1:-1]] = unquote(got) if "%" in got else got
        elif expected != got:
            return None
    return parameters
