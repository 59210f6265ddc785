"""Every row of the fault matrix names a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith("|---") and "| test |" not in line
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_the_row_is_a_test_with_its_outcome(row: list[str]) -> None:
    fault, outcome, tests = row
    assert fault
    assert outcome
    named = re.findall(r"`(tests/[^`]+)`", tests)
    assert named
    for name in named:
        path, _, function = name.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in text


def test_there_are_rows() -> None:
    assert len(ROWS) > 20
