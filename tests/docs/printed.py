"""Whether a command printed what its page says."""

from __future__ import annotations

import re

_WHO_WON = re.compile(r"^[✓!✗·] (?=How fast is it\?)")  # on a busy machine nobody may
_FIGURE = re.compile(r"-?\d[\d.,]*(?:e[-+]?\d+)?")


def is_printed(expected: str, got: str, *, figures_vary: bool = False) -> bool:
    """Compare line by line.

    In what is expected a line ``...`` stands for any lines, and ``...`` at the end of a line for
    the rest of it.
    """
    return _match(
        [_plain(line, figures_vary) for line in expected.strip("\n").splitlines()],
        [_plain(line, figures_vary) for line in got.strip("\n").splitlines()],
    )


def _match(expected: list[str], got: list[str]) -> bool:
    if not expected:
        return not got
    if expected[0] == "...":
        return any(_match(expected[1:], got[skipped:]) for skipped in range(len(got) + 1))
    return bool(got) and _same_line(expected[0], got[0]) and _match(expected[1:], got[1:])


def _same_line(expected: str, got: str) -> bool:
    if expected.endswith(" ..."):
        return got.startswith(expected.removesuffix("..."))
    return expected == got


def _plain(line: str, figures_vary: bool) -> str:
    """Without spaces at the end; where figures vary also without their width and who won."""
    line = line.rstrip()
    if not figures_vary:
        return line
    line = _WHO_WON.sub("", line)
    line = _FIGURE.sub("#", re.sub("[─█]+", "─", line).removesuffix("✓"))
    return re.sub(r"\s+", " ", line).rstrip()
